#!/usr/bin/env bash
# Loads ten million events once and prints how long the questions of readers take, beside their goals.
#   benches/reading/run.sh [EVENTS]    10000000 unless said otherwise
# Uses the database that PGDATABASE, PGHOST, … name, which must be empty or hold the data already. Loading takes some
# twenty minutes and 9 GB. PLANS=1 prints each question's plan, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
events=${1:-10000000}
run=(psql -q -v ON_ERROR_STOP=1)
if [ "$("${run[@]}" -Atc "select to_regclass('loading.served') is null")" = t ]; then
    for migration in ../../migrations/*.sql; do
        "${run[@]}" -1 -f "$migration" >/dev/null
    done
    "${run[@]}" -v "events=$events" -v step=prepare -f load.sql
    for _ in 1 2; do "${run[@]}" -v step=fill -f load.sql & done
    wait
    "${run[@]}" -v step=finish -f load.sql
    "${run[@]}" -f queue_search.sql
    for _ in 1 2; do "${run[@]}" -f fill_search.sql & done
    wait
    "${run[@]}" -c 'vacuum (analyze)'
fi
"${run[@]}" ${PLANS:+-v plans=1} -f questions.sql
