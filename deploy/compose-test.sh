#!/usr/bin/env bash
# Brings the whole compose project up with its demo profile, archives a room, kills and restarts containers, and takes it
# down. Images that cannot be pulled are made from Debian's packages under the same names.
#   deploy/compose-test.sh [--binary FILE]   FILE: a ready-made backscroll, instead of building it in the container
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=
case ${1:-}/$# in
/0) ;;
--binary/2) binary=$(realpath --canonicalize-missing "$2") ;;
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
[ -z "$binary" ] || [ -x "$binary" ] || die "$binary is no program"
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
    docker image rm "$project" >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a command says is of interest only if it fails.
quietly() {
    local code=0
    "$@" >"$work/said" 2>&1 || code=$?
    if [ "$code" != 0 ]; then
        cat "$work/said" >&2
        die "exit code $code from: $*"
    fi
}
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
STOPSIGNAL SIGINT
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
    # The first stage only hands on what is there; the image with Rust has certificates, Debian's may lack them.
    certificates='[ -e /etc/ssl/certs/ca-certificates.crt ] '
    certificates+='|| (apt-get update -qq \&\& apt-get install -y -qq --no-install-recommends ca-certificates)'
    sed -i -e 's/^FROM rust:1-bookworm AS build/FROM debian:bookworm-slim AS build/' \
        -e "s#^RUN cargo build .*#RUN install -D backscroll /out/backscroll\nRUN $certificates#" "$work/deploy/Dockerfile"
else
    base_rust
fi
cd "$work"
# Of its own name, lest the image that people run become one with a binary from anywhere.
sed -i "s/^    image: backscroll$/    image: $project/" docker-compose.yml
grep -q "image: $project$" docker-compose.yml || die "docker-compose.yml does not call the image backscroll"
mkdir -m 700 secrets
printf '%s\n' BACKSCROLL_HOMESERVER__URL=http://synapse:8008 BACKSCROLL_HOMESERVER__ALLOW_INSECURE_HTTP=true >.env

# A service's container, running or not: `compose ps` shows stopped ones by default in version 1 only.
id() {
    local label=com.docker.compose
    docker ps --all --quiet --filter "label=$label.project=$project" --filter "label=$label.service=$1"
}
state() { docker inspect --format "{{.$2}}" "$(id "$1")"; }
in_backscroll() { docker exec "$(id backscroll)" backscroll "$@"; }
sql() { docker exec "$(id postgres)" psql -XAtq -U backscroll -c "$1"; }
# Waits until a command prints what is expected; warnings apart, which some print beside it.
until_is() {
    local expected=$1 found=
    shift
    for _ in {1..240}; do
        found=$("$@" 2>why) || true
        if [ "$found" = "$expected" ]; then return; fi
        sleep 0.5
    done
    die "waited in vain for $expected from: $* (last: $found; $(tail -n 3 why))"
}
# Says so many things in the room, as a user and faster than users may; in the container, which has Python. The room is
# made at first, and the archive's account joins when something has been said in it.
say_in_room() {
    docker exec -i "$(id synapse)" /opt/synapse/bin/python - "$@" <<'END'
import json, pathlib, sys, urllib.parse, urllib.request

token = pathlib.Path("/data/as_token").read_text()
name, count = sys.argv[1], int(sys.argv[2])

def call(method, path, body, user="@speaker:demo"):
    query = "?" + urllib.parse.urlencode({"user_id": user})
    request = urllib.request.Request("http://127.0.0.1:8008/_matrix/client/v3" + path + query, method=method,
                                     data=json.dumps(body).encode(), headers={"Authorization": "Bearer " + token})
    return json.load(urllib.request.urlopen(request))

known = pathlib.Path("/data/room")
if not known.exists():
    known.write_text(call("POST", "/createRoom", {"preset": "public_chat"})["room_id"])
room = urllib.parse.quote(known.read_text())
for number in range(count):
    call("PUT", f"/rooms/{room}/send/m.room.message/{name}{number}", {"msgtype": "m.text", "body": f"{name} {number}"})
call("POST", f"/rooms/{room}/join", {}, "@archive:demo")
END
}
# How many messages the archive has, and how many different ones.
messages() { sql "select count(*) || ' ' || count(distinct event_id) from messages"; }
complete() { in_backscroll status | grep -c ' complete '; }
answers() {
    local code=0
    in_backscroll healthcheck >/dev/null 2>&1 || code=$?
    echo "$code"
}

