//! The part of a timeline of `/sync` that reaches up to its last event that the archive has placed already: what is new in it
//! belongs between what is known, not on top.

use sqlx::PgConnection;

use super::{Error, ingest::walk_down, position, timeline::Place};
use crate::matrix::Event;

/// That part, from the timeline's beginning.
pub(super) struct Overlap {
    /// How many events it has.
    pub(super) len: usize,
    /// What stands below counts neither for its end nor as a neighbour.
    floor: Option<i64>,
}

/// An event and its position.
type Placed = (String, i64);

impl Overlap {
    /// After a rejoin, or the loss of `since`, a timeline tells again what the archive has, with what the archive does not
    /// have yet between that and below it.
    pub(super) fn of_all(places: &[Place]) -> Self {
        Self::above(None, places)
    }

    fn above(floor: Option<i64>, places: &[Place]) -> Self {
        let mut overlap = Self { len: 0, floor };
        let is_placed = |place: &Place| place.position().is_some_and(|position| overlap.counts(position));
        overlap.len = places.iter().rposition(is_placed).map_or(0, |last| last + 1);
        overlap
    }

    fn counts(&self, position: i64) -> bool {
        Some(position) > self.floor
    }

    /// Positions for its events, oldest first, as a walk would give them that has come down to it.
    pub(super) async fn place(
        &self,
        connection: &mut PgConnection,
        room_key: i32,
        places: &[Place],
    ) -> Result<Vec<Option<i64>>, Error> {
        let counts = |place: &Place| place.position().is_none_or(|position| self.counts(position));
        let newest_first: Vec<Place> = places.iter().rev().copied().filter(counts).collect();
        let placement = walk_down(connection, room_key, i64::MAX, &newest_first, None).await?;
        let mut given = placement.positions.into_iter().rev();
        Ok(places
            .iter()
            .map(|place| if counts(place) { given.next().flatten() } else { place.position() })
            .collect())
    }

    /// Where it begins, of the positions given to it.
    pub(super) fn lowest(&self, given: &[Option<i64>]) -> Option<i64> {
        given.iter().copied().flatten().find(|position| self.counts(*position))
    }
}

/// A walk from the newest event may have been ahead of `/sync`: then the timeline holds the room's newest event, `newest`.
/// What that walk did not get to, because it was stopped or its room has long pages, lies below that and above all that was
/// there before: what that walk has found and no response tells is not that. Returns that part, and the newest event of before.
pub(super) async fn ahead(
    connection: &mut PgConnection,
    room_key: i32,
    newest: Option<Placed>,
    events: &[&Event],
    places: &[Place],
) -> Result<(Option<Overlap>, Option<Placed>), Error> {
    let is_newest = |event: &&Event| newest.as_ref().is_some_and(|(event_id, _)| *event_id == event.event_id);
    if !events.iter().any(is_newest) {
        return Ok((None, newest));
    }
    let before = position::newest_before(connection, room_key, events).await?;
    let floor = before.as_ref().map(|(_, position)| *position);
    Ok((Some(Overlap::above(floor, places)), before))
}
