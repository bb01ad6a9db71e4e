//! Which rooms people talk in now: what `/sync` tells of them waits for the page in hand of the same room, so that is to be
//! a short one, and shares the processors with the pages of the others, so these are to be few.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ruma::{OwnedRoomId, RoomId};

/// How long after its last event a room counts as lively.
const LASTING: Duration = Duration::from_secs(10);

/// When `/sync` has last told of an event, by room.
#[derive(Debug, Default)]
pub struct Lively(Mutex<HashMap<OwnedRoomId, Instant>>);

impl Lively {
    /// Notes that `/sync` tells of events in `rooms` now.
    pub fn told<'r>(&self, rooms: impl Iterator<Item = &'r RoomId>) {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.duration_since(*at) < LASTING);
        last.extend(rooms.map(|room_id| (room_id.to_owned(), now)));
    }

    /// Whether people talk in the room.
    pub fn is_lively(&self, room_id: &RoomId) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(room_id).is_some_and(|at| at.elapsed() < LASTING)
    }

    /// Whether people talk in any room.
    pub fn is_anywhere(&self) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.values().any(|at| at.elapsed() < LASTING)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn a_room_is_lively_for_a_while() {
        let lively = Lively::default();
        lively.told([room_id!("!talk:hs"), room_id!("!old:hs")].into_iter());
        assert!(lively.is_lively(room_id!("!talk:hs")));
        assert!(!lively.is_lively(room_id!("!quiet:hs")) && lively.is_anywhere());
        let long_ago = Instant::now().checked_sub(LASTING).expect("the machine runs for longer");
        lively.0.lock().expect("no panic").insert(room_id!("!old:hs").to_owned(), long_ago);
        assert!(!lively.is_lively(room_id!("!old:hs")));
        lively.told(std::iter::empty());
        assert_eq!(lively.0.lock().expect("no panic").len(), 1, "what is old is forgotten");
    }
}
