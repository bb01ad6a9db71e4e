#!/usr/bin/env bash
# A real Synapse for the demo and the tests: one process, on loopback, in SQLite, with no rate limits and no federation.
# It is not a homeserver for people.
set -euo pipefail

readonly version=1.163.2
readonly venv=${BACKSCROLL_SYNAPSE_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/backscroll/synapse-$version}

usage() {
    cat <<EOF
A real Synapse $version for the demo and the tests, on loopback.

  synapse.sh install           install it into a Python virtual environment of its own, once
  synapse.sh where             print where that environment is
  synapse.sh start DIR [PORT]  start it with its data in DIR, on PORT (else the one it had, or a free one); prints its URL
  synapse.sh stop DIR          stop it; the data stays in DIR

The environment is $venv
(BACKSCROLL_SYNAPSE_VENV names another place). DIR holds, readable by you only, homeserver.yaml, homeserver.db,
synapse.log, and for scripts: url, registration_secret, as_token (an application service's token, which may act as any
user and date events with ?ts=).
EOF
}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "synapse.sh: $*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root and there is no sudo; run as root: $*"
    fi
}

# The newest python3 that can make a virtual environment; Synapse needs 3.10 or later.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if command -v "$python" >/dev/null &&
            "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

install() {
    if [ -x "$venv/bin/python" ]; then return; fi
    if [ -e "$venv" ] && [ -n "$(ls -A "$venv")" ]; then
        die "$venv is there but is no virtual environment; remove it or set BACKSCROLL_SYNAPSE_VENV"
    fi
    mkdir -p "$(dirname "$venv")"
    # One installer at a time; the others find it installed.
    exec 9>"$venv.lock"
    flock 9
    if [ -x "$venv/bin/python" ]; then return; fi

    local python
    if ! python=$(find_python); then
        say "Installing python3-venv"
        as_root apt-get update -qq >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >&2
        python=$(find_python) || die "no Python 3.10 or later with venv"
    fi

    say "Installing Synapse $version into $venv (a minute or two)"
    # Built beside its place and renamed, so that what is in place is complete. The scripts in bin/ name the interpreter
    # by its path, so they are made to say where it will be.
    local build=$venv.part
    rm -rf "$build"
    "$python" -m venv "$build"
    "$build/bin/pip" --quiet --disable-pip-version-check install --no-compile "matrix-synapse==$version" >&2
    "$build/bin/python" -m compileall -q -j 0 -s "$build" -p "$venv" "$build/lib" >/dev/null || true
    grep -rlIF "$build" "$build/bin" "$build/pyvenv.cfg" | xargs -r sed -i "s|$build|$venv|g"
    "$build/bin/python" -c 'import synapse.app.homeserver'
    if [ -d "$venv" ]; then rmdir "$venv"; fi
    mv "$build" "$venv"
    say "Synapse $version is installed"
}

# The process that serves DIR, if it lives; a pid file left by a crash may name a stranger.
running() {
    local pid
    pid=$(cat "$1/synapse.pid" 2>/dev/null) || return 1
    if ! grep -qzxF "$1/homeserver.yaml" "/proc/$pid/cmdline" 2>/dev/null; then return 1; fi
    echo "$pid"
}

