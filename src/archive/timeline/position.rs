//! Computes positions, which define the order of a room's events. Pure arithmetic, no SQL.
//!
//! `order by position` is the room's order. Invariants:
//!
//! * A position never changes, except by `backscroll resequence`.
//! * Two events of a room never share a position.
//! * The events of one walk keep the server's order.
//! * An event that a walk finds between two known events is placed between them.

/// The distance between neighbours that arrive one after the other.
const STEP: i64 = 1 << 16;
/// The distance across a gap: space for sixteen million events.
const LEAP: i64 = 1 << 40;
/// If more pages may follow, a page takes one of this many parts of the space between two neighbours. With halves, no
/// space would be left after a few dozen small pages.
const SHARES: i64 = 8;

/// A position, and the room's next one below it.
#[derive(Clone, Copy, Debug)]
pub(in crate::archive) struct Below {
    pub(in crate::archive) upper: i64,
    /// `None`: there is none below.
    pub(in crate::archive) position: Option<i64>,
}

/// What the archive has of an event on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::archive) enum Place {
    /// Not placed yet.
    Unplaced,
    /// Placed.
    At(i64),
}

impl Place {
    pub(in crate::archive) fn position(self) -> Option<i64> {
        match self {
            Self::Unplaced => None,
            Self::At(position) => Some(position),
        }
    }
}

/// Positions for the events of a page of a backward walk, newest first.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::archive) struct Placement {
    /// For each event, its old or new position. `None`: no integer is left between its neighbours.
    pub(in crate::archive) positions: Vec<Option<i64>>,
    /// The position of the last event passed.
    pub(in crate::archive) upper: i64,
}

/// Positions for live events above `newest`, the room's highest position (or the upper edge of its highest gap).
/// `discontinuous`: events are missing between `newest` and the first of these.
pub(in crate::archive) fn append(newest: Option<i64>, discontinuous: bool) -> impl Iterator<Item = i64> {
    let newest = newest.unwrap_or(0);
    let first = newest.saturating_add(if discontinuous { LEAP } else { STEP });
    std::iter::successors(Some(first), |position| position.checked_add(STEP))
}

/// The position of a walk that begins above `newest`, the room's highest position, and below future live events.
pub(in crate::archive) fn just_above(newest: Option<i64>) -> i64 {
    newest.map_or(0, |newest| newest.saturating_add(STEP / 2))
}

/// For a page that repeats the last passed event (at `upper`): the number of events down to that one, and the
/// position of the known event below the first new one among them. `None`: none of them is new. A token can show
/// events that the token before it did not, such as newly arrived ones. They belong among the passed events, not
/// below.
pub(in crate::archive) fn repeated(upper: i64, page: &[Place]) -> Option<(usize, i64)> {
    let count = page.iter().position(|place| *place == Place::At(upper))? + 1;
    let first = page[..count].iter().position(|place| *place == Place::Unplaced)?;
    let known = page[first..count].iter().find_map(|place| place.position())?;
    Some((count, known))
}

/// The positions below which [`walk_down`] needs space: for each run of unplaced events, the last known event above it.
pub(in crate::archive) fn tops(upper: i64, page: &[Place]) -> Vec<i64> {
    let (mut top, mut tops) = (upper, Vec::new());
    for place in page {
        match *place {
            Place::At(position) => top = top.min(position),
            Place::Unplaced if tops.last() != Some(&top) => tops.push(top),
            Place::Unplaced => {}
        }
    }
    tops
}

/// Places a page of a backward walk that has passed `upper`. `below` reports the highest position in the room below
/// another; it is asked about the page's [`tops`] only.
///
/// A known event above `upper` does not change `upper`. There the orders of `/sync` and `/messages` differ, and the
/// first one is kept (P18).
pub(in crate::archive) fn walk_down(
    mut upper: i64,
    page: &[Place],
    below: impl Fn(i64) -> Option<i64>,
) -> Placement {
    let mut positions = Vec::with_capacity(page.len());
    let mut rest = page;
    while let Some((first, after)) = rest.split_first() {
        if let Place::At(position) = *first {
            positions.push(Some(position));
            upper = upper.min(position);
            rest = after;
            continue;
        }
        // Down to the next known event in the archive's order. Known events above `upper` do not count.
        let top = upper;
        let passed = |place: &Place| matches!(place, Place::At(position) if *position < top);
        let (stretch, after) = rest.split_at(rest.iter().position(passed).unwrap_or(rest.len()));
        let run = stretch.iter().filter(|place| **place == Place::Unplaced).count();
        let step = step_within(top, below(top), run, after.is_empty());
        positions.extend(stretch.iter().map(|place| match place {
            Place::At(position) => Some(*position),
            Place::Unplaced => {
                let position = step.map(|step| upper - step);
                upper = position.unwrap_or(upper);
                position
            }
        }));
        rest = after;
    }
    Placement { positions, upper }
}

