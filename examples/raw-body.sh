#!/bin/sh
# Predict the genre of a recording that is sent as the raw body and streamed from disk.  Usage: raw-body.sh song.flac
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body --request POST --upload-file "$1" "$url/v1/predict?windows=top"
