#!/bin/sh
# Is the service ready, and on which device? Exits with 0 if it is.
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body "$url/readyz"
