//! Rooms of a `/sync` response that are stored together: what the archive has of them is loaded at once, and what is the same
//! for each is gathered and written at once. An exchange with the database is a small part of a millisecond, but there are
//! accounts in ten thousand rooms.

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
    matrix::{Event, RoomBatch, room_update::state_events},
};

/// What is known of some rooms, whose locks the transaction holds, and what is to be written of them. No room is in it twice.
#[derive(Debug, Default)]
pub(in crate::archive) struct Portion {
    found: foldhash::HashMap<i32, Lookup>,
    tops: HashMap<i32, Top>,
    pointers: HashMap<i32, Pointers>,
    rows: NewRows,
    pub(in crate::archive) changes: Changes,
    moved: Vec<Pointers>,
}

impl Portion {
    /// Loads what is there of the rooms. `made`: the rooms whose rows this transaction has made, of which there is nothing.
    pub(in crate::archive) async fn load(
        connection: &mut PgConnection,
        update: &[(Room, &RoomBatch)],
        made: &HashSet<i32>,
    ) -> Result<Self, Error> {
        let old = || update.iter().filter(|(room, _)| !made.contains(&room.room_key));
        let events =
            || old().flat_map(|(room, update)| state_events(update).map(|event| (room.room_key, event)));
        let found = look_up_rooms(connection, events()).await?;
        let pointers = Pointers::load_for(connection, events()).await?;
        let room_keys: Vec<i32> = old().map(|(room, _)| room.room_key).collect();
        let tops =
            if room_keys.is_empty() { HashMap::new() } else { gap::tops(connection, &room_keys).await? };
        Ok(Self { found, tops, pointers, ..Self::default() })
    }

    /// What was known of the events that the response has of the room, or is stored by now.
    pub(in crate::archive) fn found(&mut self, room_key: i32) -> &mut Lookup {
        self.found.entry(room_key).or_default()
    }

    /// Those of them that are stored.
    pub(in crate::archive) fn known(&mut self, room_key: i32) -> &KnownEvents {
        &self.found(room_key).known
    }

    /// Where the room's timeline ended before the response.
    pub(in crate::archive) fn top(&mut self, room_key: i32) -> Top {
        self.tops.remove(&room_key).unwrap_or_default()
    }

    /// Where the state keys pointed that the response names.
    pub(in crate::archive) fn pointers(&mut self, room_key: i32) -> Pointers {
        self.pointers.remove(&room_key).unwrap_or_else(|| Pointers::none(room_key))
    }

    /// Has the moves written.
    pub(in crate::archive) fn moved(&mut self, pointers: Pointers) {
        if pointers.have_moved() {
            self.moved.push(pointers);
        }
    }

    /// Writes what was gathered.
    pub(in crate::archive) async fn write(mut self, connection: &mut PgConnection) -> Result<(), Error> {
        self.rows.write(connection).await?;
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
        let found = portion.found.entry(room.room_key).or_default();
        let placed = with_positions(events, positions);
        let new = event::gather(connection, self.policy(), room, &placed, found, &mut portion.rows).await?;
        portion.changes.count(room, new);
        Ok(new)
    }
}
