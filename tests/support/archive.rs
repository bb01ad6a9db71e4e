//! What is compared of an archive.

use std::time::{Duration, Instant};

use super::postgres::{TestDatabase, rows};

/// Everything that a run decides and no clock does: two archives of the same history have the same dump.
pub(crate) async fn dump(url: &str) -> Vec<String> {
    let mut dump = Vec::new();
    for query in [
        "select 'account', user_id, since is not null from archive.accounts order by 2",
        "select 'room', room_id, room_version, membership, watched, bootstrapped, history_state,
                history_reason, event_count from archive.rooms order by 2",
        "select 'event', r.room_id, e.event_id, e.position, e.type, e.sender, e.state_key, e.origin_server_ts,
                e.content, e.redacts, e.redacted_by, e.replaces_state, e.prev_content, e.relates_to,
                e.rel_type, e.raw, e.stable_sha256
         from archive.events e join archive.rooms r using (room_id) order by 2, 3",
        "select 'state', room_id, type, state_key, event_id from current_state order by 2, 3, 4",
        "select 'redaction', r.room_id, x.target_event_id, x.redaction_event_id, x.state
         from archive.redactions x join archive.rooms r using (room_id) order by 2, 3, 4",
        "select 'quarantine', r.room_id, q.raw, q.reason
         from archive.quarantine q join archive.rooms r using (room_id) order by 2, 3",
    ] {
        dump.extend(rows(url, query).await.into_iter().map(|row| row.join("|")));
    }
    dump
}

/// The room's event ids in order of position, oldest first; those without a position are left out.
pub(crate) async fn timeline(database: &TestDatabase, room_id: &str) -> Vec<String> {
    database
        .column(&format!(
            "select event_id from events where room_id = '{room_id}' and position is not null
             order by position"
        ))
        .await
}

/// Rows ever updated in the tables of the archive that hold what was archived. No Backscroll may run: a session counts
/// what it has done at its end, which may come after the end of its client.
pub(crate) async fn updated_rows(database: &TestDatabase) -> String {
    // But for the session of Citus' own maintenance, which stays.
    let others = "select count(*) from pg_stat_activity
                  where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
                    and substring(application_name from '^citus_internal gpid=(\\d+)')::bigint % 10000000000 in
                        (select m.pid from pg_stat_activity m where m.backend_type ~ '^Citus Maintenance') is not true";
    let deadline = Instant::now() + Duration::from_secs(20);
    while database.value(others).await != "0" {
        assert!(Instant::now() < deadline, "another session does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    database
        .value(
            // On Citus, those of the parts of tables, whose names end with a number, and which are hidden.
            "set citus.override_table_visibility = off;
             select string_agg(name || '=' || updated || '/' || inserted || '/' || deleted, ' ' order by name)
             from (select regexp_replace(relname, '_[0-9]+$', ''), sum(n_tup_upd), sum(n_tup_ins), sum(n_tup_del)
                   from pg_stat_user_tables where schemaname = 'archive' group by 1) t (name, updated, inserted, deleted)
             where name in ('events', 'current_state', 'redactions', 'quarantine')",
        )
        .await
}

/// The tables of the archive in which a text stands, be it as text or as bytes.
pub(crate) async fn mentions(database: &TestDatabase, text: &str) -> Vec<String> {
    let tables = "select tablename from pg_tables where schemaname = 'archive' order by 1";
    let mut found = Vec::new();
    for table in database.column(tables).await {
        let bytes: Vec<_> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let bytes = bytes.concat();
        let hit = format!(
            "select exists (select 1 from archive.{table} t
                            where t::text like '%{text}%' or t::text like '%{bytes}%')"
        );
        if database.value(&hit).await == "t" {
            found.push(table);
        }
    }
    found
}
