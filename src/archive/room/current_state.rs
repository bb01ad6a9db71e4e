//! The current state of a room, and the log of its changes.
//!
//! Each (type, state key) of a room points at the current state event. Invariant: only `/sync` and `/state` move a
//! pointer, never a page of history. A pointer may move back to an older event (P162).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::members;
use crate::{
    archive::{Error, column::text_column},
    matrix::Event,
};

/// How many rows are sent to the database at once. A room may have 100,000 members.
const ROWS_AT_ONCE: usize = 5_000;

/// A type and a state key. The map and the moves share it, to save memory.
type Key = Arc<(String, String)>;

/// The event that a key points at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pointer {
    event_id: Arc<str>,
    origin_server_ts: Option<i64>,
    /// Whether an event of the response has this type and state key.
    named: bool,
}

impl Pointer {
    fn stored(event_id: String, origin_server_ts: Option<i64>) -> Self {
        Self { event_id: event_id.into(), origin_server_ts, named: false }
    }
}

/// The report of the server that moved a pointer. Stored with the move, in `archive.state_changes.cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The first whole state of a room that the archive has stored, from `/sync` or `/state`.
    Bootstrap,
    /// `state` of a `/sync` response: up to its timeline's start.
    State,
    /// A state event in the timeline of a `/sync` response without `state_after`.
    Timeline,
    /// `state_after` of a `/sync` response: up to its timeline's end.
    StateAfter,
    /// The room's whole state from `/state`, requested because the archive's was stale.
    Reconcile,
}

text_column!(Cause {
    Bootstrap = "bootstrap",
    State = "state",
    Timeline = "timeline",
    StateAfter = "state_after",
    Reconcile = "reconcile",
});

/// The pointers of a room that a response may move, and the moves so far.
#[derive(Debug)]
pub(in crate::archive) struct Pointers {
    room_id: String,
    current: BTreeMap<Key, Pointer>,
    moves: Vec<Move>,
    needs_comparison: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Move {
    key: Key,
    old: Option<Arc<str>>,
    new: Option<Arc<str>>,
    cause: Cause,
}

impl Pointers {
    /// Loads all pointers of the room.
    pub(in crate::archive) async fn load(
        connection: &mut PgConnection,
        room_id: &str,
    ) -> Result<Self, Error> {
        let mut rows = sqlx::query!(
            "select type as event_type, state_key, event_id from archive.current_state where room_id = $1",
            room_id
        )
        .fetch(connection);
        let mut current = BTreeMap::new();
        while let Some(row) = rows.try_next().await? {
            current.insert(Arc::new((row.event_type, row.state_key)), Pointer::stored(row.event_id, None));
        }
        Ok(Self::new(room_id, current))
    }

    /// Loads the pointers that the events of a response may move, for each room.
    pub(in crate::archive) async fn load_for<'e>(
        connection: &mut PgConnection,
        events: impl Iterator<Item = (&'e str, &'e Event)>,
    ) -> Result<HashMap<String, Self>, Error> {
        let named: BTreeSet<(&str, &str, &str)> = events
            .filter_map(|(room_id, event)| {
                Some((room_id, event.event_type.as_str(), event.state_key.as_deref()?))
            })
            .collect();
        let mut rooms: HashMap<String, Self> = HashMap::new();
        if named.is_empty() {
            return Ok(rooms);
        }
        let room_ids: Vec<&str> = named.iter().map(|(room_id, ..)| *room_id).collect();
        let types: Vec<&str> = named.iter().map(|(_, event_type, _)| *event_type).collect();
        let state_keys: Vec<&str> = named.iter().map(|(.., state_key)| *state_key).collect();
        let rows = sqlx::query!(
            r#"select room_id as "room_id!", type as "event_type!", state_key as "state_key!", event_id as "event_id!",
                      origin_server_ts
               from archive.pointers_of($1, $2, $3)"#,
            &room_ids as &[&str],
            &types as &[&str],
            &state_keys as &[&str]
        )
        .fetch_all(connection)
        .await?;
        for row in rows {
            let pointer = Pointer::stored(row.event_id, row.origin_server_ts);
            let room = rooms.entry(row.room_id).or_insert_with_key(|room_id| Self::none(room_id));
            room.current.insert(Arc::new((row.event_type, row.state_key)), pointer);
        }
        Ok(rooms)
    }