/// The distance at which `run` events fit between `upper` and `lower`. A run that may continue on the next page takes
/// only a part of the space, as long as that is wide enough.
fn step_within(upper: i64, lower: Option<i64>, run: usize, open_ended: bool) -> Option<i64> {
    let Some(lower) = lower else { return Some(STEP) };
    let slots = i64::try_from(run).ok()?.checked_add(1)?;
    let widest = upper.checked_sub(lower)? / slots;
    let step = if open_ended { (widest / SHARES).max(1).min(widest) } else { widest }.min(STEP);
    (step > 0).then_some(step)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Place::*, *};

    fn among(known: &[i64]) -> impl Fn(i64) -> Option<i64> {
        let known: BTreeSet<_> = known.iter().copied().collect();
        move |upper| known.range(..upper).next_back().copied()
    }

    /// What [`walk_down`] may ask: about the page's tops.
    fn as_the_database(upper: i64, page: &[Place], known: &[i64]) -> impl Fn(i64) -> Option<i64> {
        let asked: BTreeSet<_> = tops(upper, page).into_iter().collect();
        let below = among(known);
        move |upper| {
            assert!(asked.contains(&upper), "{upper} is no top");
            below(upper)
        }
    }

    #[test]
    fn history_goes_down_from_nothing() {
        let placement = walk_down(0, &[Unplaced, Unplaced], among(&[]));
        assert_eq!(placement, Placement { positions: vec![Some(-STEP), Some(-2 * STEP)], upper: -2 * STEP });
    }

    #[test]
    fn live_events_go_up_and_leap_a_gap() {
        assert_eq!(append(None, false).take(2).collect::<Vec<_>>(), [STEP, 2 * STEP]);
        assert_eq!(append(Some(STEP), true).next(), Some(STEP + LEAP));
    }

    #[test]
    fn a_late_event_takes_the_middle() {
        let placement = walk_down(0, &[At(-STEP), Unplaced, At(-2 * STEP)], among(&[-STEP, -2 * STEP]));
        assert_eq!(placement.positions, [Some(-STEP), Some(-STEP - STEP / 2), Some(-2 * STEP)]);
    }

    #[test]
    fn where_orders_disagree_the_first_stands() {
        let placement = walk_down(-STEP, &[At(5 * STEP), Unplaced], among(&[-STEP, 5 * STEP]));
        assert_eq!(placement.positions, [Some(5 * STEP), Some(-2 * STEP)]);
    }

    /// Of a place that this page gives, the database knows no neighbour.
    #[test]
    fn an_event_of_another_order_parts_no_neighbours() {
        let known = [7 * STEP, 5 * STEP, -STEP, -2 * STEP];
        let page = [Unplaced, At(7 * STEP), Unplaced, At(5 * STEP), Unplaced, At(-2 * STEP)];
        let placement = walk_down(-STEP, &page, as_the_database(-STEP, &page, &known));
        let [first, second, third] = [1, 2, 3].map(|quarters| Some(-STEP - quarters * STEP / 4));
        let expected = [first, Some(7 * STEP), second, Some(5 * STEP), third, Some(-2 * STEP)];
        assert_eq!(placement.positions, expected);
    }

    #[test]
    fn what_a_page_repeats_ends_with_the_last_event_passed() {
        let page = [At(9 * STEP), Unplaced, At(3 * STEP), Unplaced, At(2 * STEP), Unplaced, At(STEP)];
        assert_eq!(repeated(2 * STEP, &page), Some((5, 3 * STEP)));
        assert_eq!(repeated(9 * STEP, &page), None, "nothing new is among it");
        assert_eq!(repeated(4 * STEP, &page), None, "the page repeats nothing");
    }

    #[test]
    fn a_long_stretch_fits_between_neighbours() {
        let (mut known, mut upper) = (vec![0, STEP], STEP);
        for _ in 0..60 {
            let placement = walk_down(upper, &[Unplaced, Unplaced, Unplaced], among(&known));
            known.extend(placement.positions.into_iter().map(|position| position.expect("there is room")));
            upper = placement.upper;
        }
    }

    #[test]
    fn without_room_there_is_no_place() {
        assert_eq!(walk_down(1, &[Unplaced, At(0)], among(&[0, 1])).positions, [None, Some(0)]);
    }

    proptest! {
        /// Whatever is known, in whatever order the page has it: new events get places of their own, in the page's
        /// order, below the known ones that the page has passed, and above the next known one below these.
        #[test]
        fn places_are_unique_and_ordered(
            known in proptest::collection::btree_set(-2_000_000_i64..2_000_000, 0..20),
            page in proptest::collection::vec(proptest::option::of(0_usize..20), 1..60),
        ) {
            const UPPER: i64 = 1_000_000;
            let known: Vec<_> = known.into_iter().collect();
            let page: Vec<_> = page
                .into_iter()
                .map(|pick| pick.and_then(|pick| known.get(pick)).map_or(Unplaced, |position| At(*position)))
                .collect();
            let placement = walk_down(UPPER, &page, as_the_database(UPPER, &page, &known));
            let below = among(&known);
            let (mut passed, mut last) = (UPPER, UPPER);
            for (place, position) in page.iter().zip(&placement.positions) {
                match (place, position) {
                    (At(known), given) => {
                        prop_assert_eq!(Some(*known), *given);
                        passed = passed.min(*known);
                        last = last.min(*known);
                    }
                    (Unplaced, None) => {}
                    (Unplaced, Some(position)) => {
                        prop_assert!(*position < last && Some(*position) > below(passed), "{placement:?}");
                        last = *position;
                    }
                }
            }
            prop_assert_eq!(placement.upper, last);
        }
    }
}
