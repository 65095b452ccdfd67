#!/bin/sh
# Every recording of a folder: one line with genre, share and file each; errors go on with the next.  folder.sh music/
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
find "$1" -type f | sort | while IFS= read -r file; do
    curl --silent --show-error -F "file=@\"$file\"" "$url/v1/predict?windows=none" | python3 -c '
import json, sys
answer = json.load(sys.stdin)
best = answer["prediction"]["summed_score"] if "prediction" in answer else {"genre": answer["code"], "share": 0.0}
print("%-12s %5.1f %%  %s" % (best["genre"], 100 * best["share"], sys.argv[1]))
' "$file"
done