say "building"
quietly "${compose[@]}" build --quiet
say "starting Synapse and PostgreSQL"
quietly "${compose[@]}" up --detach postgres synapse
until_is healthy state synapse State.Health.Status
for user in archive speaker; do
    docker exec "$(id synapse)" /opt/synapse-container.py login $user >"secrets/$user"
done
mv secrets/archive secrets/access_token
chmod 644 secrets/access_token
say_in_room history 300
say "a room has 300 messages of history; starting Backscroll"
quietly "${compose[@]}" up --detach
until_is "300 300" messages
until_is 1 complete
say "the room is archived"

until_is healthy state backscroll State.Health.Status
say "the engine finds Backscroll healthy"

until_is true state backscroll HostConfig.ReadonlyRootfs
until_is 65532:65532 state backscroll Config.User
# Root, whom file modes do not stop.
denied=$(docker exec --user 0:0 "$(id backscroll)" touch /usr/local/bin/x 2>&1) && die "root can write to its file system"
[[ $denied = *"Read-only file system"* ]] || die "writing to the root file system fails for another reason: $denied"
# By way of a file, for a writer cut short by grep's answer would count as nothing found.
docker inspect "$(id backscroll)" >said
docker logs "$(id backscroll)" >>said 2>&1
if grep -qFf secrets/access_token said; then die "the token is in the container's configuration or its log"; fi
say "Backscroll is not root, cannot write to its file system and shows no token"

docker kill "$(id backscroll)" >/dev/null
say_in_room unheard 150
docker start "$(id backscroll)" >/dev/null
until_is "450 450" messages
say "Backscroll was killed and has caught up"

# Killed by way of the engine it stays down; killed otherwise, here by its own user from without, it comes back.
docker run --rm --pid host --network none --user 65532:65532 debian:bookworm-slim \
    bash -c "kill -KILL $(state backscroll State.Pid)"
until_is 1 state backscroll RestartCount
say_in_room crashed 10
until_is "460 460" messages
say "Backscroll crashed, was started again by the engine and has caught up"

docker kill "$(id postgres)" >/dev/null
until_is 69 answers
say_in_room headless 50
docker start "$(id postgres)" >/dev/null
until_is "510 510" messages
until_is 0 answers
say "PostgreSQL was killed, the health check told of it, and Backscroll has caught up"

docker kill "$(id synapse)" >/dev/null
until_is 69 answers
docker start "$(id synapse)" >/dev/null
until_is healthy state synapse State.Health.Status
say_in_room back 20
until_is "530 530" messages
until_is 0 answers
say "Synapse was killed, the health check told of it, and Backscroll has caught up"

restarts=$(state backscroll RestartCount)
[ "$restarts" = 1 ] || die "Backscroll was started again $restarts times, not once"
begin=$(date +%s%N)
docker stop --time 10 "$(id backscroll)" >/dev/null
took=$((($(date +%s%N) - begin) / 1000000))
code=$(state backscroll State.ExitCode)
[ "$code" = 0 ] || die "Backscroll has stopped with $code after $took ms"
[ "$took" -lt 10000 ] || die "Backscroll took $took ms to stop"
say "Backscroll has stopped with 0 in $took ms"

quietly "${compose[@]}" down --timeout 10
[ -z "$(id backscroll)$(id postgres)$(id synapse)" ] || die "containers are left after the project was taken down"
quietly "${compose[@]}" up --detach
until_is "530 530" messages
until_is healthy state synapse State.Health.Status
say_in_room again 1
until_is "531 531" messages
say "the project was taken down and up again: nothing is lost, nothing twice"
