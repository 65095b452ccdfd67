#!/bin/sh
# Print whether the service is ready, and the device of each model. Exits with status 0 if it is ready.
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
request "$url/readyz"
