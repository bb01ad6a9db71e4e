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
    /// The last request's number.
    last: u64,
    /// The requests by their numbers. There may be several for one room.
    asked: HashMap<u64, Asked>,
    /// The rooms whose `/state` was stored since the `/sync` request under way was sent. It is unknown which of the
    /// two reports is newer.
    compared: HashSet<String>,
}

#[derive(Debug)]
struct Asked {
    room_id: String,
    /// Whether a `/sync` response has reported the room's state since the request.
    is_outdated: bool,
}

/// A request for the state of a room, until it is dropped.
#[derive(Debug)]
pub struct StateRequest<'o> {
    order: &'o StateOrder,
    number: u64,
}

impl StateOrder {
    /// Call this before a room's state is requested.
    pub(crate) fn ask(&self, room_id: &str) -> StateRequest<'_> {
        let mut under_way = self.under_way();
        under_way.last += 1;
        let number = under_way.last;
        under_way.asked.insert(number, Asked { room_id: room_id.to_owned(), is_outdated: false });
        StateRequest { order: self, number }
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
            for asked in under_way.asked.values_mut().filter(|asked| room.room_id == asked.room_id) {
                asked.is_outdated = true;
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
        let current = under_way.asked.get(&self.number).filter(|asked| !asked.is_outdated);
        let current = current.map(|asked| asked.room_id.clone());
        let is_outdated = current.is_none();
        under_way.compared.extend(current);
        is_outdated
    }
}

impl Drop for StateRequest<'_> {
    fn drop(&mut self) {
        self.order.under_way().asked.remove(&self.number);
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

    #[test]
    fn a_second_request_for_the_room_leaves_the_first_one_outdated() {
        let order = StateOrder::default();
        let first = order.ask("!r:hs");
        order.note_response(&rooms(r#"{"timeline":{"limited":true}}"#));
        let second = order.ask("!r:hs");
        assert!(first.is_outdated() && !second.is_outdated());
        drop(first);
        assert!(!second.is_outdated());
    }
}
