//! What must be true when a script has been played.
//!
//! For each room:
//!
//! * the events with a position are exactly those that the account may see, each with its content as it is now, and
//!   there are none without a position;
//! * positions are distinct, and those of events that were not late ascend in the graph's order;
//! * a late event stands above every earlier one of the graph that was not late. Excused is a server that ignores `to`: it
//!   shows what no `/sync` reported to the first pass through a gap, which begins below newer events that belong below it; and
//!   what is found later and belongs below such an event stands below it. Excused is also one whose pages overlap, where it
//!   learns more between two pages than a page holds: nothing on the second reports then that it goes on above the first's end;
//! * one that no `/sync` reported and that the last walk through the whole room has found stands between those of its
//!   neighbours in the graph that were not late (P163);
//! * the current state is the server's, the history is complete, and nothing is open or miscounted.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    play::{Play, Room},
    script::Style,
};
use crate::support::agreement::{assert_settled, current_state, stored};

pub(super) async fn assert_agrees(play: &Play<'_>) {
    let url = play.database.url();
    assert_settled(url).await;
    for room in &play.rooms {
        let stored = stored(url, &room.id, room.version).await;
        let visible = play.server.visible(&room.id);
        if visible.is_empty() {
            assert!(stored.is_empty(), "{}: nothing of it may be seen", room.id);
            continue;
        }
        let seen: BTreeSet<&str> = visible.iter().map(|event| event.event_id.as_str()).collect();
        let archived: BTreeSet<&str> = stored.iter().map(|event| event.event_id.as_str()).collect();
        let lost: Vec<_> = seen.difference(&archived).collect();
        let alien: Vec<_> = archived.difference(&seen).collect();
        assert!(lost.is_empty() && alien.is_empty(), "{}: lost {lost:?}, alien {alien:?}", room.id);
        assert_eq!(stored.len(), visible.len(), "{}: an event is stored twice", room.id);

        let now: BTreeMap<_, _> = visible.iter().map(|event| (&event.event_id, &event.stable)).collect();
        for event in &stored {
            assert_eq!(Some(&&event.stable), now.get(&event.event_id), "{} {}", room.id, event.event_id);
        }
        let positions: BTreeMap<&str, i64> =
            stored.iter().filter_map(|event| Some((event.event_id.as_str(), event.position?))).collect();
        let unplaced: Vec<_> = seen.iter().filter(|event_id| !positions.contains_key(*event_id)).collect();
        assert!(unplaced.is_empty(), "{}: without a position: {unplaced:?}, {positions:?}", room.id);
        let places: Vec<_> = visible
            .iter()
            .map(|event| (event.event_id.as_str(), positions[event.event_id.as_str()]))
            .collect();
        assert_ordered(room, &places, matches!(play.case.style, Style::IgnoresTo | Style::Overlap));

        let expected: Vec<[String; 3]> = {
            let state = play.server.current_state(&room.id).into_iter();
            state.map(|((kind, key), event_id)| [kind, key, event_id]).collect()
        };
        assert_eq!(current_state(url, &room.id).await, expected, "{}", room.id);
        let history = format!("select history_state from rooms where room_id = '{}'", room.id);
        assert_eq!(play.database.value(&history).await, "complete", "{}", room.id);
    }
}

/// `places`: events and their positions in the graph's order. `lenient`: whether the server is one of those that are excused.
fn assert_ordered(room: &Room, places: &[(&str, i64)], lenient: bool) {
    let distinct: BTreeSet<i64> = places.iter().map(|(_, position)| *position).collect();
    assert_eq!(distinct.len(), places.len(), "{}: two events share a place", room.id);
    let mut punctual = places.iter().filter(|(event_id, _)| !room.late.contains(*event_id)).peekable();
    let mut below = None;
    for (index, (event_id, position)) in places.iter().enumerate() {
        if !room.late.contains(*event_id) {
            assert!(below < Some(*position), "{}: {event_id} is out of order: {places:?}", room.id);
            below = Some(*position);
            punctual.next();
            continue;
        }
        let found = room.found.contains(*event_id);
        let taken_along = || {
            let lower = |(fetched, at): &(&str, i64)| {
                room.learnt.contains(*fetched) && position < at && Some(*at) <= below
            };
            places[index..].iter().any(lower)
        };
        let excused = || lenient && !found && (room.learnt.contains(*event_id) || taken_along());
        assert!(below < Some(*position) || excused(), "{}: {event_id} is too low: {places:?}", room.id);
        if found && let Some((_, above)) = punctual.peek() {
            assert!(position < above, "{}: {event_id} is too high: {places:?}", room.id);
        }
    }
}
