//! Stores events from files of other programs, for `backscroll import --from`.
//!
//! Nobody vouches for such a file, so an imported event is never above the homeserver's word: it is marked in
//! `archive.imported_events`, changes no event that the homeserver gave, moves no current state, and gives way to the
//! homeserver's copy (`event/imported.rs`). Otherwise it is stored as a walk would store it: newest first,
//! each portion in one transaction, between the neighbours that the archive knows. So an interrupted import
//! can be run again.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{
    Error, HistoryState, Writer,
    column::text_column,
    erasure::filter,
    event::{
        self,
        lookup::{Lookup, LookupScope, look_up},
        quarantine,
        row::{Placed, distinct},
    },
    redaction,
    room::{self, Room},
    timeline::{
        neighbours::{self, walk_down},
        position::Place,
    },
};
use crate::matrix::{Event, Events, Membership, redact, room_state::declared_version};

/// What wrote a file; stored in `archive.imported_events.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// An export of another archive.
    BackscrollExport,
    /// The command `export-data` of Synapse.
    SynapseExport,
    /// "Export chat" of Element, as JSON.
    ElementJson,
    /// The database of gomuks.
    Gomuks,
}

text_column!(ImportSource {
    BackscrollExport = "backscroll-export",
    SynapseExport = "synapse-export",
    ElementJson = "element-json",
    Gomuks = "gomuks",
});

/// A room that is being imported.
#[derive(Clone, Debug)]
pub(crate) struct RoomImport {
    /// The room.
    pub(crate) room_id: String,
    source: ImportSource,
    /// The version, from the create event.
    pub(crate) room_version: Option<String>,
    /// Whether the archive has a timeline of the room.
    pub(crate) has_timeline: bool,
    /// The position of the last event passed. `None`: nothing shows where the events belong.
    upper: Option<i64>,
}

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    /// New events.
    pub(crate) stored: usize,
    /// Events that cannot be read, or that contradict the homeserver.
    pub(crate) set_aside: usize,
}

impl Writer {
    /// Begins to import a room, whose row is created if it is new. `room_version`: what the file says.
    /// `None`: the room was erased.
    pub(crate) async fn begin_import(
        &self,
        source: ImportSource,
        room_id: &str,
        room_version: Option<&str>,
    ) -> Result<Option<RoomImport>, Error> {
        let mut transaction = self.begin().await?;
        if filter::is_erased(&mut transaction, room_id).await? {
            transaction.undo(None).await;
            return Ok(None);
        }
        let before = match room::find(&mut transaction, room_id).await? {
            Some(room) => room,
            // A user who was never in a room counts as having left it (specification, "Room membership").
            None => room::create(&mut transaction, room_id, Membership::Leave).await?,
        };
        let mut room = before.clone();
        room.room_version = before.room_version.clone().or_else(|| room_version.map(str::to_owned));
        room::update(&mut transaction, &before, &room).await?;
        let upper = match room.history_state {
            HistoryState::Complete => None,
            _ => Some(neighbours::lowest(&mut transaction, room_id).await?),
        };
        let has_timeline = has_timeline(&mut transaction, room_id).await?;
        transaction.commit().await?;
        let (room_id, room_version) = (room_id.to_owned(), room.room_version);
        Ok(Some(RoomImport { room_id, source, room_version, has_timeline, upper }))
    }

