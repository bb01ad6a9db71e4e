//! The overlap of a `/sync` timeline with the archive: the part up to its last event that is placed already. New
//! events in this part belong between known ones, not at the end of the room.

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

/// The overlap. It begins at the timeline's first event.
pub(in crate::archive) struct Overlap {
    /// The number of events in it.
    pub(in crate::archive) len: usize,
    /// Which of the timeline's events determine its end and serve as neighbours.
    counts: Vec<bool>,
    /// The last positions passed by walks that began above it and have not ended. Events that these walks have not
    /// met are below these positions, and also below events that no response reports.
    passed: Vec<i64>,
}

/// An event and its position.
type EventPosition = (String, i64);

impl Overlap {
    /// For a timeline after a rejoin or the loss of `since`. It repeats archived events, and has new ones between and
    /// below them.
    pub(in crate::archive) fn of_all(places: &[Place]) -> Self {
        Self::of(places, vec![true; places.len()], Vec::new())
    }

    /// For a timeline in the order of arrival. An event that is placed below `floor`, or below an earlier event of
    /// the timeline, arrived late, so its neighbours in the timeline need not be its neighbours in the room.
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

    /// The positions of its events, oldest first, as a walk from above would place them.
    pub(in crate::archive) async fn place(
        &self,
        connection: &mut PgConnection,
        room_id: &str,
        places: &[Place],
    ) -> Result<Vec<Option<i64>>, Error> {
        let reported: Vec<Place> = self.counted(places).rev().copied().collect();
        let (newest_first, is_reported) = self.with_passed(&reported);
        let placement = walk_down(connection, room_id, i64::MAX, &newest_first, None).await?;
        let given = placement.positions.into_iter().zip(is_reported).rev();
        let mut given = given.filter(|(_, is_reported)| *is_reported).map(|(position, _)| position);
        let places = places.iter().zip(&self.counts);
        Ok(places
            .map(|(place, counts)| if *counts { given.next().flatten() } else { place.position() })
            .collect())
    }

    /// Merges `reported`, newest first, with the [passed](Self::passed) positions, each below the last event above
    /// it. Also returns which of the result were reported.
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

    fn counted<'a, T>(&'a self, events: &'a [T]) -> impl DoubleEndedIterator<Item = &'a T> {
        events.iter().zip(&self.counts).filter(|(_, counts)| **counts).map(|(event, _)| event)
    }
}

/// Finds an overlap with a walk that ran ahead of `/sync`: the timeline then contains the room's newest event,
/// `newest`. Events that this walk had not reached yet belong below those that it has placed, and above all older
/// ones. Returns the overlap, and the newest event from before the walk.
pub(in crate::archive) async fn ahead(
    connection: &mut PgConnection,
    room_id: &str,
    newest: Option<EventPosition>,
    events: &[&Event],
    places: &[Place],
) -> Result<(Option<Overlap>, Option<EventPosition>), Error> {
    let is_newest = |event: &&Event| newest.as_ref().is_some_and(|(event_id, _)| *event_id == event.event_id);
    if !events.iter().any(is_newest) {
        return Ok((None, newest));
    }
    let before = neighbours::newest_before(connection, room_id, events).await?;
    let floor = before.as_ref().map(|(_, position)| *position);
    let passed = walk::passed_from_newest(connection, room_id, floor).await?;
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
