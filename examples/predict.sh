#!/bin/sh
# Predict the genre of a recording.  Usage: predict.sh song.mp3
# WHOLETRACK_URL is the URL of the service, by default http://127.0.0.1:8000.
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body -F "file=@\"$1\"" "$url/v1/predict?top_k=3&windows=none"
