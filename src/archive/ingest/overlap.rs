//! The part of a timeline of `/sync` that reaches up to its last event that the archive has placed already: what is new in it
//! belongs between what is known, not on top.

use sqlx::PgConnection;

use crate::{
    archive::{
        Error,
        timeline::{
            neighbours::{self, walk_down},
            position::Place,
        },
        walk,
    },
    matrix::Event,
};

/// That part, from the timeline's beginning.
pub(in crate::archive) struct Overlap {
    /// How many events it has.
    pub(in crate::archive) len: usize,
    /// Which of the timeline's events count for its end and as neighbours.
    counts: Vec<bool>,
    /// The last positions passed by walks that began above it and are not at their end. What they came by without meeting it
    /// is below these, also below events that no response reports.
    passed: Vec<i64>,
}

/// An event and its position.
type EventPosition = (String, i64);

impl Overlap {
    /// After a rejoin, or the loss of `since`, a timeline repeats what the archive has, with what the archive does not
    /// have yet between that and below it.
    pub(in crate::archive) fn of_all(places: &[Place]) -> Self {
        Self::of(places, vec![true; places.len()], Vec::new())
    }

    /// Of a timeline in the order of arrival: what is placed below `floor`, or below an event that arrived before it, came late
    /// and says nothing about where its neighbours belong.
    fn above(floor: Option<i64>, places: &[Place], passed: Vec<i64>) -> Self {
        let mut top = floor;
        let counts = places.iter().map(|place| {
            let counts = place.position().is_none_or(|position| Some(position) > top);
            top = top.max(place.position());
            counts
        });
        Self::of(places, counts.collect(), passed)
    }

    fn of(places: &[Place], counts: Vec<bool>, passed: Vec<i64>) -> Self {
        let mut ends =
            places.iter().zip(&counts).map(|(place, counts)| *counts && place.position().is_some());
        let len = ends.rposition(|is_end| is_end).map_or(0, |last| last + 1);
        Self { len, counts, passed }
    }

    /// Positions for its events, oldest first, as a walk would give them that has come down to it.
    pub(in crate::archive) async fn place(
        &self,
        connection: &mut PgConnection,
        room_key: i32,
        places: &[Place],
    ) -> Result<Vec<Option<i64>>, Error> {
        let reported: Vec<Place> = self.counted(places).rev().copied().collect();
        let (newest_first, is_reported) = self.with_passed(&reported);
        let placement = walk_down(connection, room_key, i64::MAX, &newest_first, None).await?;
        let given = placement.positions.into_iter().zip(is_reported).rev();
        let mut given = given.filter(|(_, is_reported)| *is_reported).map(|(position, _)| position);
        let places = places.iter().zip(&self.counts);
        Ok(places
            .map(|(place, counts)| if *counts { given.next().flatten() } else { place.position() })
            .collect())
    }

    /// `reported`, newest first, and among them what is [passed](Self::passed), each below the last event above it; and which
    /// of these was reported.
    fn with_passed(&self, reported: &[Place]) -> (Vec<Place>, Vec<bool>) {
        let (mut newest_first, mut is_reported) = (reported.to_vec(), vec![true; reported.len()]);
        for &passed in &self.passed {
            let is_above = |place: &Place| place.position() >= Some(passed);
            if let Some(last) = newest_first.iter().rposition(is_above) {
                newest_first.insert(last + 1, Place::At(passed));
                is_reported.insert(last + 1, false);
            }
        }
        (newest_first, is_reported)
    }

    /// Where it begins, of the positions given to it.
    pub(in crate::archive) fn lowest(&self, given: &[Option<i64>]) -> Option<i64> {
        self.counted(given).find_map(|position| *position)
    }

    fn counted<'a, T>(&'a self, events: &'a [T]) -> impl DoubleEndedIterator<Item = &'a T> {
        events.iter().zip(&self.counts).filter(|(_, counts)| **counts).map(|(event, _)| event)
    }
}

/// A walk from the newest event may have been ahead of `/sync`: then the timeline holds the room's newest event, `newest`.
/// What that walk did not get to, because it was stopped or its room has long pages, lies below that and above all that was
/// there before: what that walk has found and no response reports is not that. Returns that part, and the newest event of before.
pub(in crate::archive) async fn ahead(
    connection: &mut PgConnection,
    room_key: i32,
    newest: Option<EventPosition>,
    events: &[&Event],
    places: &[Place],
) -> Result<(Option<Overlap>, Option<EventPosition>), Error> {
    let is_newest = |event: &&Event| newest.as_ref().is_some_and(|(event_id, _)| *event_id == event.event_id);
    if !events.iter().any(is_newest) {
        return Ok((None, newest));
    }
    let before = neighbours::newest_before(connection, room_key, events).await?;
    let floor = before.as_ref().map(|(_, position)| *position);
    let passed = walk::passed_from_newest(connection, room_key, floor).await?;
    Ok((Some(Overlap::above(floor, places, passed)), before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Place::{At, Unplaced};

    #[test]
    fn what_a_walk_has_passed_stands_above_what_it_did_not_get_to() {
        let reported = [At(90), Unplaced, At(70), Unplaced, At(20), Unplaced];
        let cases: [(&[i64], &[Place]); 5] = [
            (&[], &reported),
            (&[60], &[At(90), Unplaced, At(70), At(60), Unplaced, At(20), Unplaced]),
            (&[70], &[At(90), Unplaced, At(70), At(70), Unplaced, At(20), Unplaced]),
            (&[95], &reported),
            (&[60, 10], &[At(90), Unplaced, At(70), At(60), Unplaced, At(20), At(10), Unplaced]),
        ];
        for (passed, expected) in cases {
            let overlap = Overlap::above(None, &[], passed.to_vec());
            let (newest_first, is_reported) = overlap.with_passed(&reported);
            assert_eq!(newest_first, expected, "{passed:?}");
            let kept = newest_first.iter().zip(&is_reported).filter(|(_, is_reported)| **is_reported);
            assert!(kept.map(|(place, _)| place).eq(&reported), "{passed:?}");
        }
    }
}
