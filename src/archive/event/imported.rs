//! Replaces imported events by the copies that the homeserver gives. Nobody vouches for what a file of
//! another program says, so the homeserver's word stands above it, whatever it is.

use foldhash::{HashMap, HashSet};
use sqlx::PgConnection;

use super::{
    lookup::{Redactions, recorded},
    row::{Placed, StoredEvent},
};
use crate::{
    archive::{Error, Policy, derived::Derived, redaction::redacted_copy, room::Room},
    matrix::Event,
};

/// Replaces the imported ones among the stored events of `copies`, and deletes their marks. Only their
/// positions stay, and that they were redacted. Returns their ids.
///
/// A create event with a position shows that a walk has reached the room's start. So one that the homeserver
/// gives as state only loses the position that it has from a file.
pub(in crate::archive) async fn give_way(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    copies: &[&Placed<'_>],
    redactions: &Redactions,
    derived: &mut Derived,
) -> Result<HashSet<String>, Error> {
    if !room.has_imports || copies.is_empty() {
        return Ok(HashSet::default());
    }
    let stored = unmark(connection, &room.room_id, copies).await?;
    let mut replaced = Vec::new();
    for Placed { event, position } in copies.iter().copied() {
        let Some(before) = stored.get(&event.event_id) else { continue };
        let after = redacted_copy(room, event, redactions).unwrap_or_else(|| (*event).clone());
        let (was, is) = (before.event.uncommon(), after.uncommon());
        let is_changed = before.stable_sha256 != after.stable_sha256 || was.redacted_by != is.redacted_by;
        if is_changed {
            derived.note_changed(room, &before.event, &after);
        }
        for event in [&before.event, &after] {
            derived.note_member(room, &event.event_type, event.state_key.as_deref());
        }
        let is_unplaced = position.is_none() && event.is_state("m.room.create");
        replaced.push(Copied { after, is_changed, is_unplaced });
    }
    if policy == Policy::Retain {
        retain(connection, &room.room_id, &replaced).await?;
    }
    write(connection, room, &replaced).await?;
    Ok(stored.into_keys().collect())
}

/// Deletes imported redactions of events that the homeserver gives in full, unless it gives the redactions as well.
/// They are removed from `redactions`.
pub(in crate::archive) async fn refute_redactions(
    connection: &mut PgConnection,
    room: &Room,
    copies: &[&Event],
    redactions: &mut Redactions,
) -> Result<(), Error> {
    if !room.has_imports {
        return Ok(());
    }
    let given: HashSet<&str> = copies.iter().map(|event| event.event_id.as_str()).collect();
    let in_full = copies.iter().map(|event| event.event_id.as_str()).zip(copies);
    let in_full = in_full.filter(|(_, event)| event.uncommon().redacted_by.is_none());
    let claimed = in_full.filter_map(|(target, _)| Some((target, redactions.get(target)?.as_str())));
    let (targets, by): (Vec<&str>, Vec<&str>) =
        claimed.filter(|(_, redaction)| !given.contains(redaction)).unzip();
    if targets.is_empty() {
        return Ok(());
    }
    let refuted = sqlx::query_scalar!(
        "with refuted as (
             delete from archive.imported_events where room_id = $1 and event_id = any($2) returning event_id
         ), gone as (
             delete from archive.events e using refuted r
             where e.room_id = $1 and e.event_id = r.event_id
             returning e.event_id
         ), counted as (
             update archive.rooms set event_count = event_count - (select count(*) from gone) where room_id = $1
         )
         delete from archive.redactions l using refuted r
         where l.room_id = $1 and l.target_event_id = any($3) and l.redaction_event_id = r.event_id
         returning l.target_event_id",
        room.room_id,
        &by as &[&str],
        &targets as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    if refuted.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        room.id = %room.room_id,
        event_count = refuted.len(),
        "imported redactions are deleted, because the homeserver gives what they redact"
    );
    redactions.retain(|target, _| !refuted.contains(target));
    // There may be others, which the homeserver gave.
    let targets: Vec<&str> = refuted.iter().map(String::as_str).collect();
    redactions.extend(recorded(connection, &room.room_id, &targets).await?);
    Ok(())
}

/// An imported event.
struct Imported {
    event: Event,
    stable_sha256: Vec<u8>,
}

/// The copy that replaces an imported event.
struct Copied {
    after: Event,
    /// Whether it differs in more than what the homeserver adds.
    is_changed: bool,
    /// Whether it loses its position.
    is_unplaced: bool,
}

