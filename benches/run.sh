#!/usr/bin/env bash
# Measures the whole program and prints Markdown tables: each figure beside what it is compared with. Without
# arguments it takes a quarter of an hour. benches/README.md has the results. Arguments choose a benchmark and
# its options: benches/run.sh writer --repetitions 15. These take up to half an hour each:
#   benches/run.sh growth     ten million events; needs 10 GB of disk
#   benches/run.sh rooms      first syncs of up to 20,000 rooms, and of a room of 100,000 members, by socket and by TCP
#   benches/run.sh proof      verifying, sealing, exporting and importing a million events
#   benches/run.sh network    a backfill by socket and by TCP
#   benches/run.sh reading    the questions of readers on ten million events, in the database that PGDATABASE names
#   benches/run.sh encryption a key backup of 100,000 sessions on a real Synapse, and 100,000 messages to decrypt
#   benches/run.sh peers      other archivers; installs them into target/peers first
# To measure only how fast responses are parsed: cargo bench --bench parse
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export SQLX_OFFLINE=true
measure=(cargo bench --quiet --locked --bench measure --)
if [ "${1:-}" = peers ]; then
    peers=$PWD/target/peers
    if [ ! -x "$peers/venv/bin/matrix-commander" ]; then
        python3 -m venv "$peers/venv"
        "$peers/venv/bin/pip" --quiet --disable-pip-version-check install -r benches/peers/requirements.txt
    fi
    CARGO_TARGET_DIR=$peers cargo build --quiet --release --locked --manifest-path benches/peers/matrix-sdk/Cargo.toml
    set -- "$@" --venv "$peers/venv" --matrix-sdk "$peers/release/peer-matrix-sdk"
fi
if [ "${1:-}" = reading ]; then
    exec benches/reading/run.sh "${@:2}"
fi
if [ $# -gt 0 ]; then
    exec "${measure[@]}" "$@"
fi
for what in writer live memory network homeserver; do
    "${measure[@]}" "$what"
done
