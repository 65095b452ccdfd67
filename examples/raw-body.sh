#!/bin/sh
# The same without a form: the file is the whole body, streamed from disk.  raw-body.sh song.flac
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body --request POST --upload-file "$1" "$url/v1/predict?windows=top"
