//! How a room's part of a response moves the room's current state.

use super::RoomSync;
use crate::{
    archive::room::current_state::{Cause, Pointers},
    matrix::{
        Section, room_state,
        room_update::{last_of_own, state_events},
    },
};

impl RoomSync<'_> {
    /// Moves the current state according to the response. Marks it as stale if it must be compared with
    /// the server's.
    pub(super) fn move_state(&mut self) {
        let mut pointers = self.portion.pointers(&self.room.room_id);
        let has_changed = self.point(&mut pointers);
        let is_stale = has_changed || self.state_is_partial();
        self.portion.moved(pointers);
        if is_stale && self.room.bootstrapped {
            self.portion.changes.stale(&self.room);
        }
    }

    /// Moves the pointers. Returns whether other state may have changed that the response does not
    /// report.
    fn point(&self, pointers: &mut Pointers) -> bool {
        let (response, update) = (self.response, self.update);
        let cause = |cause| if self.before.bootstrapped { cause } else { Cause::Bootstrap };
        match &update.state_after {
            Some(after) => pointers.point(&after.events, cause(Cause::StateAfter)),
            None => pointers.point(&update.state.events, cause(Cause::State)),
        }
        // In a forked graph, Synapse reports the state of the branch at the end of the timeline (P86), not
        // the room's.
        let branched = update.state_after.is_none() && pointers.have_moved();
        // If the server reports the state after the timeline, only that counts (P87). An exception is a
        // leave after which no local user is in the room: Synapse then has no state and reports no change.
        let dropped = update.state_after.is_some()
            && update.section == Section::Leave
            && last_of_own(update, &response.account.user_id).is_some_and(|leave| !pointers.points_at(leave));
        if update.state_after.is_none() || dropped {
            pointers.follow(&update.timeline.events, cause(Cause::Timeline));
        }
        // A power event from another branch may have reverted other state, even if it replaced nothing. No
        // response reports that (P93).
        let undone = state_events(update).any(room_state::takes_power);
        let was_compared = self.writer.state_order().was_compared(&self.room.room_id);
        pointers.needs_comparison()
            || branched
            || dropped
            || undone
            || update.has_unreadable_parts()
            || (was_compared && pointers.may_have_gone_back(state_events(update)))
    }

    /// Whether the current state may be wrong although everything in the response was applied.
    fn state_is_partial(&self) -> bool {
        // A homeserver may return state in /state that it leaves out of /sync, such as aliases. So even a
        // whole state is not complete.
        if self.response.full || !self.before.bootstrapped {
            return true;
        }
        if self.update.section == Section::Leave {
            // The server reports the state as it was at the leave (P90). If the account was back in between,
            // the state may have changed during its absence, and the timeline may contain late events that are
            // not the current state.
            return self.rejoined;
        }
        // After a gap, a state key may have no event any more. Only the whole state shows that (P93).
        self.discontinuity().is_some()
    }
}