    /// A room without any pointers.
    pub(in crate::archive) fn none(room_id: &str) -> Self {
        Self::new(room_id, BTreeMap::new())
    }

    fn new(room_id: &str, current: BTreeMap<Key, Pointer>) -> Self {
        Self { room_id: room_id.to_owned(), current, moves: Vec::new(), needs_comparison: false }
    }

    /// Moves the pointers to the state events, in order.
    pub(in crate::archive) fn point<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
        cause: Cause,
    ) {
        for event in events {
            let Some(key) = key(event) else { continue };
            let pointer = Pointer {
                event_id: event.event_id.as_str().into(),
                origin_server_ts: event.origin_server_ts,
                named: true,
            };
            self.set(&key, Some(pointer), cause);
        }
    }

    /// The same for a timeline. Its events need not be the current state, see [`may_have_lost`].
    pub(in crate::archive) fn follow<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a Event>,
        cause: Cause,
    ) {
        for event in events {
            let Some(key) = key(event) else { continue };
            self.needs_comparison |= may_have_lost(event, self.current.get(&key));
            self.point([event], cause);
        }
    }

    /// Whether any pointer has moved.
    pub(in crate::archive) fn have_moved(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Whether a pointer has moved to an event that did not replace the old one, according to `events`. Then the
    /// report that moved it may be older than the one before.
    pub(in crate::archive) fn may_have_gone_back<'a>(&self, events: impl Iterator<Item = &'a Event>) -> bool {
        let replaced: HashMap<&str, &str> = events
            .filter_map(|event| Some((event.event_id.as_str(), event.replaces_state.as_deref()?)))
            .collect();
        let replaced = |new: &Option<Arc<str>>| new.as_deref().and_then(|new| replaced.get(new).copied());
        self.moves.iter().any(|change| replaced(&change.new) != change.old.as_deref())
    }

    /// Whether a pointer points at `event`.
    pub(in crate::archive) fn points_at(&self, event: &Event) -> bool {
        let pointer = key(event).and_then(|key| self.current.get(&key));
        pointer.is_some_and(|pointer| *pointer.event_id == *event.event_id)
    }

    /// Removes the pointers that no event has moved or confirmed. Call it after the room's whole state.
    pub(in crate::archive) fn drop_unnamed(&mut self, cause: Cause) {
        let unnamed = self.current.iter().filter(|(_, pointer)| !pointer.named);
        let unnamed: Vec<Key> = unnamed.map(|(key, _)| Arc::clone(key)).collect();
        for key in unnamed {
            self.set(&key, None, cause);
        }
    }

    /// Whether the state must be compared with the server's.
    pub(in crate::archive) fn needs_comparison(&self) -> bool {
        self.needs_comparison
    }

    fn set(&mut self, key: &Key, new: Option<Pointer>, cause: Cause) {
        let new_id = new.as_ref().map(|new| Arc::clone(&new.event_id));
        let old = match new {
            Some(new) => self.current.insert(Arc::clone(key), new),
            None => self.current.remove(key),
        };
        let old_id = old.map(|old| old.event_id);
        if old_id != new_id {
            self.moves.push(Move { key: Arc::clone(key), old: old_id, new: new_id, cause });
        }
    }

    /// Writes the moves.
    pub(in crate::archive) async fn save(self, connection: &mut PgConnection) -> Result<(), Error> {
        save_all(connection, &[self]).await
    }
}

