#!/usr/bin/env bash
# Asks a real Prometheus everything that the dashboard and the alert rules ask, of a Backscroll that archives a real
# Synapse; then stops Backscroll and sees the alerts begin. Installs Debian's prometheus.
#   deploy/prometheus-test.sh [PROGRAM]   PROGRAM: a built backscroll (default target/release/backscroll)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/steps.sh
. deploy/steps.sh

backscroll=$(readlink -e "${1:-target/release/backscroll}") || die "build backscroll first, or name it"
if ! command -v prometheus >/dev/null; then
    say "installing prometheus"
    quietly apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends prometheus
fi

work=$(mktemp -d /var/tmp/backscroll-prometheus-XXXXXX)
# PostgreSQL's account must pass through.
chmod 711 "$work"
finish() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then tail -n 20 "$work/backscroll.log" "$work/prometheus.log" >&2 || true; fi
    jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true
    wait
    deploy/synapse.sh stop "$work/synapse" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
metrics=127.0.0.1:$(free_port)
prometheus=127.0.0.1:$(free_port)

deploy/synapse.sh install
say "a community talks on a real Synapse"
url=$(deploy/synapse.sh start "$work/synapse" 2>"$work/synapse.log")
quietly "$(deploy/synapse.sh where)/bin/python" deploy/demo/converse.py "$work/synapse" "$work/token"

say "Prometheus scrapes Backscroll"
quietly promtool check rules deploy/prometheus/alerts.yml
cat >"$work/prometheus.yml" <<END
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$PWD/deploy/prometheus/alerts.yml"]
scrape_configs:
  - job_name: backscroll
    static_configs: [{targets: ["$metrics"]}]
END
env -u DATABASE_URL -u BACKSCROLL_CONFIG \
    BACKSCROLL_HOMESERVER__URL="$url" BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE="$work/token" \
    BACKSCROLL_HTTP__LISTEN="$metrics" BACKSCROLL_DATA_DIR="$work/archive" \
    "$backscroll" run >"$work/backscroll.log" 2>&1 &
daemon=$!
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address="$prometheus" \
    >"$work/prometheus.log" 2>&1 &

# ask EXPRESSION: how many series answer.
ask() {
    curl --silent --fail-with-body "http://$prometheus/api/v1/query" --data-urlencode "query=$1" |
        python3 -c 'import json, sys; print(len(json.load(sys.stdin)["data"]["result"]))'
}
# alert NAME: its state.
alert() {
    curl --silent --fail "http://$prometheus/api/v1/rules" | python3 -c '
import json, sys
rules = json.load(sys.stdin)["data"]["groups"][0]["rules"]
print(next(rule["state"] + " " + rule["health"] for rule in rules if rule["name"] == sys.argv[1]))' "$1"
}
until_is 1 ask 'backscroll_rooms{history_state="complete"} == 7'
# Rates want some seconds of it.
until_is 1 ask 'count_over_time(backscroll_build_info[1m]) > 20'

say "each expression of the dashboard"
python3 - deploy/grafana/backscroll.json >"$work/expressions" <<'END'
import json, sys

def expressions(node):
    if isinstance(node, dict):
        if "expr" in node:
            yield node["expr"]
        node = list(node.values())
    if isinstance(node, list):
        for below in node:
            yield from expressions(below)

for expression in sorted(set(expressions(json.load(open(sys.argv[1]))))):
    print(expression.replace("$__rate_interval", "20s"))
END
[ -s "$work/expressions" ] || die "the dashboard asks nothing"
while read -r expression; do
    series=$(ask "$expression") || die "Prometheus does not understand: $expression"
    printf '   %3d series  %s\n' "$series" "$expression"
    # What failed is counted once something has.
    [ "$series" != 0 ] || [[ $expression == *retries_total* ]] || die "nothing answers: $expression"
done <"$work/expressions"
for name in $(sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yml); do
    until_is "inactive ok" alert "$name"
done
say "no alert is on"

deploy/synapse.sh stop "$work/synapse" 2>>"$work/synapse.log"
until_is "pending ok" alert BackscrollHomeserverDown
say "the homeserver is gone, and its alert begins"
series=$(ask 'sum by (class) (rate(backscroll_retries_total[20s]))')
[ "$series" != 0 ] || die "no failure is counted"
kill -TERM "$daemon"
wait "$daemon" || die "Backscroll ended with $?"
until_is "pending ok" alert BackscrollGone
say "Backscroll is gone, and its alert begins: passed"
