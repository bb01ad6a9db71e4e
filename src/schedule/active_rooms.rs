//! The rooms in which `/sync` has reported events in the last seconds.
//!
//! A live event waits while a page of the same room is being stored, so pages of an active room are short. It shares
//! the processors with the pages of other rooms, so fewer pages are stored at once while any room is active.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ruma::{OwnedRoomId, RoomId};

/// How long after its last event a room counts as active.
const LASTING: Duration = Duration::from_secs(10);

/// When `/sync` last reported an event, by room.
#[derive(Debug, Default)]
pub(crate) struct ActiveRooms(Mutex<HashMap<OwnedRoomId, Instant>>);

impl ActiveRooms {
    /// Records that `/sync` has just reported events in `rooms`.
    pub(crate) fn mark<'r>(&self, rooms: impl Iterator<Item = &'r RoomId>) {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.duration_since(*at) < LASTING);
        last.extend(rooms.map(|room_id| (room_id.to_owned(), now)));
    }

    /// Whether the room is active.
    pub(crate) fn is_active(&self, room_id: &RoomId) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(room_id).is_some_and(|at| at.elapsed() < LASTING)
    }

    /// Whether any room is active.
    pub(crate) fn is_anywhere(&self) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.values().any(|at| at.elapsed() < LASTING)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_room_is_active_for_a_while() {
        let active_rooms = ActiveRooms::default();
        active_rooms.mark([room_id!("!talk:hs"), room_id!("!old:hs")].into_iter());
        assert!(active_rooms.is_active(room_id!("!talk:hs")));
        assert!(!active_rooms.is_active(room_id!("!quiet:hs")) && active_rooms.is_anywhere());
        let long_ago = Instant::now().checked_sub(LASTING).expect("the machine runs for longer");
        active_rooms.0.lock().expect("no panic").insert(room_id!("!old:hs").to_owned(), long_ago);
        assert!(!active_rooms.is_active(room_id!("!old:hs")));
        active_rooms.mark(std::iter::empty());
        assert_eq!(active_rooms.0.lock().expect("no panic").len(), 1, "what is old is forgotten");
    }
}
