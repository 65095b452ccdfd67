#!/bin/sh
# Print genre, share and path of each recording in a folder, or the error code of one that failed.
# Usage: folder.sh music/
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
find "$1" -type f | sort | while IFS= read -r file; do
    # An error has a response as well, unless the service cannot be reached.
    response=$(request --form "$(form "$file")" "$url/v1/predict?windows=none") || [ -n "$response" ] || exit 1
    printf '%s' "$response" | python3 -c '
import json, sys
response = json.load(sys.stdin)
best = response["prediction"]["summed_score"] if "prediction" in response else {"genre": response["code"], "share": 0.0}
print("%-12s %5.1f %%  %s" % (best["genre"], 100 * best["share"], sys.argv[1]))
' "$file"
done