/// Deletes the marks of those of `copies` that were imported. Returns the events as they are stored.
async fn unmark(
    connection: &mut PgConnection,
    room_id: &str,
    copies: &[&Placed<'_>],
) -> Result<HashMap<String, Imported>, Error> {
    let event_ids: Vec<&str> = copies.iter().map(|placed| placed.event.event_id.as_str()).collect();
    let rows = sqlx::query!(
        r#"with unmarked as (
               delete from archive.imported_events where room_id = $1 and event_id = any($2) returning event_id
           )
           select e.event_id, e.type as event_type, e.sender, e.state_key, e.origin_server_ts, e.redacts, e.redacted_by,
                  e.relates_to, e.rel_type, e.content::text as "content!", e.stable_sha256
           from unmarked u
           cross join lateral (
               select * from archive.events e where e.room_id = $1 and e.event_id = u.event_id limit 1
           ) e"#,
        room_id,
        &event_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    let imported = rows.into_iter().map(|row| {
        let event = StoredEvent {
            event_id: row.event_id.clone(),
            event_type: row.event_type,
            sender: row.sender,
            state_key: row.state_key,
            origin_server_ts: row.origin_server_ts,
            redacts: row.redacts,
            redacted_by: row.redacted_by,
            relates_to: row.relates_to,
            rel_type: row.rel_type,
            content: row.content,
        };
        (row.event_id, Imported { event: event.into_event(), stable_sha256: row.stable_sha256 })
    });
    Ok(imported.collect())
}

/// Keeps the content of those that are redacted now, as the policy `retain` asks.
async fn retain(connection: &mut PgConnection, room_id: &str, copied: &[Copied]) -> Result<(), Error> {
    let redacted = copied.iter().filter(|copied| copied.after.uncommon().redacted_by.is_some());
    let event_ids: Vec<&str> = redacted.map(|copied| copied.after.event_id.as_str()).collect();
    sqlx::query!(
        "insert into archive.originals (room_id, event_id, content, raw)
         select room_id, event_id, content, raw from archive.events
         where room_id = $1 and event_id = any($2) and redacted_by is null
         on conflict do nothing",
        room_id,
        &event_ids as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write(connection: &mut PgConnection, room: &Room, copied: &[Copied]) -> Result<(), Error> {
    fn column<'c, T>(copied: &'c [Copied], of: impl Fn(&'c Event) -> T) -> Vec<T> {
        copied.iter().map(|copied| of(&copied.after)).collect()
    }
    let event_ids = column(copied, |it| it.event_id.as_str());
    super::replaced::record(connection, &room.room_id, &event_ids).await?;
    let version = room.room_version.as_deref();
    let targets = column(copied, |it| it.redaction_target(version).or(it.uncommon().redacts.as_deref()));
    let raws = column(copied, |it| it.uncommon().raw.as_deref().map(str::as_bytes));
    let changed: Vec<bool> = copied.iter().map(|copied| copied.is_changed).collect();
    let unplaced: Vec<bool> = copied.iter().map(|copied| copied.is_unplaced).collect();
    sqlx::query!(
        "update archive.events e
         set type = c.type, sender = c.sender, state_key = c.state_key, origin_server_ts = c.origin_server_ts,
             content = c.content::jsonb, redacts = c.redacts, redacted_by = c.redacted_by,
             replaces_state = c.replaces_state, prev_content = c.prev_content::jsonb, relates_to = c.relates_to,
             rel_type = c.rel_type, raw = c.raw, stable_sha256 = c.stable_sha256, received_at = now(),
             thread_root = case when not c.changed then e.thread_root
                                when c.rel_type = 'm.thread' then c.relates_to end,
             position = case when not c.unplaced then e.position end
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                     $10::text[], $11::text[], $12::text[], $13::text[], $14::bytea[], $15::bytea[], $16::boolean[],
                     $17::boolean[])
             as c (event_id, type, sender, state_key, origin_server_ts, content, redacts, redacted_by, replaces_state,
                   prev_content, relates_to, rel_type, raw, stable_sha256, changed, unplaced)
         where e.room_id = $1 and e.event_id = c.event_id",
        room.room_id,
        &event_ids as &[&str],
        &column(copied, |it| it.event_type.as_str()) as &[&str],
        &column(copied, |it| it.sender.as_str()) as &[&str],
        &column(copied, |it| it.state_key.as_deref()) as &[Option<&str>],
        &column(copied, |it| it.origin_server_ts) as &[Option<i64>],
        &column(copied, |it| it.content.as_str()) as &[&str],
        &targets as &[Option<&str>],
        &column(copied, |it| it.uncommon().redacted_by.as_deref()) as &[Option<&str>],
        &column(copied, |it| it.replaces_state.as_deref()) as &[Option<&str>],
        &column(copied, |it| it.prev_content.as_deref()) as &[Option<&str>],
        &column(copied, |it| it.uncommon().relates_to.as_deref()) as &[Option<&str>],
        &column(copied, |it| it.uncommon().rel_type.as_deref()) as &[Option<&str>],
        &raws as &[Option<&[u8]>],
        &column(copied, |it| it.stable_sha256.as_slice()) as &[&[u8]],
        &changed,
        &unplaced
    )
    .execute(connection)
    .await?;
    Ok(())
}
