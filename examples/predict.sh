#!/bin/sh
# What genre is this recording?  predict.sh song.mp3
# The service is at $WHOLETRACK_URL, by default http://127.0.0.1:8000.
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body -F "file=@\"$1\"" "$url/v1/predict?top_k=3&windows=none"
