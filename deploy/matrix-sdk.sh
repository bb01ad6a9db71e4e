#!/usr/bin/env bash
# Builds the Matrix client on matrix-sdk, as Element is, with which tests send encrypted messages, sign devices and make
# key backups (tests/encryption/matrix-sdk). It takes some minutes, once.
#   deploy/matrix-sdk.sh install   builds it, if it is not there
#   deploy/matrix-sdk.sh where     prints the program's path
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly target=${XDG_CACHE_HOME:-$HOME/.cache}/backscroll/matrix-sdk

case ${1:-}/$# in
install/1)
    CARGO_TARGET_DIR=$target cargo build --quiet --locked --manifest-path tests/encryption/matrix-sdk/Cargo.toml
    ;;
where/1) echo "$target/debug/encryption-matrix-sdk" ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
