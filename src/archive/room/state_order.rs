//! Decides which of two reports of a room's state is newer. `/state` is requested while `/sync` runs, and an older
//! response to `/state` must not undo what a response to `/sync` has reported.
//!
//! It is only in memory: there is one writer, and its requests end with it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::matrix::{RoomUpdate, Section, room_update::state_events};

/// The requests under way.
#[derive(Debug, Default)]
pub struct StateOrder(Mutex<UnderWay>);

#[derive(Debug, Default)]
struct UnderWay {
    /// The rooms whose state is requested now, and whether a `/sync` response has reported it meanwhile.
    asked: HashMap<String, bool>,
    /// The rooms whose `/state` was stored since the `/sync` request under way was sent. It is unknown which of the
    /// two reports is newer.
    compared: HashSet<String>,
}

/// A request for the state of a room, until it is dropped.
#[derive(Debug)]
pub struct StateRequest<'o> {
    order: &'o StateOrder,
    room_id: String,
}

impl StateOrder {
    /// Call this before a room's state is requested.
    pub(crate) fn ask(&self, room_id: &str) -> StateRequest<'_> {
        self.under_way().asked.insert(room_id.to_owned(), false);
        StateRequest { order: self, room_id: room_id.to_owned() }
    }

    /// Call this before a `/sync` request is sent.
    pub(crate) fn await_response(&self) {
        self.under_way().compared.clear();
    }

    /// Call this before anything of a `/sync` response is stored. `rooms`: its rooms.
    pub(in crate::archive) fn note_response(&self, rooms: &[RoomUpdate]) {
        let mut under_way = self.under_way();
        if under_way.asked.is_empty() {
            return;
        }
        for room in rooms.iter().filter(|room| mentions_state(room)) {
            if let Some(outdated) = under_way.asked.get_mut(room.room_id.as_str()) {
                *outdated = true;
            }
        }
    }

    /// Whether the room's `/state` was stored while the `/sync` response was awaited that is being stored now.
    pub(in crate::archive) fn was_compared(&self, room_id: &str) -> bool {
        self.under_way().compared.contains(room_id)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateRequest<'_> {
    /// Whether the response may be older than what a `/sync` response has reported meanwhile. If not, it counts as
    /// stored. Call this under the room's lock.
    pub(in crate::archive) fn is_outdated(&self) -> bool {
        let mut under_way = self.order.under_way();
        let outdated = under_way.asked.get(&self.room_id).copied().unwrap_or(true);
        if !outdated {
            under_way.compared.insert(self.room_id.clone());
        }
        outdated
    }
}

impl Drop for StateRequest<'_> {
    fn drop(&mut self) {
        self.order.under_way().asked.remove(&self.room_id);
    }
}

fn mentions_state(room: &RoomUpdate) -> bool {
    room.section != Section::Join
        || room.limited
        || room.has_unreadable_parts()
        || state_events(room).any(|event| event.state_key.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::SyncBatch;

    fn rooms(part: &str) -> Vec<RoomUpdate> {
        let body = format!(r#"{{"next_batch":"s","rooms":{{"join":{{"!r:hs":{part}}}}}}}"#);
        SyncBatch::read(body.as_bytes()).expect("a batch").rooms
    }

    #[test]
    fn an_answer_is_outdated_by_a_response_that_mentions_the_state() {
        let event = |key: &str| {
            format!(
                r#"{{"timeline":{{"events":[{{"type":"t","sender":"s","event_id":"$1","content":{{}}{key}}}]}}}}"#
            )
        };
        let order = StateOrder::default();
        for (part, overtakes) in [
            (event(""), false),
            (event(r#","state_key":"""#), true),
            (r#"{"timeline":{"limited":true}}"#.to_owned(), true),
            ("7".to_owned(), true),
        ] {
            let request = order.ask("!r:hs");
            let other = order.ask("!other:hs");
            order.note_response(&rooms(&part));
            assert_eq!(request.is_outdated(), overtakes, "{part}");
            assert!(!other.is_outdated());
            assert_eq!(order.was_compared("!r:hs"), !overtakes, "{part}");
            order.await_response();
            assert!(!order.was_compared("!other:hs"));
        }
        order.note_response(&rooms(&event(r#","state_key":"""#)));
        assert!(!order.ask("!r:hs").is_outdated(), "a request of after the response");
    }
}
