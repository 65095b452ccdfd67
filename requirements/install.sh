#!/bin/sh
# Installs packages into a virtual environment as `pip install` would, but with uv, which needs about an eighth of the CPU time.
# uv verifies hashes like pip, but does not read pip's configuration, so the settings about where packages come from are
# passed on. If uv fails, perhaps because of a setting that it does not know, pip installs the packages.
#
#   requirements/install.sh INSTALLER VENV ARGUMENT...
#
# INSTALLER is the virtual environment that contains uv, and VENV the one to install into; they may be the same.
set -eu
installer=$1 venv=$2
shift 2

pip() {
    "$installer/bin/python" -m pip --disable-pip-version-check "$@"
}

settings=$(pip config list)
# Prints one of pip's settings. Environment variables take precedence over files, and pip lists them first.
setting() {
    printf '%s\n' "$settings" | sed -n "s/^\(:env:\|global\|install\)\.$1='\(.*\)'\$/\2/p" | sed -n 's/\\n/ /g; 1p'
}

links=$(setting find-links | tr -s ' ' ,)
index=$(setting index-url)
more=$(setting extra-index-url)
certificates=$(setting cert)
export UV_FIND_LINKS="${UV_FIND_LINKS-$links}" UV_INDEX="${UV_INDEX-$more}"
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX-$index}"
[ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE-$certificates}"
# Like pip, choose the best version from all indexes.
export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY-unsafe-best-match}" UV_NO_CONFIG=1

"$installer/bin/uv" pip install --quiet --python "$venv/bin/python" "$@" || {
    echo "uv failed; installing with pip" >&2
    pip --python "$venv/bin/python" install --quiet "$@"
}
