#!/usr/bin/env bash
# Installs what the tests need and runs them all, against a real PostgreSQL and a real Synapse.
# Arguments go to the test runner: tests/run.sh backfill
# TEST_POSTGRES=container takes a PostgreSQL in a container instead of this machine's, if an engine answers here.
# TEST_LIMIT: after how many seconds the tests are ended, and those named that have not ended (default 3000).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "This needs root and there is no sudo. Run as root, then start again: $*" >&2
        exit 1
    fi
}

# The server's programs, which Debian keeps out of PATH.
have_postgres() {
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# The tests run in a session of their own: whatever they start belongs to it and ends with it. A process may leave its
# group but not its session.
session=
output=
watch=
finish() {
    trap - EXIT INT TERM HUP
    if [ -n "$watch" ]; then pkill -TERM -P "$watch" || true; fi
    if [ -n "$session" ]; then
        pkill -TERM -s "$session" || true
        # On a busy machine the engine takes a while to remove a container.
        for _ in {1..300}; do
            pgrep -s "$session" >/dev/null || break
            sleep 0.1
        done
        pkill -KILL -s "$session" || true
    fi
    rm -f "$output"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if ! command -v cargo >/dev/null; then
    echo "The tests need Rust: https://rustup.rs" >&2
    exit 1
fi
if ! have_postgres; then
    say "Installing PostgreSQL"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql
fi
if ! command -v systemd-analyze >/dev/null; then
    say "Installing systemd, for the test of the unit"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd
fi
if [ "${TEST_POSTGRES:-}" = container ]; then
    deploy/base-images.sh postgres || say "No image of PostgreSQL: the tests take this machine's"
fi
if [ -z "${BACKSCROLL_TEST_SYNAPSE:-}" ]; then
    deploy/synapse.sh install
    BACKSCROLL_TEST_SYNAPSE=$(deploy/synapse.sh where)
    export BACKSCROLL_TEST_SYNAPSE
fi

if [ -z "${BACKSCROLL_TEST_NIO:-}" ]; then
    deploy/nio.sh install
fi

# Ends tests that would never end, and names them.
end_after_limit() {
    local name
    sleep "${TEST_LIMIT:-3000}" || return 0
    say "Not done after ${TEST_LIMIT:-3000} s. These tests have not ended:"
    sed -n 's/^test \(.*\) has been running for over 60 seconds$/\1/p' "$output" | while read -r name; do
        grep -qF "test $name ... " "$output" || printf '%s\n' "$name"
    done
    pkill -KILL -s "$1"
}

# Else the tests' own fsync would wait until what the compiler wrote is on disk.
say "cargo test --no-run"
cargo test --quiet --locked --no-run
sync

# Not nextest: the tests share one PostgreSQL server, which a process for each test would start anew.
output=$(mktemp)
run() {
    say "cargo test --locked --no-fail-fast $*"
    # Not a pipe: `$!` must be the session.
    setsid cargo test --locked --no-fail-fast "$@" </dev/null > >(tee "$output") &
    session=$!
    end_after_limit "$session" &
    watch=$!
    local code=0
    wait "$session" || code=$?
    pkill -TERM -P "$watch" || true
    watch=
    return "$code"
}

# A test that depends on timing may fail on a busy machine. A few that fail are run once more, by themselves. Those that
# print their seed are not: another seed proves nothing.
run_again() {
    local failed
    mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
    if [ ${#failed[@]} = 0 ] || [ ${#failed[@]} -gt 3 ] || grep -q '^repeat with: SEED=' "$output"; then
        return 1
    fi
    say "Failed, and run once more by themselves: ${failed[*]}"
    run --lib --test it -- --exact --test-threads 1 "${failed[@]}" || return
    say "Passed by themselves, but FAILED beside others; find out why: ${failed[*]}"
}

run "$@" || run_again
