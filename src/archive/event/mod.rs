//! Writes rows of `archive.events`.

pub(super) mod copy;
mod imported;
pub(super) mod lookup;
pub(super) mod quarantine;
mod refill;
mod replaced;
pub(super) mod row;

use std::borrow::Cow;

use foldhash::HashSet;
use sqlx::PgConnection;

use self::{
    copy::{CopyIn, Rows},
    lookup::{KnownEvents, Lookup, Redactions},
    row::Placed,
};
use super::{Archive, Error, Policy, derived::Derived, erasure::filter::Tombstones, redaction, room::Room};
use crate::matrix::Event;

const COPY: &str = "copy archive.events (room_id, event_id, position, type, sender, state_key, origin_server_ts, content, \
                    redacts, redacted_by, replaces_state, prev_content, relates_to, rel_type, thread_root, raw, stable_sha256) \
                    from stdin (format binary)";

/// Collected rows are written when they have more bytes than this.
const MANY_BYTES: usize = 2 << 20;

impl Archive {
    /// Which of these events are not archived yet. None, if the archive knows the room but does not archive it.
    pub(crate) async fn lacking(&self, room_id: &str, event_ids: &[String]) -> Result<Vec<String>, Error> {
        let lacking = sqlx::query_scalar!(
            r#"select asked.event_id as "event_id!"
               from unnest($2::text[]) as asked (event_id)
               where not exists (select from archive.rooms where room_id = $1 and not watched)
                 and not exists (
                     select from archive.events e where e.room_id = $1 and e.event_id = asked.event_id)"#,
            room_id,
            event_ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(lacking)
    }
}

/// Collected rows of new events, of any rooms, which are written together.
#[derive(Debug, Default)]
pub(super) struct NewRows {
    rows: Rows,
    /// The rooms of the rows.
    room_ids: HashSet<String>,
    /// What the events change besides. Written once all rows are.
    derived: Derived,
}

impl NewRows {
    /// Writes the rows, if there are any.
    pub(super) async fn write(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        if !self.rows.is_empty() {
            self.rows.write(connection, COPY).await?;
            self.room_ids.clear();
        }
        Ok(())
    }

    /// Writes the rows, and what the events change besides.
    pub(super) async fn finish(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        self.write(connection).await?;
        self.derived.write(connection).await
    }

