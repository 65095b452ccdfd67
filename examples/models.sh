#!/bin/sh
# Print the served models, or the card of one, which states its accuracy.  Usage: models.sh [wholetrack-crnn]
set -eu
# shellcheck source=examples/service.sh
. "$(dirname "$0")/service.sh"
request "$url/v1/models${1:+/$1}"
