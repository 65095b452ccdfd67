#!/bin/sh
# Print the served models with their cards, which state their accuracy.
set -eu
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
curl --silent --show-error --fail-with-body "$url/v1/models"