    /// Adds the rows of new events, and writes them once there are many. `note` gets each event as it is stored.
    async fn add(
        &mut self,
        connection: &mut PgConnection,
        room: &Room,
        events: &[&Placed<'_>],
        redactions: &Redactions,
        mut note: impl FnMut(&Event, Option<i64>),
    ) -> Result<(), Error> {
        for placed in events {
            self.room_ids.insert(room.room_id.clone());
            note(&encode(&mut self.rows, room, placed, redactions), placed.position);
            if self.rows.len() >= MANY_BYTES {
                self.write(connection).await?;
            }
        }
        Ok(())
    }

    /// Writes the rows if any belong to this room.
    async fn write_of(&mut self, connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
        if self.room_ids.contains(room_id) { self.write(connection).await } else { Ok(()) }
    }
}

/// Stores events of one room, whose lock the transaction must hold. `events` must be [distinct](row::distinct).
/// `found`: the result of the [look-up](lookup), to which redactions among the events are added. A stored event is
/// changed only if this copy has a redaction, a position, a `prev_content` or content that the stored one lacks, or if
/// the stored one was imported.
/// Returns the number of new events, which the caller must count.
pub(super) async fn store(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    events: &[Placed<'_>],
    found: &mut Lookup,
) -> Result<usize, Error> {
    let mut derived = Derived::default();
    let new = store_all(connection, policy, room, events, found, None, &mut derived).await?;
    derived.write(connection).await?;
    Ok(new)
}

/// The same, but collects the rows of new events, and what the events change besides, in `rows`.
pub(super) async fn gather(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    events: &[Placed<'_>],
    found: &mut Lookup,
    rows: &mut NewRows,
) -> Result<usize, Error> {
    let mut derived = std::mem::take(&mut rows.derived);
    let new = store_all(connection, policy, room, events, found, Some(rows), &mut derived).await?;
    rows.derived = derived;
    Ok(new)
}

/// In this order: covers events of erased users, finds which events are redacted, inserts the new events (already
/// pruned if they are redacted), replaces imported ones, completes the stored ones, prunes stored targets of redactions, records the
/// redactions, and prunes `prev_content` that repeats redacted content. `gathered`: collects the rows of new events
/// there instead of inserting them.
async fn store_all(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    events: &[Placed<'_>],
    found: &mut Lookup,
    gathered: Option<&mut NewRows>,
    derived: &mut Derived,
) -> Result<usize, Error> {
    if events.is_empty() {
        return Ok(0);
    }
    let tombstones = Tombstones::of(&room.erased_users);
    let covered: Vec<_> = events.iter().map(|placed| tombstones.cover(room, placed.event)).collect();
    let events: Vec<Placed<'_>> = covered
        .iter()
        .zip(events)
        .map(|(event, placed)| Placed { event, position: placed.position })
        .collect();
    let all: Vec<&Event> = events.iter().map(|placed| placed.event).collect();
    imported::refute_redactions(connection, room, &all, &mut found.redactions).await?;
    let mut links = redaction::links(room, &all);
    for (target, redaction) in &links {
        // Of several redactions the first counts.
        found.redactions.entry((*target).to_owned()).or_insert_with(|| (*redaction).to_owned());
    }
    let edits = redaction::edits(connection, &room.room_id, &all, &links, &mut found.redactions).await?;
    links.extend(edits.iter().map(|(edit, redaction)| (edit.as_str(), redaction.as_str())));
    let Lookup { known, redactions, waiting_edits, .. } = &*found;
    let mut targets: HashSet<String> = links.iter().map(|(target, _)| (*target).to_owned()).collect();
    let (old, new): (Vec<&Placed<'_>>, Vec<&Placed<'_>>) =
        events.iter().partition(|placed| known.contains_key(&placed.event.event_id));
    targets
        .extend(all.iter().map(|event| &event.event_id).filter(|id| redactions.contains_key(*id)).cloned());
    // Redacted state events whose content may be repeated here as `prev_content`.
    let replaced = events.iter().filter_map(|placed| placed.event.replaced());
    let repeated: Vec<String> =
        replaced.filter(|event_id| redactions.contains_key(*event_id)).map(str::to_owned).collect();
    let is_live = gathered.is_some();
    let note = |stored: &Event, position: Option<i64>| {
        derived.note_new(room, stored, waiting_edits.contains(&stored.event_id));
        if let Some(position) = position {
            derived.note_placed(room, position, is_live);
        }
    };

    match gathered {
        Some(rows) => {
            rows.add(connection, room, &new, redactions, note).await?;
            // The following statements read these rows.
            if !targets.is_empty() || !repeated.is_empty() || !old.is_empty() {
                rows.write_of(connection, &room.room_id).await?;
            }
        }
        None => insert(connection, room, &new, redactions, note).await?,
    }
    let replaced = imported::give_way(connection, policy, room, &old, redactions, derived).await?;
    complete(connection, room, &old, known, derived).await?;
    let kept: Vec<&Placed<'_>> =
        old.iter().copied().filter(|placed| !replaced.contains(&placed.event.event_id)).collect();
    refill::replace_poorer(connection, room, &kept, known, redactions, derived).await?;

    let served = |placed: &&Placed<'_>| placed.event.uncommon().redacted_by.is_some();
    let served =
        old.iter().copied().filter(served).map(|placed| (placed.event.event_id.as_str(), placed.event));
    let is_new = |event_id: &String| new.iter().any(|placed| placed.event.event_id == *event_id);
    let stored_edits =
        edits.iter().map(|(edit, _)| edit).filter(|edit| !known.contains_key(*edit) && !is_new(edit));
    // Stored targets, whose recorded redactions are now applied or refused.
    let mut settled: Vec<_> =
        targets.iter().filter(|target| known.contains_key(*target)).chain(stored_edits).cloned().collect();
    let mut redacted =
        redaction::apply(connection, policy, room, &settled, &served.collect(), redactions, derived).await?;
    for event in new.iter().map(|placed| placed.event) {
        if !targets.remove(&event.event_id) {
            continue;
        }
        settled.push(event.event_id.clone());
        if event.state_key.is_some() {
            redacted.push(event.event_id.clone());
        }
    }
    redaction::record(connection, policy, room, &links, &settled).await?;
    redacted.extend(targets.into_iter().filter(|target| !known.contains_key(target)));
    redacted.extend(repeated);
    redaction::prune_repeats(connection, room, &redacted, derived).await?;
    redaction::keep_unnamed(connection, room, &all).await?;
    Ok(new.len())
}

/// Appends rows to the table with one binary `COPY`. `note` gets each event as it is stored.
async fn insert(
    connection: &mut PgConnection,
    room: &Room,
    events: &[&Placed<'_>],
    redactions: &Redactions,
    mut note: impl FnMut(&Event, Option<i64>),
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let mut copy = CopyIn::begin(connection, COPY).await?;
    for placed in events {
        copy.send_much().await?;
        note(&encode(&mut copy.rows, room, placed, redactions), placed.position);
    }
    copy.finish().await?;
    Ok(())
}

/// Encodes the row of an event, which is pruned if it was redacted. Returns the event as it is stored.
fn encode<'e>(rows: &mut Rows, room: &Room, placed: &Placed<'e>, redactions: &Redactions) -> Cow<'e, Event> {
    let pruned = redaction::redacted_copy(room, placed.event, redactions);
    let event = pruned.map_or(Cow::Borrowed(placed.event), Cow::Owned);
    let uncommon = event.uncommon();
    let target = event.redaction_target(room.room_version.as_deref()).or(uncommon.redacts.as_deref());
    rows.row(17);
    rows.text(Some(&room.room_id));
    rows.text(Some(&event.event_id));
    rows.int8(placed.position);
    rows.text(Some(&event.event_type));
    rows.text(Some(&event.sender));
    rows.text(event.state_key.as_deref());
    rows.int8(event.origin_server_ts);
    rows.jsonb(Some(&event.content));
    rows.text(target);
    rows.text(uncommon.redacted_by.as_deref());
    rows.text(event.replaces_state.as_deref());
    rows.jsonb(event.prev_content.as_deref());
    rows.text(uncommon.relates_to.as_deref());
    rows.text(uncommon.rel_type.as_deref());
    let is_in_thread = uncommon.rel_type.as_deref() == Some("m.thread");
    rows.text(uncommon.relates_to.as_deref().filter(|_| is_in_thread));
    rows.bytes(uncommon.raw.as_deref().map(str::as_bytes));
    rows.bytes(Some(&event.stable_sha256));
    event
}

/// Sets the position, or the `prev_content` with the id of its event, of stored events that lack them. An event from
/// a `state` section has neither.
async fn complete(
    connection: &mut PgConnection,
    room: &Room,
    events: &[&Placed<'_>],
    known: &KnownEvents,
    derived: &mut Derived,
) -> Result<(), Error> {
    let mut event_ids = Vec::new();
    let mut positions = Vec::new();
    let mut prev_contents = Vec::new();
    let mut replaced = Vec::new();
    for placed in events {
        let Some(stored) = known.get(&placed.event.event_id) else { continue };
        let position = placed.position.filter(|_| stored.position.is_none());
        let prev_content = placed.event.prev_content.clone().filter(|_| !stored.has_prev_content);
        if position.is_some() || prev_content.is_some() {
            derived.note_member(room, &placed.event.event_type, placed.event.state_key.as_deref());
            if let Some(position) = position {
                derived.note_placed(room, position, false);
            }
            event_ids.push(placed.event.event_id.clone());
            positions.push(position);
            replaced.push(placed.event.replaces_state.clone().filter(|_| prev_content.is_some()));
            prev_contents.push(prev_content);
        }
    }
    if event_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update archive.events e
         set position = coalesce(e.position, lacking.position),
             prev_content = coalesce(e.prev_content, lacking.prev_content::jsonb),
             replaces_state = coalesce(lacking.replaces_state, e.replaces_state)
         from unnest($2::text[], $3::bigint[], $4::text[], $5::text[])
             as lacking (event_id, position, prev_content, replaces_state)
         where e.room_id = $1 and e.event_id = lacking.event_id",
        room.room_id,
        &event_ids,
        positions.as_slice() as &[Option<i64>],
        prev_contents.as_slice() as &[Option<String>],
        replaced.as_slice() as &[Option<String>]
    )
    .execute(connection)
    .await?;
    Ok(())
}