# Writes what DIR lacks. Secrets are made once, the configuration each time, because the port may change.
configure() {
    "$venv/bin/python" - "$1" "$2" <<'EOF'
import base64, json, pathlib, secrets, sys

dir, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def once(name, text):
    path = dir / name
    if not path.exists():
        path.write_text(text)
    return path.read_text().strip()

once("signing.key", "ed25519 a_1 " + base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=") + "\n")
secret = once("registration_secret", secrets.token_hex(32))
token = once("as_token", secrets.token_hex(32))
(dir / "url").write_text(f"http://127.0.0.1:{port}\n")
free = {"per_second": 1e6, "burst_count": 1000000}

# JSON is YAML.
(dir / "appservice.yaml").write_text(json.dumps({
    "id": "local", "url": None, "as_token": token, "hs_token": secrets.token_hex(32), "sender_localpart": "_local",
    "rate_limited": False, "namespaces": {"users": [{"exclusive": False, "regex": "@.*"}]},
}, indent=1))
(dir / "log.yaml").write_text(json.dumps({
    "version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": ["file"]},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "line", "filename": str(dir / "synapse.log")}},
}, indent=1))
(dir / "homeserver.yaml").write_text(json.dumps({
    "server_name": "localhost",
    "public_baseurl": f"http://127.0.0.1:{port}/",
    "listeners": [{"port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "resources": [{"names": ["client", "keys"]}]}],
    "database": {"name": "sqlite3", "args": {"database": str(dir / "homeserver.db")}},
    "signing_key_path": str(dir / "signing.key"),
    "media_store_path": str(dir / "media"),
    "log_config": str(dir / "log.yaml"),
    "app_service_config_files": [str(dir / "appservice.yaml")],
    "registration_shared_secret": secret,
    "enable_registration": False,
    "report_stats": False,
    "federation_domain_whitelist": [],
    "trusted_key_servers": [],
    "presence": {"enabled": False},
    "caches": {"sync_response_cache_duration": "0s"},
    "rc_login": {"address": free, "account": free, "failed_attempts": free},
    "rc_joins": {"local": free, "remote": free},
    "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
    **{key: free for key in ("rc_message", "rc_registration", "rc_admin_redaction", "rc_joins_per_room",
                             "rc_room_creation", "rc_profile", "rc_user_directory", "rc_reports")},
}, indent=1))
EOF
}

# The port of the last start if it is free, so that the URL stays, else any.
free_port() {
    "$venv/bin/python" - "$(sed -n 's|.*:||p' "$1/url" 2>/dev/null)" <<'EOF'
import socket, sys
for port in (int(sys.argv[1] or 0), 0):
    try:
        print(socket.create_server(("127.0.0.1", port)).getsockname()[1])
        break
    except OSError:
        pass
EOF
}

# Whether Synapse answers at the URL.
answers() {
    "$venv/bin/python" - "$1" 2>/dev/null <<'EOF'
import sys, urllib.request
proxyless = urllib.request.build_opener(urllib.request.ProxyHandler({}))
proxyless.open(sys.argv[1] + "/_matrix/client/versions", timeout=2).read()
EOF
}

start() {
    umask 077
    mkdir -p "$1"
    local dir port pid
    dir=$(cd "$1" && pwd -P)
    chmod 700 "$dir"
    if pid=$(running "$dir"); then
        say "Synapse already runs (process $pid)"
        cat "$dir/url"
        return
    fi
    install
    port=${2:-$(free_port "$dir")}
    configure "$dir" "$port"

    setsid "$venv/bin/python" -m synapse.app.homeserver --config-path "$dir/homeserver.yaml" \
        </dev/null >"$dir/start.log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$dir/synapse.pid"
    trap 'kill -KILL "$pid" 2>/dev/null; exit 130' INT TERM
    # Its first start makes the database, which takes some seconds more.
    local url deadline=$((SECONDS + 90))
    url=$(cat "$dir/url")
    until answers "$url"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 5 "$dir/start.log" >&2
            die "Synapse did not start; see $dir/start.log and $dir/synapse.log"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            kill -KILL "$pid"
            die "Synapse did not answer at $url within 90 s; see $dir/synapse.log"
        fi
        sleep 0.2
    done
    trap - INT TERM
    say "Synapse $version runs on loopback (process $pid), its data and log in $dir"
    echo "$url"
}

stop() {
    local dir pid
    if ! dir=$(cd "$1" 2>/dev/null && pwd -P) || ! pid=$(running "$dir"); then
        say "Synapse does not run in $1"
        return
    fi
    kill "$pid"
    local deadline=$((SECONDS + 20))
    while running "$dir" >/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
        sleep 0.1
    done
    rm -f "$dir/synapse.pid"
    say "Synapse has stopped"
}

case ${1:-}/$# in
install/1) install ;;
where/1) echo "$venv" ;;
start/2 | start/3) start "$2" "${3:-}" ;;
stop/2) stop "$2" ;;
-h/1 | --help/1) usage ;;
*)
    usage >&2
    exit 64
    ;;
esac
