#!/usr/bin/env bash
# Runs each query of deploy/cookbook/ in a session of its own on the data of load.sql, and prints how long it takes in
# milliseconds, planning and all: first what took longest. A query that takes more than a minute, which is what a reader
# may take, is ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../deploy/cookbook"
for query in *.sql; do
    begun=$(date +%s%N)
    error=$(PGOPTIONS='-c statement_timeout=60s' psql -qX -v ON_ERROR_STOP=1 -o /dev/null -f "$query" 2>&1) || true
    echo "$((($(date +%s%N) - begun) / 1000000)) ${query%.sql} $error"
done | sort -rn | awk '{ print; total += $1 } END { print total " all of them" }'
