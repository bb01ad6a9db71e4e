//! Stores the state of a room, from `/state`.

use sqlx::PgConnection;

use crate::{
    archive::{
        Error, StateRequest, Writer,
        event::{
            self,
            lookup::{LookupScope, look_up},
            quarantine,
            row::with_positions,
        },
        redaction,
        room::{
            self, Room,
            current_state::{Cause, Pointers},
        },
        walk,
        writer::lock_room,
    },
    matrix::{Event, Events, room_state},
};

/// How many events of a state are looked up and stored at once. A room may have 100,000 members.
const EVENTS_AT_ONCE: usize = 5_000;

impl Writer {
    /// Replaces the current state by a `/state` response, which is a room's whole state. Returns false if nothing was
    /// changed, because a `/sync` response has reported the state since the request.
    pub(crate) async fn reconcile(
        &self,
        room_id: &str,
        request: &StateRequest<'_>,
        state: &Events,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, room_id).await?;
        let room = room::get(&mut transaction, room_id).await?;
        if !room.watched {
            // The room was paused or removed during the request.
            transaction.undo(None).await;
            return Ok(true);
        }
        if request.is_outdated() {
            transaction.undo(None).await;
            return Ok(false);
        }
        let mut known = room.clone();
        // The version is missing if the room's state could not be read when it was new.
        let create = state.events.iter().find(|event| event.is_state("m.room.create"));
        known.room_version = room.room_version.clone().or_else(|| create.map(room_state::declared_version));
        room::update(&mut transaction, &room, &known).await?;
        self.store_state(&mut transaction, &known, state, Cause::Reconcile).await?;
        room::set_stale(&mut transaction, room_id, false).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Stores the whole state of a room in the caller's transaction, and moves the pointers to it.
    pub(in crate::archive) async fn store_state(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        state: &Events,
        cause: Cause,
    ) -> Result<(), Error> {
        quarantine::keep(connection, self.policy(), room, &state.malformed).await?;
        let mut names_no_target = false;
        for events in state.events.chunks(EVENTS_AT_ONCE) {
            // In `/state`, servers include `prev_content` only sometimes, depending on their caches. It is removed, so
            // that the archive does not depend on the number of requests.
            let events: Vec<Event> = events
                .iter()
                .map(|event| Event { prev_content: None, ..event.clone() })
                .map(|event| event.with_uncommon(|it| it.unnamed_prev = None))
                .collect();
            // The whole history of a new room is walked anyway.
            names_no_target |= cause == Cause::Reconcile
                && redaction::state_names_no_target(connection, room, events.iter()).await?;
            self.store_unplaced(connection, room, &events).await?;
        }
        if names_no_target {
            walk::rewalk_now(connection, &room.room_id).await?;
        }
        let mut pointers = Pointers::load(connection, &room.room_id).await?;
        pointers.point(&state.events, cause);
        // An event that could not be read may be the current one of any key.
        if state.malformed.is_empty() {
            pointers.drop_unnamed(cause);
        }
        pointers.save(connection).await
    }

    /// Keeps a room's current state, because the server no longer returns it to this account. Returns false if a
    /// `/sync` response has reported the state since the request.
    pub(crate) async fn keep_state(&self, room_id: &str, request: &StateRequest<'_>) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, room_id).await?;
        if request.is_outdated() {
            transaction.undo(None).await;
            return Ok(false);
        }
        room::set_stale(&mut transaction, room_id, false).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Stores events of one room without giving them positions.
    pub(in crate::archive) async fn store_unplaced(
        &self,
        connection: &mut PgConnection,
        room: &Room,
        events: impl IntoIterator<Item = &Event>,
    ) -> Result<usize, Error> {
        let events = event::row::distinct(events);
        let mut found = look_up(connection, &room.room_id, &events, LookupScope::All, None).await?;
        let unplaced = with_positions(&events, &[]);
        let new = event::store(connection, self.policy(), room, &unplaced, &mut found).await?;
        room::count_events(connection, &room.room_id, new).await?;
        Ok(new)
    }
}
