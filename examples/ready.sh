#!/bin/sh
# Print whether the service is ready, and the device of each model. Exits with status 0 if it is ready.
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body "$url/readyz"
