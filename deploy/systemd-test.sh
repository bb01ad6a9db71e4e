#!/usr/bin/env bash
# Runs the Debian package under a real systemd, PID 1 of a container, with the private PostgreSQL in the unit's sandbox
# and a real Synapse beside it: starts it, kills it, hangs it, stops it, purges it.
#   deploy/systemd-test.sh [PACKAGE]   PACKAGE: a ready-made one, instead of building it (PROFILE as for package.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/steps.sh
. deploy/steps.sh

package=${1:-}
need_engine
[ -n "$package" ] || package=$(deploy/package.sh | tail -n 1)
[ -s "$package" ] || die "$package is no package"

work=$(mktemp -d)
name=backscroll-systemd-$$
finish() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then inside journalctl --no-pager --lines 60 >&2 || true; fi
    docker rm --force --volumes "$name" "$name-synapse" >/dev/null 2>&1 || true
    docker network rm "$name" >/dev/null 2>&1 || true
    docker image rm "$name" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

inside() { docker exec -i "$name" "$@"; }
synapse() { docker exec "$name-synapse" /opt/synapse-container.py "$@"; }
property() { inside systemctl show --property "$1" --value backscroll; }
# Of the service's main process, as the kernel has it.
process() { inside sed -n "s/^$1:\s*//p" "/proc/$(property MainPID)/status"; }
processes() {
    inside sh -c 'grep -ls "^Uid:[[:space:]]*$(id -u backscroll)[[:space:]]" /proc/[0-9]*/status | wc -l'
}
messages() {
    inside backscroll --config /etc/backscroll/backscroll.toml psql -- \
        -XAtqc "select count(*) || ' ' || count(distinct event_id) from messages"
}
followed() { property StatusText | cut -d , -f 1; }
health() { docker inspect --format '{{.State.Health.Status}}' "$1"; }
is() {
    local found
    found=$("${@:3}")
    [ "$found" = "$2" ] || die "$1 is $found and not $2"
}

deploy/base-images.sh debian
say "making an image with systemd and the package"
cp "$package" "$work/backscroll.deb"
cat >"$work/boot.sh" <<'END'
#!/bin/sh
# Mounts are private and the control groups read-only; systemd finds neither so on a machine.
mount --make-rshared /
for at in $(findmnt -n -l -o TARGET | grep ^/sys/fs/cgroup); do mount -o remount,rw "$at"; done
exec /lib/systemd/systemd
END
chmod 755 "$work/boot.sh"
# What would reach for the machine beneath (its kernel's settings, devices, consoles, clock) has no business in a
# container.
cat >"$work/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    systemd dbus adduser postgresql && pg_dropcluster 15 main
RUN cd /etc/systemd/system && for unit in systemd-sysctl systemd-udevd systemd-udev-trigger systemd-modules-load \
    systemd-remount-fs systemd-random-seed systemd-timesyncd systemd-firstboot systemd-logind getty@ console-getty \
    modprobe@ kmod-static-nodes; do ln -s /dev/null $unit.service; done \
    && for unit in sys-kernel-config sys-kernel-debug sys-kernel-tracing dev-hugepages dev-mqueue; do \
    ln -s /dev/null $unit.mount; done && systemctl set-default basic.target
COPY backscroll.deb /
RUN apt-get install -y -qq --no-install-recommends /backscroll.deb
STOPSIGNAL SIGRTMIN+3
COPY boot.sh /
CMD ["/boot.sh"]
END
quietly docker build --tag "$name" "$work"
quietly docker build --tag backscroll-synapse --file deploy/synapse.Dockerfile .

say "starting Synapse and systemd"
quietly docker network create "$name"
quietly docker run --detach --name "$name-synapse" --network "$name" --network-alias synapse --health-interval 2s --health-cmd \
    "/opt/synapse/bin/python -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:8008/_matrix/client/versions')\"" \
    backscroll-synapse
# The unit's sandbox is made of mounts and namespaces, which take the right to administer; no device of the machine is
# needed, and the control groups are a branch of their own.
quietly docker run --detach --name "$name" --network "$name" --cgroupns private --tmpfs /run --tmpfs /tmp \
    --cap-add SYS_ADMIN --cap-add SYS_PTRACE --security-opt seccomp=unconfined --security-opt systempaths=unconfined "$name"
until_is healthy health "$name-synapse"
until_is active inside systemctl is-active basic.target
synapse login speaker >/dev/null
synapse login archive >"$work/token"
synapse say history 300
inside sh -c 'umask 077; cat >/etc/backscroll/access_token' <"$work/token"
inside sed -i -e 's|^#url = "https://matrix.*|url = "http://synapse:8008"|' \
    -e 's|^#allow_insecure_http = .*|allow_insecure_http = true|' /etc/backscroll/backscroll.toml

took=$(milliseconds inside systemctl start backscroll)
say "started, and ready, in $took ms"
until_is "300 300" messages
until_is "following 1 room" followed
inside systemctl --no-pager --lines 0 status backscroll
[ "$(processes)" -gt 5 ] || die "PostgreSQL does not run as the service's user"
is NoNewPrivs 1 process NoNewPrivs
is CapEff 0000000000000000 process CapEff
is "the capability bounding set" 0000000000000000 process CapBnd
is Seccomp 2 process Seccomp
inside systemd-analyze security --no-pager --threshold=11 backscroll | tail -n 1
say "the room is archived by a process without any right, in its sandbox"

inside systemctl kill --signal SIGKILL --kill-whom main backscroll
synapse say killed 10
until_is 1 property NRestarts
until_is "310 310" messages
say "killed, it was started again and has caught up"

# What the watchdog waits, two minutes, is shortened for this.
inside sh -c 'mkdir /run/systemd/system/backscroll.service.d && cat >/run/systemd/system/backscroll.service.d/short.conf' <<'END'
[Service]
WatchdogSec=4
TimeoutAbortSec=1
END
inside systemctl daemon-reload
inside systemctl restart backscroll
sleep 10
is "the number of restarts while it works" 0 property NRestarts
inside systemctl kill --signal SIGSTOP --kill-whom main backscroll
until_is 1 property NRestarts
synapse say hung 10
until_is "320 320" messages
say "hung, it was killed by the watchdog, started again and has caught up"

took=$(milliseconds inside systemctl stop backscroll)
is "the result" success property Result
is "the exit code" 0 property ExecMainStatus
[ "$took" -lt 5000 ] || die "stopping took $took ms"
is "the number of its processes" 0 processes
say "stopped with 0 in $took ms, the private PostgreSQL with it"

inside systemctl start backscroll
synapse say again 1
until_is "321 321" messages
quietly inside apt-get purge -y -qq backscroll
is "the unit" inactive inside systemctl is-active backscroll || true
inside test -s /var/lib/backscroll/postgres/PG_VERSION || die "purging took the archive with it"
say "purged, it is stopped; the archive is left"
