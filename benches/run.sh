#!/usr/bin/env bash
# Measures the whole program, each figure beside what it is compared with; prints Markdown tables. A quarter of an hour.
# cargo bench --bench parse measures the reading of answers alone.
# Arguments go to the benchmark instead: benches/run.sh writer --repetitions 15, or those that take half an hour:
#   benches/run.sh growth     ten million events, 10 GB of disk
#   benches/run.sh peers      what people use instead; installs that into target/peers first
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
if [ $# -gt 0 ]; then
    exec "${measure[@]}" "$@"
fi
for what in writer live memory homeserver; do
    "${measure[@]}" "$what"
done