    /// Looks for the first of these events, newest first, that has a place in the archive. The import then
    /// begins just above it. Returns whether there is one.
    pub(crate) async fn begin_import_above(
        &self,
        room: &mut RoomImport,
        events: &Events,
    ) -> Result<bool, Error> {
        let event_ids: Vec<&str> = events.events.iter().map(|event| event.event_id.as_str()).collect();
        let mut transaction = self.begin().await?;
        let position = sqlx::query_scalar!(
            r#"select e.position as "position!"
               from unnest($2::text[]) with ordinality as asked (event_id, place)
               cross join lateral (
                   select position from archive.events e
                   where e.room_id = $1 and e.event_id = asked.event_id and e.position is not null
                   limit 1
               ) e
               order by asked.place limit 1"#,
            room.room_id,
            &event_ids as &[&str]
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(position) = position {
            room.upper = Some(neighbours::above(&mut transaction, &room.room_id, position).await?);
        }
        transaction.commit().await?;
        Ok(position.is_some())
    }

    /// Stores a portion of the room's events, newest first, in one transaction. `in_timeline`: they follow
    /// each other in the room, below what was imported before. Otherwise they get no positions.
    pub(crate) async fn import(
        &self,
        room: &mut RoomImport,
        portion: &Events,
        in_timeline: bool,
    ) -> Result<Imported, Error> {
        let mut transaction = self.begin_in_room(&room.room_id).await?;
        match self.store_imported(&mut transaction, room, portion, in_timeline).await {
            Ok((imported, upper)) => {
                transaction.commit().await?;
                room.upper = upper;
                Ok(imported)
            }
            Err(error) => {
                transaction.undo(Some(&error)).await;
                Err(error)
            }
        }
    }

    /// The same in the caller's transaction. Also returns the position of the last event passed.
    async fn store_imported(
        &self,
        connection: &mut PgConnection,
        at: &RoomImport,
        portion: &Events,
        in_timeline: bool,
    ) -> Result<(Imported, Option<i64>), Error> {
        // An imported copy replaces no other one.
        let room = Room { has_imports: false, ..room::get(connection, &at.room_id).await? };
        quarantine::keep(connection, self.policy(), &room, &portion.malformed).await?;
        let cleaned: Vec<Event> = portion.events.iter().map(|event| clean(&room, event)).collect();
        let mut events = distinct(&cleaned);
        let mut found = look_up(connection, &room.room_id, &events, LookupScope::All, None).await?;
        let against = contradictions(connection, &room, &events, &found).await?;
        events.retain(|event| !against.contains(&event.event_id));
        let placeable = placeable(connection, &room.room_id, &events, &found).await?;
        let position = |event: &Event| found.known.get(&event.event_id).and_then(|known| known.position);
        // An event that the homeserver gave and that has no place gets none from a file.
        events.retain(|event| position(event).is_some() || placeable.contains(&event.event_id));
        let places: Vec<Place> =
            events.iter().map(|event| position(event).map_or(Place::Unplaced, Place::At)).collect();
        let (mut positions, mut upper) = (vec![None; events.len()], at.upper);
        if let Some(passed) = at.upper.filter(|_| in_timeline) {
            let placement = walk_down(connection, &room.room_id, passed, &places, None).await?;
            (positions, upper) = (placement.positions, Some(placement.upper));
        }
        let chosen: Vec<Placed<'_>> = events
            .iter()
            .zip(positions)
            .filter(|(event, _)| placeable.contains(&event.event_id))
            .map(|(event, position)| Placed { event, position })
            .collect();
        let is_new = |placed: &&Placed<'_>| !found.known.contains_key(&placed.event.event_id);
        let new: Vec<String> =
            chosen.iter().filter(is_new).map(|placed| placed.event.event_id.clone()).collect();
        let stored = event::store(connection, self.policy(), &room, &chosen, &mut found).await?;
        room::count_events(connection, &room.room_id, stored).await?;
        mark(connection, at, &new).await?;
        let set_aside = portion.malformed.len() + against.len();
        Ok((Imported { stored, set_aside }, upper))
    }
}

/// The event without what only the homeserver says about other events. A redacted event has nothing left that
/// a redaction removes, whatever the file has of it.
fn clean(room: &Room, event: &Event) -> Event {
    let event = Event { prev_content: None, maybe_edited_in_place: false, ..event.clone() };
    let event = event.with_uncommon(|it| it.unnamed_prev = None);
    let redacted_by = event.uncommon().redacted_by.clone();
    if redacted_by.is_none() || event.event_type == "m.room.create" {
        return event;
    }
    let pruned = redact::pruned(&room.room_id, room.room_version.as_deref(), &event);
    pruned.with_uncommon(|it| it.redacted_by = redacted_by)
}

async fn has_timeline(connection: &mut PgConnection, room_id: &str) -> Result<bool, Error> {
    let has_timeline = sqlx::query_scalar!(
        r#"select exists (
               select from archive.events where room_id = $1 and position is not null) as "has_timeline!""#,
        room_id
    );
    Ok(has_timeline.fetch_one(connection).await?)
}

/// The events that may get a place: new ones, and those that were imported before without one.
async fn placeable(
    connection: &mut PgConnection,
    room_id: &str,
    events: &[&Event],
    found: &Lookup,
) -> Result<HashSet<String>, Error> {
    let ids = || events.iter().map(|event| event.event_id.as_str());
    let is_unplaced =
        |event_id: &&str| found.known.get(*event_id).is_some_and(|known| known.position.is_none());
    let unplaced: Vec<&str> = ids().filter(is_unplaced).collect();
    let mut placeable: HashSet<String> =
        ids().filter(|event_id| !found.known.contains_key(*event_id)).map(str::to_owned).collect();
    if !unplaced.is_empty() {
        let imported = sqlx::query_scalar!(
            "select event_id from archive.imported_events where room_id = $1 and event_id = any($2)",
            room_id,
            &unplaced as &[&str]
        );
        placeable.extend(imported.fetch_all(connection).await?);
    }
    Ok(placeable)
}

