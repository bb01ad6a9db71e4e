#!/usr/bin/env bash
# Backscroll's main job on one machine, from nothing: a real Synapse with a community's conversation, archived into
# PostgreSQL. Needs a Rust toolchain and a Debian; installs the rest.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly repository
readonly backscroll=$repository/target/demo/backscroll

if [ -n "${BACKSCROLL_DEMO_DIR:-}" ]; then
    demo=$BACKSCROLL_DEMO_DIR
elif [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses to run as root, and whoever it runs as must reach its data: not under /root.
    demo=/var/lib/backscroll-demo
else
    demo=${XDG_DATA_HOME:-$HOME/.local/share}/backscroll-demo
fi
readonly demo
readonly log=$demo/demo.log
readonly build_log=$demo/build.log

usage() {
    cat <<EOF
Shows Backscroll at work, on this machine alone.

  demo.sh          install what is missing, start a Synapse, let a community talk in it, archive its rooms, query them;
                   then stop everything. A second run keeps what is there and archives what is new.
  demo.sh --keep   the same, but leave Synapse running, to follow it with 'backscroll run'
  demo.sh stop     stop that Synapse
  demo.sh clean    stop it and remove all data of the demo

The data are in $demo
(BACKSCROLL_DEMO_DIR names another place).
EOF
}

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' red='' plain=''; fi
section() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s\n' "$*"; }
fail() {
    printf '\n%s%s%s\n' "$red" "$*" "$plain" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "This needs root and there is no sudo. Run as root, then start again: $*"
    fi
}

# Each job is a process group of its own and is waited for, so that an interrupt reaches this script at once, and the
# script ends what it has started.
set -m
jobs_running=()
keep=
started=
# shellcheck disable=SC2329 # the traps call it
finish() {
    local code=$? job
    trap '' INT TERM HUP
    trap - EXIT
    for job in "${jobs_running[@]}"; do kill -TERM -- "-$job" 2>/dev/null || true; done
    for job in "${jobs_running[@]}"; do wait "$job" 2>/dev/null || true; done
    if [ -n "$started" ] && { [ -z "$keep" ] || [ "$code" != 0 ]; }; then
        "$repository/deploy/synapse.sh" stop "$demo/synapse" >>"$log" 2>&1 || true
    fi
    exit "$code"
}
trap finish EXIT
trap 'printf "\n%s\n" "Interrupted; nothing is left running."; exit 130' INT
trap 'exit 143' TERM HUP

# Runs a job to its end.
attend() {
    "$@" &
    jobs_running+=($!)
    wait $!
}

# Runs a noisy job: its output goes to the log.
quietly() {
    local what=$1 begin=$SECONDS
    shift
    "$@" >>"$log" 2>&1 &
    jobs_running+=($!)
    watch_job "$what" $! "$begin" "$log"
}

# Waits for a job that began at that second: a terminal sees how long it takes and the last line of its log.
watch_job() {
    local what=$1 job=$2 begin=$3 output=$4 last
    while [ -t 1 ] && kill -0 "$job" 2>/dev/null; do
        last=$(tail -n 1 "$output" | tr -cd '[:print:]' | cut -c 1-50)
        printf '\r\e[K  %s … %d s  %s%s%s' "$what" $((SECONDS - begin)) "$dim" "$last" "$plain"
        sleep 0.5 &
        wait $! || true
    done
    if [ -t 1 ]; then printf '\r\e[K'; fi
    if ! wait "$job"; then
        tail -n 15 "$output" >&2
        fail "$what failed; all of its output is in $output"
    fi
    note "$what: done in $((SECONDS - begin)) s"
}

postgres_initdb() {
    command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1
}

install_postgres() {
    if [ -z "$(postgres_initdb)" ]; then
        note "PostgreSQL is missing; installing Debian's package"
        as_root true # asks for the password, if any, where it can be seen
        quietly "apt-get update" as_root apt-get update
        quietly "apt-get install postgresql" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y postgresql
    fi
    note "$("$(postgres_initdb)" --version)"
}

# A build that is soon done: to archive in earnest, `cargo install` makes one that is several times as fast.
build() {
    # There it is looked for, wherever the surroundings have cargo build.
    SQLX_OFFLINE=true cargo build --profile demo --locked --manifest-path "$repository/Cargo.toml" \
        --target-dir "$repository/target"
}

# The token file is written last: without it the conversation is not whole, and is begun again.
converse() {
    local url python again=()
    python=$("$repository/deploy/synapse.sh" where)/bin/python
    if [ -f "$demo/token" ]; then
        again=(--again)
    else
        "$repository/deploy/synapse.sh" stop "$demo/synapse" >>"$log" 2>&1
        rm -rf "$demo/synapse" "$demo/archive"
    fi
    started=yes
    url=$("$repository/deploy/synapse.sh" start "$demo/synapse" 2>>"$log") || fail "Synapse did not start; see $log"
    note "Synapse runs at $url"
    "$python" "$repository/deploy/demo/converse.py" "$demo/synapse" "$demo/token" "${again[@]}" >"$demo/said" 2>>"$log" &
    conversation=$!
    jobs_running+=("$conversation")
}

environment() {
    export BACKSCROLL_DATA_DIR=$demo/archive
    BACKSCROLL_HOMESERVER__URL=$(cat "$demo/synapse/url")
    export BACKSCROLL_HOMESERVER__URL
    export BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE=$demo/token
    # The demo has a database of its own, whatever the surroundings name.
    unset DATABASE_URL BACKSCROLL_DATABASE__URL BACKSCROLL_CONFIG
    cat >"$demo/env" <<EOF
export BACKSCROLL_DATA_DIR='$BACKSCROLL_DATA_DIR'
export BACKSCROLL_HOMESERVER__URL='$BACKSCROLL_HOMESERVER__URL'
export BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE='$BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE'
unset DATABASE_URL
EOF
}

query() {
    section "$1"
    printf '%s%s%s\n\n' "$dim" "$2" "$plain"
    attend "$backscroll" psql -- --no-psqlrc --pset pager=off --pset footer=off --pset null=– -c "$2"
}

run() {
    command -v cargo >/dev/null || fail "The demo needs a Rust toolchain: https://rustup.rs"
    # Others may pass through, as PostgreSQL's account must when root starts it; what is secret is closed by itself.
    mkdir -p "$demo"
    if [ ! -e "$demo/.backscroll-demo" ] && [ -n "$(ls -A "$demo")" ]; then
        fail "$demo is not empty and not a demo's; name another place with BACKSCROLL_DEMO_DIR"
    fi
    chmod 755 "$demo"
    touch "$demo/.backscroll-demo"
    : >"$log"
    cd "$demo"

    printf '%sBackscroll, from a homeserver to SQL.%s Everything is in %s\n' "$bold" "$plain" "$demo"

    section "What it needs"
    install_postgres
    # The longest part, beside all that comes before it is needed.
    local build build_begin=$SECONDS
    build >"$build_log" 2>&1 &
    build=$!
    jobs_running+=("$build")
    if [ -x "$("$repository/deploy/synapse.sh" where)/bin/python" ]; then
        note "Synapse is installed"
    else
        quietly "installing Synapse (a minute or two)" "$repository/deploy/synapse.sh" install
    fi

    section "A homeserver with a community in it, while Backscroll is built"
    local conversation
    converse
    watch_job "cargo build --profile demo (three to five minutes, the first time)" "$build" "$build_begin" "$build_log"
    local begin=$SECONDS
    while [ -t 1 ] && kill -0 "$conversation" 2>/dev/null; do
        printf '\r\e[K  people are still talking … %d s' $((SECONDS - begin))
        sleep 0.5 &
        wait $! || true
    done
    if [ -t 1 ]; then printf '\r\e[K'; fi
    if ! wait "$conversation"; then
        tail -n 5 "$log" >&2
        fail "The conversation failed; all of its output is in $log"
    fi
    cat "$demo/said"
    rm "$demo/said"
    environment

    section "backscroll run --once"
    attend "$backscroll" run --once || fail "backscroll run --once failed"

    section "backscroll status"
    attend "$backscroll" status

    query "Who says most" "select sender_name, count(*) as messages, count(*) filter (where edit_count > 0) as edited,
       count(*) filter (where redacted) as redacted, min(sent_at)::date as first, max(sent_at)::date as last
from messages group by sender_name order by messages desc limit 8;"
    query "The end of a room, as one reads it there" "select * from (
  select position, to_char(sent_at, 'DD Mon HH24:MI') as sent, sender_name, left(body, 56) as body, edit_count as edits
  from messages join rooms using (room_id) where rooms.name = 'Workshop' order by position desc limit 10
) as last_ten order by position;"
    query "Every topic the rooms have had, and what was there before" "select rooms.name as room, to_char(sent_at, 'YYYY-MM-DD') as since, prev_content->>'topic' as was, content->>'topic' as became
from state_history join rooms using (room_id) where type = 'm.room.topic' order by rooms.name, position;"

    section "How to go on"
    cat <<EOF
  . $demo/env                       # where the demo's archive is
  cd $repository
  target/demo/backscroll psql       # \\d+ messages explains a view; \\dv lists them
  ./deploy/demo.sh                  # again: people say more, only that is fetched
EOF
    if [ -n "$keep" ]; then
        cat <<EOF
  target/demo/backscroll run        # follow the rooms as they are talked in; Ctrl-C ends it
  ./deploy/demo.sh stop             # stop Synapse, which still runs at $BACKSCROLL_HOMESERVER__URL
EOF
    else
        cat <<EOF
  ./deploy/demo.sh --keep           # the same, leaving Synapse running for 'backscroll run'
EOF
    fi
    cat <<EOF
  ./deploy/demo.sh clean            # remove all of it

EOF
    if [ -z "$keep" ]; then note "Synapse and PostgreSQL have been stopped; the archive stays."; fi
}

case ${1:-}/$# in
/0) run ;;
--keep/1)
    keep=yes
    run
    ;;
stop/1) "$repository/deploy/synapse.sh" stop "$demo/synapse" ;;
clean/1)
    if [ ! -e "$demo/.backscroll-demo" ]; then
        note "There is no demo in $demo"
        exit
    fi
    "$repository/deploy/synapse.sh" stop "$demo/synapse"
    rm -rf "$demo"
    note "$demo is removed. Synapse itself stays in $("$repository/deploy/synapse.sh" where)"
    ;;
-h/1 | --help/1) usage ;;
*)
    usage >&2
    exit 64
    ;;
esac
