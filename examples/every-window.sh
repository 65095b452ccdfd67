#!/bin/sh
# Print the start and the genre of each window, two windows per second.  Usage: every-window.sh song.ogg
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body -F "file=@\"$1\"" "$url/v1/predict?hop_s=0.5&windows=top" |
    python3 -c '
import json, sys
windows = json.load(sys.stdin)["windows"]
for start_s, genre in zip(windows["start_s"], windows["genre"]):
    print(f"{start_s:8.2f} s  {genre}")
'
