//! Rooms of a `/sync` response that are stored together. What the archive has of them is loaded at once, and their
//! changes are collected and written at once. A round trip to the database takes a fraction of a millisecond, but an
//! account may be in ten thousand rooms.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use crate::{
    archive::{
        Error,
        event::{
            self, NewRows,
            lookup::{KnownEvents, Lookup, look_up_rooms},
            row::with_positions,
        },
        room::{
            Changes, Room,
            current_state::{self, Pointers},
        },
        walk::gap::{self, Top},
        writer::Writer,
    },
    matrix::{Event, RoomUpdate, room_update::state_events},
};

/// The loaded data of some rooms, whose locks the transaction holds, and the collected changes. Each room is in it
/// once.
#[derive(Debug, Default)]
pub(in crate::archive) struct Portion {
    found: foldhash::HashMap<String, Lookup>,
    tops: HashMap<String, Top>,
    pointers: HashMap<String, Pointers>,
    rows: NewRows,
    pub(in crate::archive) changes: Changes,
    moved: Vec<Pointers>,
}

impl Portion {
    /// Loads the data of the rooms. `made`: the rooms whose rows this transaction has inserted, which have no data yet.
    pub(in crate::archive) async fn load(
        connection: &mut PgConnection,
        update: &[(Room, &RoomUpdate)],
        made: &HashSet<&str>,
    ) -> Result<Self, Error> {
        let old = || update.iter().filter(|(room, _)| !made.contains(room.room_id.as_str()));
        let events = || {
            old().flat_map(|(room, update)| state_events(update).map(|event| (room.room_id.as_str(), event)))
        };
        let found = look_up_rooms(connection, events()).await?;
        let pointers = Pointers::load_for(connection, events()).await?;
        let room_ids: Vec<&str> = old().map(|(room, _)| room.room_id.as_str()).collect();
        let tops =
            if room_ids.is_empty() { HashMap::new() } else { gap::tops(connection, &room_ids).await? };
        Ok(Self { found, tops, pointers, ..Self::default() })
    }

    /// The look-up of the room's events in the response, including those that were stored meanwhile.
    pub(in crate::archive) fn found(&mut self, room_id: &str) -> &mut Lookup {
        self.found.entry(room_id.to_owned()).or_default()
    }

    /// The stored events among them.
    pub(in crate::archive) fn known(&mut self, room_id: &str) -> &KnownEvents {
        &self.found(room_id).known
    }

    /// The end of the room's timeline before the response.
    pub(in crate::archive) fn top(&mut self, room_id: &str) -> Top {
        self.tops.remove(room_id).unwrap_or_default()
    }

    /// The pointers of the state keys that the response contains.
    pub(in crate::archive) fn pointers(&mut self, room_id: &str) -> Pointers {
        self.pointers.remove(room_id).unwrap_or_else(|| Pointers::none(room_id))
    }

    /// Collects the moves of the pointers.
    pub(in crate::archive) fn moved(&mut self, pointers: Pointers) {
        if pointers.have_moved() {
            self.moved.push(pointers);
        }
    }

    /// Writes the collected changes.
    pub(in crate::archive) async fn write(mut self, connection: &mut PgConnection) -> Result<(), Error> {
        self.rows.finish(connection).await?;
        current_state::save_all(connection, &self.moved).await?;
        self.changes.write(connection).await
    }
}

impl Writer {
    /// Stores events of a room as [`event::store`] does, and counts them.
    pub(in crate::archive) async fn gather(
        &self,
        connection: &mut PgConnection,
        portion: &mut Portion,
        room: &Room,
        events: &[&Event],
        positions: &[Option<i64>],
    ) -> Result<usize, Error> {
        let found = portion.found.entry(room.room_id.clone()).or_default();
        let placed = with_positions(events, positions);
        let new = event::gather(connection, self.policy(), room, &placed, found, &mut portion.rows).await?;
        portion.changes.count(room, new);
        Ok(new)
    }
}
