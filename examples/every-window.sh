#!/bin/sh
# Print the start and the genre of each window, two windows per second.  Usage: every-window.sh song.ogg
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
response=$(request --form "$(form "$1")" "$url/v1/predict?hop_s=0.5&windows=top") || {
    printf '%s\n' "$response" >&2
    exit 1
}
printf '%s' "$response" | python3 -c '
import json, sys
windows = json.load(sys.stdin)["windows"]
for start_s, genre in zip(windows["start_s"], windows["genre"]):
    print(f"{start_s:8.2f} s  {genre}")
'
