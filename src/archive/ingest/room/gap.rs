//! The gap before a timeline: why events may be missing there, and where they belong.

use super::{super::silent_gap, RoomSync, timeline::Timeline};
use crate::{
    archive::{
        Error,
        timeline::position,
        walk::{
            self,
            gap::{self, NewGap, Top},
            history,
        },
    },
    matrix::{Membership, Section},
};

/// A hole between the archive and a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    reason: &'static str,
    /// Whether the server did not report it. Then nothing shows where in the timeline it is.
    is_silent: bool,
}

impl RoomSync<'_> {
    /// Why events may be missing between the archive and this timeline, according to the server.
    /// `None`: none are missing.
    pub(super) fn discontinuity(&self) -> Option<&'static str> {
        let update = self.update;
        if self.response.is_first() {
            Some("the sync token was lost")
        } else if !self.before.watched {
            Some(gap::NOT_WATCHED)
        } else if self.rejoined {
            Some("the account was not in the room")
        } else if update.timeline_unreadable {
            Some("the room's timeline in a sync response could not be read")
        } else if update.limited {
            Some("the server left events out of the sync (limited timeline)")
        } else {
            None
        }
    }

    /// The hole before the timeline. It must be called before the response is stored.
    pub(super) async fn find_hole(&mut self, top: &Top) -> Result<Option<Hole>, Error> {
        let is_first = self.response.is_first();
        // An interrupted first response may have opened the gap already.
        let reason = self.discontinuity().filter(|_| !(is_first && top.awaits_walk));
        if let Some(reason) = reason {
            return Ok(Some(Hole { reason, is_silent: false }));
        }
        let is_silent =
            !is_first && silent_gap::is_shown(self.connection, &self.room.room_id, self.update).await?;
        Ok(is_silent.then_some(Hole { reason: silent_gap::REASON, is_silent }))
    }

    /// Opens the gap and its first walk.
    pub(super) async fn open_gap(
        &mut self,
        hole: Hole,
        may_repeat: bool,
        top: &Top,
        timeline: &Timeline<'_>,
    ) -> Result<(), Error> {
        let Self { connection, response, before, update, rejoined, .. } = self;
        // Whether missing events may also belong between the timeline's events, so that the walk begins
        // above them. Unreadable events may. So may events that the server left out without saying so.
        let from_end = response.is_first() || *rejoined || update.timeline_unreadable || hole.is_silent;
        let since = if *rejoined { &before.left_since } else { &response.account.since };
        let lower_token = since.as_deref().filter(|_| before.watched);
        let prev_batch = update.prev_batch.as_ref().filter(|_| !from_end);
        // The room's highest position, including the timeline.
        let end = timeline.positions.iter().copied().flatten().max().or(top.position());
        let upper = timeline.first_above_newest_before();
        let new_gap = NewGap {
            room_id: &before.room_id,
            reason: hole.reason,
            upper_token: prev_batch.map_or(response.next_batch, |token| Some(token.as_str())),
            lower_token,
            upper_event_id: upper.map(|(event_id, _)| event_id),
            upper_position: if (from_end && update.section == Section::Leave) || lower_token.is_none() {
                // After a leave, the walk may only begin after the account has returned, and then with events after
                // the leave. Without a lower token, it goes down from above the timeline, in which a late event may
                // be below all missing ones.
                position::append(end, true).next()
            } else {
                upper.map(|(_, position)| position).or_else(|| position::append(end, true).next())
            },
            // Events that arrive before the gap is walked may belong between the timeline's events.
            from_position: (from_end && update.section == Section::Join).then(|| position::just_above(end)),
            lower: timeline.newest_before.clone(),
        };
        if response.account.since.is_some() && may_repeat {
            // Redactions sent meanwhile may be hidden from the account. Only the redacted events show them.
            walk::rewalk_now(connection, &before.room_id).await?;
        }
        gap::open(connection, &new_gap).await
    }

    /// Walks a truncated history again, because the account may see more of it now. Also completes a
    /// history of which only a part was walked.
    pub(super) async fn walk_partial_history(&mut self, has_hole: bool) -> Result<(), Error> {
        let Self { connection, response, before, afterwards, .. } = self;
        let was_out = before.membership != Membership::Join || !before.watched;
        match response.next_batch {
            Some(next_batch) if has_hole && was_out => {
                history::reopen(connection, before, next_batch).await?;
            }
            None if before.history_state.is_partial() => afterwards.partial.push(before.room_id.clone()),
            _ => {}
        }
        Ok(())
    }
}
