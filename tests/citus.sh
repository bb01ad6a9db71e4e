#!/usr/bin/env bash
# Runs the tests on a server of its own with the extension Citus, a single one that is its own worker. It builds nothing:
# Citus must be installed for this machine's newest PostgreSQL (https://github.com/citusdata/citus, or from its packages).
# Arguments go to the test runner: tests/citus.sh follow::
# BACKSCROLL_POSTGRES_BIN names another PostgreSQL.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian does not put the server's programs into PATH.
bin=${BACKSCROLL_POSTGRES_BIN:-}
if [ -z "$bin" ]; then
    initdb=$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
    bin=$(dirname "$(readlink -f "$initdb")")
fi
# PostgreSQL refuses to run as root.
run=()
if [ "$(id -u)" = 0 ]; then
    account=postgres
    id "$account" >/dev/null 2>&1 || account=nobody
    run=(setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups)
fi

work=$(mktemp -d /var/tmp/backscroll-citus-XXXXXX)
finish() {
    trap - EXIT INT TERM HUP
    if [ -f "$work/data/postmaster.pid" ]; then
        (cd "$work" && "${run[@]}" "$bin/pg_ctl" stop -D "$work/data" -m immediate >/dev/null) || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

port=${CITUS_PORT:-28716}
if [ ${#run[@]} -gt 0 ]; then
    chown "$account" "$work"
fi
cd "$work"
"${run[@]}" "$bin/initdb" -D data -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
# Citus makes a certificate of X.509 version 1 where its servers are to use TLS, which Backscroll refuses. The worker is
# this server, so there is nothing to encrypt. Few shards, so that a database of a test is made soon.
"${run[@]}" tee -a data/postgresql.conf >/dev/null <<END
shared_preload_libraries = 'citus'
citus.node_conninfo = 'sslmode=disable'
citus.local_hostname = '127.0.0.1'
citus.shard_count = 2
citus.enable_statistics_collection = off
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$work/data'
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 600
max_prepared_transactions = 600
max_locks_per_transaction = 1024
max_worker_processes = 40
END
if ! "${run[@]}" "$bin/pg_ctl" start -D data -l data/log -w >/dev/null; then
    # Most likely Citus is not installed.
    cat data/log >&2
    exit 1
fi
cd - >/dev/null

TEST_CITUS_URL="postgres://postgres@127.0.0.1:$port/postgres" tests/run.sh "$@"