/// The new events that contradict the homeserver:
///
/// * a redaction of an event that the homeserver gave in full, and a redacted event of which it gave an edit in full,
/// * a state event whose content it has repeated otherwise,
/// * a create event of another room version.
async fn contradictions(
    connection: &mut PgConnection,
    room: &Room,
    events: &[&Event],
    found: &Lookup,
) -> Result<HashSet<String>, Error> {
    let new: Vec<&Event> =
        events.iter().copied().filter(|event| !found.known.contains_key(&event.event_id)).collect();
    let is_other = |event: &&&Event| {
        event.is_state("m.room.create") && Some(declared_version(event)) != room.room_version
    };
    let mut against: HashSet<String> = new.iter().filter(is_other).map(|it| it.event_id.clone()).collect();
    against.extend(redacting_known(connection, room, &new).await?);
    against.extend(repeated_otherwise(connection, room, &new).await?);
    Ok(against)
}

async fn redacting_known(
    connection: &mut PgConnection,
    room: &Room,
    new: &[&Event],
) -> Result<Vec<String>, Error> {
    let links = redaction::links(room, new);
    if links.is_empty() {
        return Ok(Vec::new());
    }
    // Of a redacted event, the event itself is against the homeserver; the redaction may be unknown.
    let is_new = |event_id: &str| new.iter().any(|event| event.event_id == event_id);
    let by = |(target, redaction): &(&'_ str, &'_ str)| {
        if is_new(target) { (*target).to_owned() } else { (*redaction).to_owned() }
    };
    let makers: Vec<String> = links.iter().map(by).collect();
    let targets: Vec<&str> = links.iter().map(|(target, _)| *target).collect();
    let against = sqlx::query_scalar!(
        r#"select asked.maker as "maker!"
           from unnest($2::text[], $3::text[]) as asked (target, maker)
           cross join lateral (
               select known.event_id from (
                   (select e.event_id from archive.events e
                    where e.room_id = $1 and e.event_id = asked.target and e.redacted_by is null
                      and e.type <> 'm.room.create')
                   union all
                   (select e.event_id from archive.events e
                    where e.room_id = $1 and e.relates_to = asked.target and e.rel_type = 'm.replace'
                      and e.state_key is null and e.redacted_by is null)
                   union all
                   (select e.event_id from archive.events e
                    where e.room_id = $1 and e.replaces_state = asked.target and e.prev_content is not null)
               ) known
               where not exists (select from archive.imported_events i
                                 where i.room_id = $1 and i.event_id = known.event_id)
               limit 1
           ) as known"#,
        room.room_id,
        &targets as &[&str],
        &makers
    );
    Ok(against.fetch_all(connection).await?)
}

async fn repeated_otherwise(
    connection: &mut PgConnection,
    room: &Room,
    new: &[&Event],
) -> Result<Vec<String>, Error> {
    let state: Vec<&Event> = new.iter().copied().filter(|event| event.state_key.is_some()).collect();
    if state.is_empty() {
        return Ok(Vec::new());
    }
    let event_ids: Vec<&str> = state.iter().map(|event| event.event_id.as_str()).collect();
    let contents: Vec<&str> = state.iter().map(|event| event.content.as_str()).collect();
    let against = sqlx::query_scalar!(
        r#"select asked.event_id as "event_id!"
           from unnest($2::text[], $3::text[]) as asked (event_id, content)
           cross join lateral (
               select e.event_id from archive.events e
               where e.room_id = $1 and e.replaces_state = asked.event_id and e.prev_content is not null
                 and e.prev_content <> asked.content::jsonb
               limit 1
           ) as repeat"#,
        room.room_id,
        &event_ids as &[&str],
        &contents as &[&str]
    );
    Ok(against.fetch_all(connection).await?)
}

async fn mark(connection: &mut PgConnection, at: &RoomImport, event_ids: &[String]) -> Result<(), Error> {
    if event_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into archive.imported_events (room_id, event_id, source)
         select $1, event_id, $3 from unnest($2::text[]) as event_id",
        at.room_id,
        event_ids,
        at.source as _
    )
    .execute(connection)
    .await?;
    Ok(())
}
