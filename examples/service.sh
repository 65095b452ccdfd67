#!/bin/sh
# What the other examples share.
#
#   WHOLETRACK_URL  URL of the service, by default http://127.0.0.1:8000
#   WHOLETRACK_KEY  API key, if the service requires one
# shellcheck disable=SC2034 # The other scripts use it.
url=${WHOLETRACK_URL:-http://127.0.0.1:8000}
attempts=10

# Print the response to a request with these arguments of curl; return 1 if it is an error. While the service is busy
# (429), the request is repeated after the time that the service asks for.
request() {
    headers=$(mktemp)
    body=$(mktemp)
    for attempt in $(seq "$attempts"); do
        # All users of a machine can see the arguments of a program, so curl reads the key from standard input.
        status=$(
            printf '%s' "${WHOLETRACK_KEY:+header = \"Authorization: Bearer $WHOLETRACK_KEY\"}" |
                curl --config - --silent --show-error --compressed --dump-header "$headers" --output "$body" \
                    --write-out '%{http_code}' "$@"
        ) || status=000
        if [ "$status" != 429 ] || [ "$attempt" = "$attempts" ]; then
            break
        fi
        pause=$(tr -d '\r' <"$headers" | sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]*\)$/\1/p')
        sleep "${pause:-1}"
    done
    cat "$body"
    rm -f "$headers" "$body"
    case $status in
    2??) ;;
    *) return 1 ;;
    esac
}

# Print the argument of curl's option --form for a file, whatever characters its name has.
form() {
    printf 'file=@"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}
