#!/bin/sh
# Predict the genre of a recording that is sent as the raw body and streamed from disk.  Usage: raw-body.sh song.flac
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
# Without --globoff, curl would take brackets and braces in the name of the file for a pattern.
request --request POST --globoff --upload-file "$1" "$url/v1/predict?windows=top"
