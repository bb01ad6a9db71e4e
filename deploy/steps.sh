# Sourced by the demo and the test scripts: how they print progress, wait, and fail.
# shellcheck shell=bash

say() { printf '== %4d s  %s\n' "$SECONDS" "$*"; }
die() {
    echo "${0##*/}: $*" >&2
    exit 1
}
# What a command says is of interest only if it fails.
quietly() {
    local code=0 said
    said=$("$@" 2>&1) || code=$?
    [ "$code" = 0 ] || die "exit code $code from: $*"$'\n'"$said"
}
# Waits until a command prints what is expected; warnings apart, which some print beside it.
until_is() {
    local expected=$1 found why
    shift
    why=$(mktemp)
    for _ in {1..240}; do
        found=$("$@" 2>"$why") || true
        if [ "$found" = "$expected" ]; then
            rm "$why"
            return
        fi
        sleep 0.5
    done
    die "waited in vain for $expected from: $* (last: $found; $(tail -n 3 "$why"))"
}
# The milliseconds that a command takes.
milliseconds() {
    local begin
    begin=$(date +%s%N)
    "$@" >&2
    echo $((($(date +%s%N) - begin) / 1000000))
}
need_engine() { docker info >/dev/null 2>&1 || die "no container engine answers; start one, or set DOCKER_HOST"; }
