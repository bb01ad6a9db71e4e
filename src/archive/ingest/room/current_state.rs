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
    /// Moves the current state as the response says. Where that may not be all, it is to be compared with the
    /// server's.
    pub(super) fn move_state(&mut self) {
        let mut pointers = self.portion.pointers(self.room.room_key);
        let has_changed = self.point(&mut pointers);
        let is_doubtful = has_changed || self.state_is_partial();
        self.portion.moved(pointers);
        if is_doubtful && self.room.bootstrapped {
            self.portion.changes.stale(&self.room);
        }
    }

    /// Moves the pointers. Returns whether the server may have moved others that the response does not name.
    fn point(&self, pointers: &mut Pointers) -> bool {
        let (response, update) = (self.response, self.update);
        let cause = |cause| if self.before.bootstrapped { cause } else { Cause::Bootstrap };
        match &update.state_after {
            Some(after) => pointers.point(&after.events, cause(Cause::StateAfter)),
            None => pointers.point(&update.state.events, cause(Cause::State)),
        }
        // Of a forked graph Synapse reports the state of the branch that the timeline ends with (P86), not
        // the room's.
        let branched = update.state_after.is_none() && pointers.have_moved();
        // Where the server offers the state after the timeline, nothing else counts (P87), but for a leave
        // after which none of its users is in the room: Synapse has no state any more then, and reports no
        // change.
        let dropped = update.state_after.is_some()
            && update.section == Section::Leave
            && last_of_own(update, &response.account.user_id).is_some_and(|leave| !pointers.points_at(leave));
        if update.state_after.is_none() || dropped {
            pointers.follow(&update.timeline.events, cause(Cause::Timeline));
        }
        // A power event from another branch may have undone what it does not name, also where there was
        // nothing before it: no response reports that (P93).
        let undone = state_events(update).any(room_state::takes_power);
        let was_compared = self.writer.state_order().was_compared(&self.room.room_id);
        pointers.suspicious()
            || branched
            || dropped
            || undone
            || update.is_unread()
            || (was_compared && pointers.may_have_gone_back(state_events(update)))
    }

    /// Whether the current state may not be what the response says, though all that it says was followed.
    fn state_is_partial(&self) -> bool {
        // A homeserver may tell of state in /state that it leaves out of /sync, such as aliases: a whole
        // state is none.
        if self.response.full || !self.before.bootstrapped {
            return true;
        }
        if self.update.section == Section::Leave {
            // It reports the state as it was then (P90), but what changed while the account was away is asked
            // to those who stay, and a timeline may hold what came too late to count.
            return self.rejoined;
        }
        // Beyond a hole a key may have lost its event, which only a whole state reports (P93).
        self.discontinuity().is_some()
    }
}
