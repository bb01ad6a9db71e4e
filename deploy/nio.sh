#!/usr/bin/env bash
# Installs matrix-nio, the Matrix client with which the tests send encrypted messages, from PyPI into a virtual
# environment of its own. Its cryptography is vodozemac; libolm is not needed.
#   deploy/nio.sh install   installs it, if it is not there
#   deploy/nio.sh where     prints the directory
set -euo pipefail

readonly version=0.26.0
readonly venv=${XDG_CACHE_HOME:-$HOME/.cache}/backscroll/nio-$version

say() { printf 'nio.sh: %s\n' "$*" >&2; }

install() {
    if "$venv/bin/python" -c 'import nio.crypto; assert nio.crypto.ENCRYPTION_ENABLED' 2>/dev/null; then return; fi
    say "installing matrix-nio $version into $venv"
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        say "Python cannot make a virtual environment: install python3-venv"
        exit 69
    fi
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check "matrix-nio[e2e]==$version"; then
        rm -rf "$venv"
        exit 69
    fi
    "$venv/bin/python" -c 'import nio.crypto; assert nio.crypto.ENCRYPTION_ENABLED'
}

case ${1:-}/$# in
install/1) install ;;
where/1) echo "$venv" ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
