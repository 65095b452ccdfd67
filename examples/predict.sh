#!/bin/sh
# Predict the genre of a recording.  Usage: predict.sh song.mp3
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
request --form "$(form "$1")" "$url/v1/predict?top_k=3&windows=none"
