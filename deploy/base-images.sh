#!/usr/bin/env bash
# Sees to it that the engine has the images which the project's containers are made of. What cannot be pulled is made
# from Debian's packages, under the same name.
#   deploy/base-images.sh [debian] [postgres] [rust]    all that postgres and rust need comes with them
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/steps.sh
. deploy/steps.sh
need_engine

# What lies in this directory, and no more, is a build's context.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

readonly label=backscroll.stand-in
# Whether there is an image of that name. A stand-in counts only if it was made as it would be made now: $2 says how.
have() {
    local made
    if ! made=$(docker image inspect --format "{{index .Config.Labels \"$label\"}} {{.Config.Entrypoint}}" "$1" 2>/dev/null)
    then
        docker pull --quiet "$1" >/dev/null 2>&1
        return
    fi
    case $made in
    "$2 "*) ;;
    # The official ones have neither this label, nor the entry point that the first stand-ins had.
    " [entry]" | [0-9a-f]*) return 1 ;;
    esac
}
recipe() { declare -f "$@" | sha256sum | cut -c 1-16; }

base_debian() {
    local bundle=/etc/ssl/certs/ca-certificates.crt recipe
    recipe=$(recipe base_debian)
    have debian:bookworm-slim "$recipe" && return
    say "making debian:bookworm-slim with debootstrap"
    if ! command -v debootstrap >/dev/null; then
        quietly apt-get update -qq
        quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap
    fi
    quietly debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" http://deb.debian.org/debian
    rm -rf "$work"/root/var/cache/apt/archives/*.deb
    # It trusts whom this machine trusts: the registries may be reached through a proxy of its own authority.
    cp "$bundle" "$work/root$bundle"
    tar -C "$work/root" -c . | docker import -c 'CMD ["bash"]' -c "ENV PIP_CERT=$bundle CARGO_HTTP_CAINFO=$bundle" \
        -c "LABEL $label=$recipe" - debian:bookworm-slim >/dev/null
    rm -rf "$work/root"
}

# Debian's PostgreSQL behind as much of the official image's entry point as the project uses.
base_postgres() {
    local recipe
    recipe=$(recipe base_debian base_postgres)
    have postgres:17 "$recipe" && return
    base_debian
    say "making postgres:17 from Debian's packages"
    mkdir "$work/postgres"
    cat >"$work/postgres/entry" <<'END'
#!/bin/bash
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ "$(id -u)" = 0 ]; then
    chown postgres: /var/lib/postgresql/data
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
cd /var/lib/postgresql/data
if [ ! -s PG_VERSION ]; then
    : "${POSTGRES_USER:=postgres}"
    initdb -D . -U "$POSTGRES_USER" --auth "$POSTGRES_HOST_AUTH_METHOD" --encoding UTF8
    echo "host all all all $POSTGRES_HOST_AUTH_METHOD" >>pg_hba.conf
    echo "listen_addresses = '*'" >>postgresql.conf
    [ "$POSTGRES_USER" = postgres ] || echo "create database \"$POSTGRES_USER\";" | postgres --single -D . postgres
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
EXPOSE 5432
VOLUME /var/lib/postgresql/data
CMD ["postgres"]
END
    quietly docker build --label "$label=$recipe" --tag postgres:17 "$work/postgres"
    rm -rf "$work/postgres"
}

# The toolchain of this machine, with Debian's linker.
base_rust() {
    local recipe
    recipe=$(recipe base_debian base_rust)-$(rustc --version | cut -d ' ' -f 2)
    have rust:1-bookworm "$recipe" && return
    base_debian
    say "making rust:1-bookworm from this machine's toolchain"
    mkdir "$work/rust"
    cp -r "$(rustc --print sysroot)" "$work/rust/toolchain"
    cat >"$work/rust/Dockerfile" <<'END'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY toolchain /usr/local
END
    quietly docker build --label "$label=$recipe" --tag rust:1-bookworm "$work/rust"
    rm -rf "$work/rust"
}

for name in "$@"; do
    case $name in
    debian | postgres | rust) ;;
    *)
        sed -n '2,4s/^# //p' "$0" >&2
        exit 64
        ;;
    esac
done
for name in "$@"; do "base_$name"; done
