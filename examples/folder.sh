#!/bin/sh
# Print genre, share and path of each recording in a folder, or the error code of one that failed.
# Usage: folder.sh music/
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
find "$1" -type f | sort | while IFS= read -r file; do
    curl --silent --show-error -F "file=@\"$file\"" "$url/v1/predict?windows=none" | python3 -c '
import json, sys
response = json.load(sys.stdin)
best = response["prediction"]["summed_score"] if "prediction" in response else {"genre": response["code"], "share": 0.0}
print("%-12s %5.1f %%  %s" % (best["genre"], 100 * best["share"], sys.argv[1]))
' "$file"
done
