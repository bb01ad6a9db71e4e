#!/usr/bin/env bash
# Whether the tests can fail: puts one deliberate bug after the other into a copy of the tree and runs the tests on the
# model homeserver, which must catch each. Prints a table; exits with 1 if one was missed.
# Arguments choose among the bugs: tests/mutants.sh limited_ignored
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What cargo builds is kept from one run to the next.
export CARGO_TARGET_DIR=${MUTANTS_TARGET:-$PWD/target/mutants}
# The quick ones first: most bugs end there.
quick=(property::kept)
thorough=(property::any_script)
# A bug may keep the daemon busy for ever instead of making a test fail.
patience=15m

copy=$CARGO_TARGET_DIR/tree
mkdir -p "$copy"
files=(Cargo.toml Cargo.lock .sqlx benches deploy migrations src tests)

# mutate BUG: changes the copy; without BUG, lists the bugs.
mutate() {
    python3 - "$@" <<'PYTHON'
import pathlib, sys

BUGS = {
    "walk_from_prev_batch": [(
        "        match response.next_batch {\n            Some(next_batch) => {\n                history::begin",
        """        let prev_batch = self.update.prev_batch.as_ref().map(|token| token.as_str());
        match response.next_batch {
            _ if prev_batch.is_some() => {
                history::open(self.connection, &self.room, prev_batch.unwrap_or_default(), Some(0)).await?;
            }
            Some(next_batch) => {
                history::begin""")],
    "stop_at_first_known": [(
        "walk.kind.fills_gap() && below_gap && walk.known_pages > 0",
        "walk.kind.fills_gap() && (passed.new < passed.events || below_gap && walk.known_pages > 0)")],
    "only_pass_a": [(
        "WalkKind::GapSince => Some((WalkKind::GapKnown, 0.0)),",
        "WalkKind::GapSince => None,")],
    # The token, or the walk's cursor, is committed before the rows, but the counters with them. The pause stands for a
    # slow disk. The early transaction must not wait for a lock of the other one, which waits for it.
    "checkpoint_before_rows": [(
        "walk::save(connection, walk, &after, busy, pause_s).await?;",
        """let mut early = self.begin().await?;
        let uncounted = Walk { events: walk.events, ..after.clone() };
        walk::save(&mut early, walk, &uncounted, busy, pause_s).await?;
        early.commit().await?;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let sql = "update archive.walks set events = $2 where walk_id = $1";
        sqlx::query(sql).bind(walk.walk_id).bind(after.events).execute(&mut *connection).await?;
        let new = usize::try_from(after.events - walk.events).unwrap_or_default();
        room::count_events(connection, &walk.room_id, new).await?;"""), (
        "        if full && !account::is_up_to_date(&mut transaction, account).await? {\n",
        """        let mut early = writer.begin().await?;
        account::advance(&mut early, account, next_batch.as_str(), None).await?;
        early.commit().await?;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if full && !account::is_up_to_date(&mut transaction, account).await? {
"""), (
        "account::advance(&mut transaction, account, next_batch.as_str(), filter.as_deref()).await?;",
        """let sql = "update archive.accounts set rooms_filter = coalesce($2, rooms_filter) where account_key = $1";
        let query = sqlx::query(sql).bind(account.account_key).bind(filter.as_deref());
        query.execute(&mut *transaction).await?;""")],
    "empty_chunk_is_the_end": [(
        "let Some(end) = passed.end else {",
        "let Some(end) = passed.end.filter(|_| passed.events > 0) else {")],
    "limited_ignored": [(
        "} else if update.limited {",
        "} else if update.limited && update.section == Section::Invite {")],
    "newer_state_only": [(
        "            match room.current.get(key) {\n",
        """            let sql = "select n.origin_server_ts >= o.origin_server_ts
                       from archive.current_state c
                       join archive.events o using (room_id, event_id)
                       join archive.events n on n.room_id = c.room_id and n.event_id = $4
                       where c.room_id = $1 and c.type = $2 and c.state_key = $3";
            if let Some(pointer) = room.current.get(key) {
                let query = sqlx::query_scalar::<_, Option<bool>>(sql).bind(&room.room_id).bind(&key.0).bind(&key.1);
                let is_newer = query.bind(&*pointer.event_id).fetch_optional(&mut *connection).await?;
                if is_newer.flatten() == Some(false) {
                    continue;
                }
            }
            match room.current.get(key) {
""")],
    "backfill_moves_state": [(
        "        if let Some(last) = events.last() {\n            after.upper_position",
        """        let mut pointers = crate::archive::room::current_state::Pointers::load(connection, &room.room_id).await?;
        pointers.point(&page.chunk.events, crate::archive::room::current_state::Cause::State);
        pointers.save(connection).await?;
        if let Some(last) = events.last() {
            after.upper_position""")],
}

if len(sys.argv) == 1:
    print("\n".join(BUGS))
sources = list(pathlib.Path("src").rglob("*.rs"))
for before, after in BUGS[sys.argv[1]] if len(sys.argv) > 1 else []:
    holders = [path for path in sources if before in path.read_text()]
    if len(holders) != 1 or holders[0].read_text().count(before) != 1:
        sys.exit(f"{sys.argv[1]} must be written anew: its place has changed")
    holders[0].write_text(holders[0].read_text().replace(before, after))
PYTHON
}

refresh() {
    (cd "$copy" && rm -rf "${files[@]}")
    cp -r "${files[@]}" "$copy"
}

# run LOG: the tests in the copy.
run() {
    (cd "$copy" && timeout "$patience" cargo test --locked --quiet --test it -- "${quick[@]}" &&
        timeout "$patience" cargo test --locked --quiet --test it -- "${thorough[@]}") >"$1" 2>&1
}

[ $# -gt 0 ] || mapfile -t bugs < <(mutate)
[ $# -eq 0 ] || bugs=("$@")
log=$copy/log
refresh
if ! run "$log"; then
    tail -n 40 "$log"
    echo "The tests fail without a bug." >&2
    exit 1
fi
missed=0
for bug in "${bugs[@]}"; do
    refresh
    (cd "$copy" && mutate "$bug")
    if ! (cd "$copy" && cargo test --locked --quiet --test it --no-run) >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "$bug does not compile." >&2
        exit 1
    fi
    status=0
    run "$log" || status=$?
    case $status in
    0)
        verdict=MISSED
        missed=1
        ;;
    124) verdict="caught: the tests do not end" ;;
    *)
        # The test runner lists the failed tests last, one a line.
        verdict="caught by $(grep -o '^    [a-z_]*::[a-z_:]*$' "$log" | sort -u | xargs || true)"
        ;;
    esac
    printf '%-24s %s\n' "$bug" "$verdict"
done
exit "$missed"
