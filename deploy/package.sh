#!/usr/bin/env bash
# Builds the Debian package into target/debian/; with `test`, as root, also installs it, looks at it and removes it
# again.
#   deploy/package.sh [test]
# PROFILE=dev takes the debug build, which is made sooner.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export SQLX_OFFLINE=true

profile=${PROFILE:-release}
case ${1:-build} in
build | test) ;;
*)
    echo "usage: deploy/package.sh [test]" >&2
    exit 64
    ;;
esac

if ! cargo deb --version >/dev/null 2>&1; then
    cargo install --quiet cargo-deb --locked --version 3.8.0
fi
cargo build --quiet --locked --profile "$profile" --bin backscroll
program=target/$profile/backscroll
[ "$profile" != dev ] || program=target/debug/backscroll
rm -rf target/manual
"$program" manual target/manual
package=$(cargo deb --quiet --locked --no-build --profile "$profile" | tail -n 1)
echo "$package"
[ "${1:-}" = test ] || exit 0

fail() {
    echo "deploy/package.sh: $*" >&2
    exit 1
}
finish() { dpkg --purge backscroll >/dev/null 2>&1 || true; }
trap finish EXIT

if dpkg -s backscroll >/dev/null 2>&1; then
    trap - EXIT
    fail "backscroll is installed here; the test would remove it"
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$(realpath "$package")"
backscroll --version
for file in /usr/bin/backscroll /etc/backscroll/backscroll.toml /usr/share/man/man1/backscroll.1.gz \
    /usr/share/man/man1/backscroll-run.1.gz /usr/share/bash-completion/completions/backscroll \
    /usr/share/fish/vendor_completions.d/backscroll.fish /usr/share/zsh/vendor-completions/_backscroll; do
    [ -s "$file" ] || fail "$file is missing"
done
unit=$(dpkg -L backscroll | grep -E '/lib/systemd/system/backscroll\.service$') || fail "the unit is missing"
systemd-analyze verify --man=no --recursive-errors=no "$unit"
getent passwd backscroll >/dev/null || fail "there is no user backscroll"
dpkg-query -W -f '${Conffiles}\n' backscroll | grep -q /etc/backscroll/backscroll.toml || fail "no conffile"
backscroll config show --config /etc/backscroll/backscroll.toml >/dev/null
dpkg --purge backscroll
for file in /usr/bin/backscroll /etc/backscroll/backscroll.toml "$unit"; do
    [ ! -e "$file" ] || fail "$file is left behind"
done
echo "installed, looked at and removed"