/// Writes the moves of several rooms.
pub(in crate::archive) async fn save_all(
    connection: &mut PgConnection,
    rooms: &[Pointers],
) -> Result<(), Error> {
    if !rooms.iter().any(Pointers::have_moved) {
        return Ok(());
    }
    let moves = rooms.iter().flat_map(|room| room.moves.iter().map(|change| (room.room_id.as_str(), change)));
    let moves: Vec<(&str, &Move)> = moves.collect();
    for moves in moves.chunks(ROWS_AT_ONCE) {
        log(connection, moves).await?;
    }
    let (mut set, mut gone) = (Vec::new(), Vec::new());
    for room in rooms {
        let keys: BTreeSet<&Key> = room.moves.iter().map(|change| &change.key).collect();
        for key in keys {
            match room.current.get(key) {
                Some(pointer) => set.push((room.room_id.as_str(), key, &*pointer.event_id)),
                None => gone.push((room.room_id.as_str(), key)),
            }
        }
    }
    for gone in gone.chunks(ROWS_AT_ONCE) {
        delete(connection, gone).await?;
    }
    for set in set.chunks(ROWS_AT_ONCE) {
        upsert(connection, set).await?;
    }
    for room in rooms {
        let members: BTreeSet<&str> = room
            .moves
            .iter()
            .filter(|change| change.key.0 == "m.room.member")
            .map(|change| change.key.1.as_str())
            .collect();
        let members: Vec<&str> = members.into_iter().collect();
        members::refresh(connection, &room.room_id, &members).await?;
    }
    Ok(())
}

