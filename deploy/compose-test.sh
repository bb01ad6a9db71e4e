#!/usr/bin/env bash
# Brings the whole compose project up with its demo profile, archives a room, kills and restarts containers, and takes it
# down. Images that cannot be pulled are made from Debian's packages under the same names.
#   deploy/compose-test.sh [--binary FILE]   FILE: a ready-made backscroll, instead of building it in the container
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=
case ${1:-}/$# in
/0) ;;
--binary/2) binary=$(readlink -f "$2") ;;
*)
    sed -n '2,4s/^# //p' "$0" >&2
    exit 64
    ;;
esac

say() { printf '== %4d s  %s\n' "$SECONDS" "$*"; }
die() {
    echo "compose-test.sh: $*" >&2
    exit 1
}
docker info >/dev/null 2>&1 || die "no container engine answers; start one, or set DOCKER_HOST"
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi

# What lies in this directory, and no more, is the build's context.
work=$(mktemp -d)
project=backscroll-test-$$
compose+=(--project-name "$project" --profile demo)
finish() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then (cd "$work" && "${compose[@]}" logs --tail 30) >&2 || true; fi
    (cd "$work" && "${compose[@]}" down --volumes --timeout 5) >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

have() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }

base_debian() {
    have debian:bookworm-slim && return
    say "making debian:bookworm-slim with debootstrap"
    command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" http://deb.debian.org/debian >/dev/null
    rm -rf "$work"/root/var/cache/apt/archives/*.deb
    # It trusts whom this machine trusts: the registries may be reached through a proxy of its own authority.
    local bundle=/etc/ssl/certs/ca-certificates.crt
    cp "$bundle" "$work/root$bundle"
    tar -C "$work/root" -c . | docker import -c 'CMD ["bash"]' -c "ENV PIP_CERT=$bundle CARGO_HTTP_CAINFO=$bundle" \
        - debian:bookworm-slim >/dev/null
    rm -rf "$work/root"
}

# Debian's PostgreSQL behind as much of the official image's entry point as the project uses.
base_postgres() {
    have postgres:17 && return
    say "making postgres:17 from Debian's packages"
    mkdir "$work/postgres"
    cat >"$work/postgres/entry" <<'END'
#!/bin/bash
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s /var/lib/postgresql/data/PG_VERSION ]; then
    initdb -D /var/lib/postgresql/data -U "$POSTGRES_USER" --auth "$POSTGRES_HOST_AUTH_METHOD" --encoding UTF8
    echo "create database \"$POSTGRES_USER\";" | postgres --single -D /var/lib/postgresql/data postgres
fi
exec "$@" -D /var/lib/postgresql/data
END
    chmod 755 "$work/postgres/entry"
    cat >"$work/postgres/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
    && rm -rf /var/lib/postgresql && install -d -o postgres -g postgres /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
COPY entry /usr/local/bin/
ENTRYPOINT ["entry"]
CMD ["postgres"]
END
    docker build --quiet --tag postgres:17 "$work/postgres" >/dev/null
    rm -rf "$work/postgres"
}

# The toolchain of this machine, with Debian's linker.
base_rust() {
    have rust:1-bookworm && return
    say "making rust:1-bookworm from this machine's toolchain"
    mkdir "$work/rust"
    cp -r "$(rustc --print sysroot)" "$work/rust/toolchain"
    cat >"$work/rust/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local
END
    docker build --quiet --tag rust:1-bookworm "$work/rust" >/dev/null
    rm -rf "$work/rust"
}

base_debian
base_postgres
git ls-files -z | xargs -0 cp --parents -t "$work"
if [ -n "$binary" ]; then
    cp "$binary" "$work/backscroll"
    echo '!backscroll' >>"$work/.dockerignore"
    # The first stage only hands on what is there.
    sed -i -e 's/^FROM rust:1-bookworm AS build/FROM debian:bookworm-slim AS build/' \
        -e 's|^RUN cargo build .*|RUN install -D backscroll /out/backscroll|' "$work/deploy/Dockerfile"
else
    base_rust
fi
cd "$work"
mkdir -m 700 secrets
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >secrets/access_token
chmod 644 secrets/access_token
printf '%s\n' BACKSCROLL_HOMESERVER__URL=http://synapse:8008 BACKSCROLL_HOMESERVER__ALLOW_INSECURE_HTTP=true >.env

say "building"
"${compose[@]}" build --quiet
say "starting"
"${compose[@]}" up --detach >/dev/null 2>&1

id() { "${compose[@]}" ps --quiet "$1"; }
sql() { docker exec "$(id postgres)" psql -XAtq -U backscroll -c "$1"; }
# Waits until a command prints what is expected.
until_is() {
    local expected=$1 found=
    shift
    for _ in {1..240}; do
        found=$("$@" 2>&1) || true
        if [ "$found" = "$expected" ]; then return; fi
        sleep 0.5
    done
    die "waited in vain for $expected from: $* (last: $found)"
}
# Says so many things in the room, making it at first; in the container, which has Python.
say_in_room() {
    docker exec -i "$(id synapse)" /opt/synapse/bin/python - "$@" <<'END'
import json, pathlib, sys, urllib.parse, urllib.request

token = pathlib.Path("/run/secrets/access_token").read_text().strip()
name, count = sys.argv[1], int(sys.argv[2])

def call(method, path, body, user=None):
    query = "?" + urllib.parse.urlencode({"user_id": user}) if user else ""
    request = urllib.request.Request("http://127.0.0.1:8008/_matrix/client/v3" + path + query, method=method,
                                     data=json.dumps(body).encode(), headers={"Authorization": "Bearer " + token})
    return json.load(urllib.request.urlopen(request))

room = pathlib.Path("/data/room")
if not room.exists():
    room.write_text(call("POST", "/createRoom", {"preset": "public_chat"})["room_id"])
for number in range(count):
    path = f"/rooms/{urllib.parse.quote(room.read_text())}/send/m.room.message/{name}{number}"
    call("PUT", path, {"msgtype": "m.text", "body": f"{name} {number}"})
END
}

until_is healthy docker inspect --format '{{.State.Health.Status}}' "$(id synapse)"
say_in_room history 300
messages="select count(*) from messages"
until_is 300 sql "$messages"
say "a room of 300 messages is archived"

until_is true docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$(id backscroll)"
until_is 65532:65532 docker inspect --format '{{.Config.User}}' "$(id backscroll)"
# Nothing to be had from the image's own user but the program.
docker exec "$(id backscroll)" backscroll status | grep -q 'complete' || die "status does not say complete"
if docker exec "$(id backscroll)" touch /usr/local/bin/x 2>/dev/null; then die "the root file system can be written to"; fi

docker kill "$(id backscroll)" >/dev/null
say_in_room unheard 150
docker start "$(id backscroll)" >/dev/null
until_is 450 sql "$messages"
say "Backscroll was killed and has caught up"

docker kill "$(id postgres)" >/dev/null
say_in_room headless 50
docker start "$(id postgres)" >/dev/null
until_is 500 sql "$messages"
say "PostgreSQL was killed and Backscroll has caught up"

begin=$(date +%s%N)
docker stop "$(id backscroll)" >/dev/null
until_is 0 docker inspect --format '{{.State.ExitCode}}' "$("${compose[@]}" ps --all --quiet backscroll 2>/dev/null || "${compose[@]}" ps --quiet backscroll)"
say "Backscroll has stopped with 0 in $((($(date +%s%N) - begin) / 1000000)) ms"

"${compose[@]}" down --timeout 10 >/dev/null 2>&1
"${compose[@]}" up --detach >/dev/null 2>&1
until_is 500 sql "$messages"
until_is 500 sql "select count(distinct event_id) from messages"
say_in_room again 1
until_is 501 sql "$messages"
say "the project was taken down and up again: nothing is lost, nothing twice"
