#!/usr/bin/env bash
# Runs each query of natural.sql on the data of load.sql, and prints how long it takes in milliseconds, without planning, and
# how many pages it reads. Which queries: a regular expression. PLANS=1 prints their plans instead.
#   benches/reading/natural.sh [EXPRESSION]
# Uses the database that PGDATABASE, PGHOST, … name. A query that takes more than a minute, which is what a reader may take,
# is ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
expression=${1:-}
export PGOPTIONS='-c statement_timeout=60s -c jit=off'
timing=$([ -n "${PLANS:-}" ] && echo on || echo off)
run=(psql -Xq -At -v ON_ERROR_STOP=1)
# The room of a million events, others, and what there is in it.
while IFS= read -r setting; do
    run+=(-v "$setting")
done < <("${run[@]}" -f natural_chosen.sql)
while IFS= read -r query; do
    [[ $query == --* || ! $query =~ $expression ]] && continue
    plan=$("${run[@]}" -f - <<<"explain (analyze, buffers, timing ${timing}) $query" 2>&1) || true
    if [ -n "${PLANS:-}" ]; then
        printf '%s\n%s\n\n' "$query" "$plan"
        continue
    fi
    awk -v query="$query" '
        / rows=/ && !rows { match($0, /actual rows=[0-9.]+/); rows = substr($0, RSTART + 12, RLENGTH - 12) }
        /Buffers:/ && !pages { for (i = 1; i <= NF; i++) if ($i ~ /^(hit|read)=/) { sub(/.*=/, "", $i); pages += $i } }
        /^Execution Time:/ { ms = $3 }
        /ERROR/ { error = $0 }
        END { if (error) print error ": " query; else printf "%9.1f ms %8d pages %6d rows  %s\n", ms, pages, rows, query }
    ' <<<"$plan"
done <natural.sql