async fn delete(connection: &mut PgConnection, gone: &[(&str, &Key)]) -> Result<(), Error> {
    let room_ids: Vec<&str> = gone.iter().map(|(room_id, _)| *room_id).collect();
    let types: Vec<&str> = gone.iter().map(|(_, key)| key.0.as_str()).collect();
    let state_keys: Vec<&str> = gone.iter().map(|(_, key)| key.1.as_str()).collect();
    sqlx::query!(
        "delete from archive.current_state c
         using unnest($1::text[], $2::text[], $3::text[]) as gone (room_id, type, state_key)
         where c.room_id = gone.room_id and c.type = gone.type and c.state_key = gone.state_key",
        &room_ids as &[&str],
        &types as &[&str],
        &state_keys as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn upsert(connection: &mut PgConnection, set: &[(&str, &Key, &str)]) -> Result<(), Error> {
    let room_ids: Vec<&str> = set.iter().map(|(room_id, ..)| *room_id).collect();
    let types: Vec<&str> = set.iter().map(|(_, key, _)| key.0.as_str()).collect();
    let state_keys: Vec<&str> = set.iter().map(|(_, key, _)| key.1.as_str()).collect();
    let event_ids: Vec<&str> = set.iter().map(|(.., event_id)| *event_id).collect();
    sqlx::query!(
        "insert into archive.current_state as c (room_id, type, state_key, event_id)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::text[])
         on conflict (room_id, type, state_key) do update
             set event_id = excluded.event_id, changed_at = excluded.changed_at
             where c.event_id <> excluded.event_id",
        &room_ids as &[&str],
        &types as &[&str],
        &state_keys as &[&str],
        &event_ids as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn log(connection: &mut PgConnection, moves: &[(&str, &Move)]) -> Result<(), Error> {
    let room_ids: Vec<&str> = moves.iter().map(|(room_id, _)| *room_id).collect();
    let types: Vec<&str> = moves.iter().map(|(_, change)| change.key.0.as_str()).collect();
    let state_keys: Vec<&str> = moves.iter().map(|(_, change)| change.key.1.as_str()).collect();
    let old: Vec<Option<&str>> = moves.iter().map(|(_, change)| change.old.as_deref()).collect();
    let new: Vec<Option<&str>> = moves.iter().map(|(_, change)| change.new.as_deref()).collect();
    let causes: Vec<Cause> = moves.iter().map(|(_, change)| change.cause).collect();
    sqlx::query!(
        "insert into archive.state_changes (room_id, type, state_key, old_event_id, new_event_id, cause)
         select change.room_id, change.type, change.state_key, change.old, change.new, change.cause
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             with ordinality as change (room_id, type, state_key, old, new, cause, place)
         order by change.place",
        &room_ids as &[&str],
        &types as &[&str],
        &state_keys as &[&str],
        old.as_slice() as &[Option<&str>],
        new.as_slice() as &[Option<&str>],
        &causes as &[Cause]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a timeline's event may not be the current state, where `old` is current. This is possible in two cases:
///
/// * It replaced another event than `old`, or none. Its branch may have lost state resolution (P86), or it is late.
/// * Its `origin_server_ts` is not greater than that of the event that it replaced. That event may win, because state
///   resolution applies the older of two branches first (specification, "Room Version 2", mainline ordering).
fn may_have_lost(event: &Event, old: Option<&Pointer>) -> bool {
    let Some(old) = old else { return event.replaces_state.is_some() };
    let younger = event.origin_server_ts.zip(old.origin_server_ts).is_some_and(|(new, old)| new > old);
    let replaces_old = event.replaces_state.as_deref() == Some(&*old.event_id);
    *old.event_id != *event.event_id && (!replaces_old || !younger)
}

fn key(event: &Event) -> Option<Key> {
    Some(Arc::new((event.event_type.clone(), event.state_key.clone()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(event_id: &str, replaces: Option<&str>) -> Event {
        Event {
            event_id: event_id.to_owned(),
            event_type: "m.room.topic".to_owned(),
            state_key: Some(String::new()),
            replaces_state: replaces.map(str::to_owned),
            origin_server_ts: Some(2),
            ..Event::default()
        }
    }

    fn pointers(event_id: &str) -> Pointers {
        let key = Arc::new(("m.room.topic".to_owned(), String::new()));
        let pointer = Pointer::stored(event_id.to_owned(), Some(1));
        Pointers::new("!r:hs", BTreeMap::from([(key, pointer)]))
    }

    #[test]
    fn a_pointer_may_move_back() {
        let mut pointers = pointers("$2");
        pointers.point([&topic("$1", None)], Cause::State);
        let [moved] = pointers.moves.as_slice() else { panic!("one move") };
        assert_eq!((moved.old.as_deref(), moved.new.as_deref()), (Some("$2"), Some("$1")));
        assert!(!pointers.needs_comparison());
    }

    #[test]
    fn only_what_replaced_the_event_in_force_is_newer_for_sure() {
        for (replaces, may_have) in [(None, true), (Some("$1"), true), (Some("$2"), false)] {
            let (mut pointers, event) = (pointers("$2"), topic("$3", replaces));
            pointers.point([&event], Cause::StateAfter);
            assert_eq!(pointers.may_have_gone_back([&event].into_iter()), may_have, "{replaces:?}");
        }
    }

    #[test]
    fn what_is_in_force_already_is_no_move() {
        let mut pointers = pointers("$2");
        pointers.follow([&topic("$2", Some("$1"))], Cause::Timeline);
        assert!(pointers.moves.is_empty() && !pointers.needs_comparison());
    }

    #[test]
    fn a_fork_is_suspicious() {
        let mut forked = pointers("$2");
        forked.follow([&topic("$3", Some("$1"))], Cause::Timeline);
        assert!(forked.needs_comparison());
        let mut plain = pointers("$2");
        plain.follow([&topic("$3", Some("$2"))], Cause::Timeline);
        assert!(!plain.needs_comparison());
    }

    #[test]
    fn a_successor_that_claims_to_be_older_is_suspicious() {
        let mut skewed = pointers("$2");
        skewed.follow([&Event { origin_server_ts: Some(1), ..topic("$3", Some("$2")) }], Cause::Timeline);
        assert!(skewed.needs_comparison());
    }

    #[test]
    fn what_a_whole_state_does_not_name_is_gone() {
        let mut pointers = pointers("$2");
        pointers.drop_unnamed(Cause::Reconcile);
        assert_eq!(pointers.moves.len(), 1);
        assert!(pointers.current.is_empty());
    }
}
