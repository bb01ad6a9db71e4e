//! Decides how a walk continues after a page: with the next page, with the same page again, not at all because it has
//! ended, or later because it has stalled.

use std::time::Duration;

use sqlx::PgConnection;

use super::{gap, schedule_rewalk};
use crate::{
    archive::{Error, HistoryState, Walk, WalkKind, WalkState, room::history, timeline::neighbours},
    config::Backfill,
    matrix::Token,
};

/// How many responses without `end` before the room's start count as final. Also how often a page is requested again
/// if its `end` is equal to `from`.
const ASK_AGAIN: i32 = 3;
/// The pause before each of these requests in seconds, multiplied by the number of the try.
const ASK_AGAIN_PAUSE_S: f64 = 1.0;

/// The longest retry delay of a stalled walk.
const STALLED_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// The properties of a page that decide how the walk continues.
#[derive(Debug)]
pub(in crate::archive) struct Passed<'a> {
    /// The page's `end`.
    pub(in crate::archive) end: Option<&'a Token>,
    /// The number of responses in the page.
    pub(in crate::archive) answers: usize,
    /// Events on the page.
    pub(in crate::archive) events: usize,
    /// New events on the page.
    pub(in crate::archive) new: usize,
    /// Whether the walk has reached its lower end, so that a missing `end` is expected.
    pub(in crate::archive) bottom_passed: bool,
    /// Whether the lower edge of the gap has been passed.
    pub(in crate::archive) lower_passed: bool,
}

/// Updates the walk after a page, and returns the pause before its next request in seconds.
pub(in crate::archive) async fn after_page(
    connection: &mut PgConnection,
    walk: &mut Walk,
    passed: &Passed<'_>,
    settings: &Backfill,
) -> Result<f64, Error> {
    let before = walk.pages;
    walk.pages += i64::try_from(passed.answers).unwrap_or(i64::MAX);
    walk.events += i64::try_from(passed.new).unwrap_or(i64::MAX);
    walk.last_error = None;
    if passed.new > 0 && walk.stalls > 0 {
        walk.stalls = 0;
        if walk.kind == WalkKind::History {
            history::set(connection, &walk.room_id, HistoryState::Walking, None).await?;
        }
    }
    walk.known_pages = if passed.new == 0 && passed.events > 0 { walk.known_pages + 1 } else { 0 };
    let below_gap = walk.lower_reached;
    walk.lower_reached |= passed.lower_passed;

    let Some(end) = passed.end else {
        return no_more(connection, walk, passed, settings).await;
    };
    if walk.cursor.as_deref() == Some(end.as_str()) {
        walk.repeats += 1;
        if walk.repeats <= ASK_AGAIN {
            return Ok(ASK_AGAIN_PAUSE_S * f64::from(walk.repeats));
        }
        let reason = "the server repeatedly returns `end` equal to `from`";
        return stall(connection, walk, reason, settings).await;
    }
    (walk.repeats, walk.ends) = (0, 0);
    walk.cursor = Some(end.as_str().to_owned());
    if walk.cycle_marker.is_some() && walk.cycle_marker == walk.cursor {
        return stall(connection, walk, "the server's tokens go in a circle", settings).await;
    }
    // Brent's algorithm finds a cycle of any length: the marker moves to the current cursor at every power of two.
    if walk.pages.checked_ilog2() > before.checked_ilog2() {
        walk.cycle_marker.clone_from(&walk.cursor);
    }
    // The gap was passed, and one more page had nothing new.
    if walk.kind.fills_gap() && below_gap && walk.known_pages > 0 {
        finish(connection, walk, None, settings).await?;
    }
    Ok(0.0)
}

/// Handles a page without `end`. If the walk has reached its lower end, it is done. Otherwise the server may have
/// purged older events, may hide them, or may not have them yet (P4), so the page is requested again before the
/// history counts as truncated. A gap is never closed because of this: its events stay recorded as missing.
async fn no_more(
    connection: &mut PgConnection,
    walk: &mut Walk,
    passed: &Passed<'_>,
    settings: &Backfill,
) -> Result<f64, Error> {
    if passed.bottom_passed {
        finish(connection, walk, None, settings).await?;
        return Ok(0.0);
    }
    walk.ends += 1;
    if walk.ends < ASK_AGAIN {
        return Ok(ASK_AGAIN_PAUSE_S * f64::from(walk.ends));
    }
    if walk.kind.fills_gap() {
        let reason =
            "the server returns no older events, but the gap continues: they are purged or not visible";
        return stall(connection, walk, reason, settings).await;
    }
    let reason = "the server returns no older events, but the room's start was not reached: they are purged or not visible";
    // Events that the server has purged since an earlier walk are in the archive.
    let is_archived = walk.kind == WalkKind::History
        && neighbours::create_position(connection, &walk.room_id).await?.is_some();
    finish(connection, walk, Some(reason).filter(|_| !is_archived), settings).await?;
    Ok(0.0)
}

/// Ends the walk, and opens the walk that follows it. `truncated`: why the room's start was not reached.
async fn finish(
    connection: &mut PgConnection,
    walk: &mut Walk,
    truncated: Option<&str>,
    settings: &Backfill,
) -> Result<(), Error> {
    walk.state = WalkState::Done;
    if walk.kind == WalkKind::GapWhole {
        gap::close_skipped(connection, walk, true).await?;
    }
    if walk.gap_id.is_some() {
        return gap::after_pass(connection, walk, settings.recheck_after.as_secs_f64()).await;
    }
    // If the room's start is hidden from the account, a re-walk may end above a gap.
    gap::close_skipped(connection, walk, walk.kind != WalkKind::Rewalk || truncated.is_none()).await?;
    if walk.kind == WalkKind::History {
        let state = if truncated.is_some() { HistoryState::Truncated } else { HistoryState::Complete };
        history::set(connection, &walk.room_id, state, truncated).await?;
    } else if walk.kind == WalkKind::Rewalk && truncated.is_none() {
        // Events that were not visible at that time may be visible now.
        history::set(connection, &walk.room_id, HistoryState::Complete, None).await?;
    }
    if matches!(walk.kind, WalkKind::History | WalkKind::Rewalk) {
        schedule_rewalk(connection, walk, &settings.rewalk_after).await?;
    }
    Ok(())
}

/// Marks the walk as stalled in the caller's transaction. Returns the retry delay in seconds.
pub(in crate::archive) async fn stall(
    connection: &mut PgConnection,
    walk: &mut Walk,
    reason: &str,
    settings: &Backfill,
) -> Result<f64, Error> {
    walk.state = WalkState::Stalled;
    walk.last_error = Some(reason.to_owned());
    walk.stalls = walk.stalls.saturating_add(1);
    if walk.kind == WalkKind::History {
        history::set(connection, &walk.room_id, HistoryState::Stalled, Some(reason)).await?;
    }
    Ok(try_again_in(walk.stalls, settings.stalled_after).as_secs_f64())
}

/// The retry delay of a walk that has stalled this often in a row: it doubles each time, up to a day.
fn try_again_in(stalls: i32, first: Duration) -> Duration {
    let doublings = u32::try_from(stalls).unwrap_or_default().saturating_sub(1);
    first.saturating_mul(2_u32.saturating_pow(doublings)).min(STALLED_AT_MOST.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_walk_is_tried_again_ever_more_rarely_up_to_a_day() {
        let tries = |stalls| try_again_in(stalls, Duration::from_secs(300)).as_secs();
        assert_eq!([1, 2, 3, 9, 10, i32::MAX].map(tries), [300, 600, 1200, 76_800, 86_400, 86_400]);
    }
}
