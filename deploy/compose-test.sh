#!/usr/bin/env bash
# Brings the whole compose project up with its demo profile, archives a room, kills and restarts containers, and takes
# it down. Images that cannot be pulled are made from Debian's packages (base-images.sh).
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

# shellcheck source=deploy/steps.sh
. deploy/steps.sh
[ -z "$binary" ] || [ -x "$binary" ] || die "$binary is no program"
need_engine
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

deploy/base-images.sh postgres
git ls-files -z | xargs -0 cp --parents -t "$work"
if [ -n "$binary" ]; then
    cp "$binary" "$work/backscroll"
    echo '!backscroll' >>"$work/.dockerignore"
    # The first stage only hands on what is there; the image with Rust has certificates, Debian's may lack them.
    certificates='[ -e /etc/ssl/certs/ca-certificates.crt ] '
    certificates+='|| (apt-get update -qq \&\& apt-get install -y -qq --no-install-recommends ca-certificates)'
    sed -i -e 's/^FROM rust:1-bookworm AS build/FROM debian:bookworm-slim AS build/' \
        -e "s#^RUN cargo build .*#RUN install -D backscroll target/release/backscroll\nRUN $certificates#" "$work/deploy/Dockerfile"
else
    deploy/base-images.sh rust
fi
cd "$work"
# Of its own name, lest the image that people run become one with a binary from anywhere.
sed -i "s/^    image: backscroll$/    image: $project/" docker-compose.yml
grep -q "image: $project$" docker-compose.yml || die "docker-compose.yml does not call the image backscroll"
mkdir -m 700 secrets
printf '%s\n' BACKSCROLL_HOMESERVER__URL=http://synapse:8008 BACKSCROLL_HOMESERVER__ALLOW_INSECURE_HTTP=true \
    BACKSCROLL_ENCRYPTION__DEVICE=true >.env

# A service's container, running or not: `compose ps` shows stopped ones by default in version 1 only.
id() {
    local label=com.docker.compose
    docker ps --all --quiet --filter "label=$label.project=$project" --filter "label=$label.service=$1"
}
state() { docker inspect --format "{{.$2}}" "$(id "$1")"; }
states() { docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$(id "$1")"; }
in_backscroll() { docker exec "$(id backscroll)" backscroll "$@"; }
sql() { docker exec "$(id postgres)" psql -XAtq -U backscroll -c "$1"; }
say_in_room() { docker exec "$(id synapse)" /opt/synapse-container.py say "$@"; }
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

device=$(sql "select device_id from archive.devices where is_published")
[ -n "$device" ] || die "Backscroll's device has not published its keys"
say "Backscroll has a device of its own, $device"

until_is healthy state backscroll State.Health.Status
say "the engine finds Backscroll healthy"

for service in roles migrate grant; do until_is "exited 0" states $service; done
until_is backscroll_writer sql "select string_agg(distinct usename, ' ') from pg_stat_activity where application_name = 'backscroll'"
until_is backscroll_owner sql "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = 'archive'"
# As the writer, and by whichever other name there is.
as_writer() { docker run --rm --network none --volumes-from "$(id backscroll)" --user 65532:65532 "$@" 2>&1 || true; }
refused() {
    local said
    said=$(as_writer --env "BACKSCROLL_DATABASE__URL=postgres://$1@localhost/backscroll?host=/run/postgresql" "$project" status)
    [[ $said = *"authentication failed"* ]] || die "$1 is not refused: $said"
}
for name in backscroll backscroll_owner backscroll_writer postgres; do refused $name; done
said=$(as_writer --env BACKSCROLL_DATABASE__URL_FILE=/owner/url "$project" status)
[[ $said = *"/owner/url cannot be read"* ]] || die "the owner's password is in the writer's reach: $said"
say "Backscroll is the writer, whose tables are the owner's, and can be nobody else"

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
say "PostgreSQL was killed, the health check reported it, and Backscroll has caught up"

docker kill "$(id synapse)" >/dev/null
until_is 69 answers
docker start "$(id synapse)" >/dev/null
until_is healthy state synapse State.Health.Status
say_in_room back 20
until_is "530 530" messages
until_is 0 answers
say "Synapse was killed, the health check reported it, and Backscroll has caught up"

restarts=$(state backscroll RestartCount)
[ "$restarts" = 1 ] || die "Backscroll was started again $restarts times, not once"
took=$(milliseconds docker stop --time 10 "$(id backscroll)")
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
until_is "$device" sql "select device_id from archive.devices where is_published"
say "the project was taken down and up again: nothing is lost, nothing twice, and the device is the same"
