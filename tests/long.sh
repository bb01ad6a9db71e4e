#!/usr/bin/env bash
# Longer doses of the tests whose strength is their number: kills of the running daemon, scripts of random events, on a model and
# on two real servers, two daemons on one database, migrations among readers, and the keys of encrypted rooms, also with a
# client on matrix-sdk.
#   DOSE            rounds of kills for each kind of database, and of what two servers do, a tenth of those of two daemons, and
#                   a third of the migrations (default 20)
#   PROPTEST_CASES  random scripts (default 2000)
set -euo pipefail
export TEST_LIMIT=infinity
export DOSE=${DOSE:-20} PROPTEST_CASES=${PROPTEST_CASES:-2000}
"$(dirname "${BASH_SOURCE[0]}")/../deploy/matrix-sdk.sh" install
# Else what a script's own thread says of a failure is shown only when all have ended.
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" --test it -- kills property federation::script lease::rounds lease::migration \
    encryption::device encryption::element --include-ignored --nocapture
