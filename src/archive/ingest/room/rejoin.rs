//! Whether the account has come back to the room, and what that means for the response.

use super::{super::response::Response, RoomSync};
use crate::{
    archive::{event::lookup::KnownEvents, room::Room},
    matrix::{Event, Membership, RoomBatch, Section, room_update::own},
};

/// Whether the account may see more of a room that it had left than its last leave let it see: it is back, or
/// was between this response and the last, or has left anew without a return (its ban was lifted, it declined
/// an invite), up to which the server shows the room now. That it was back may stand in what a limited
/// timeline leaves out: nothing else is new in a room that was left.
pub(super) fn has_rejoined(
    response: &Response<'_>,
    before: &Room,
    update: &RoomBatch,
    known: &KnownEvents,
) -> bool {
    if before.membership == Membership::Join {
        return false;
    }
    if update.section != Section::Leave {
        return update.section == Section::Join;
    }
    let user_id = &response.account.user_id;
    if (update.limited && response.account.since.is_some())
        || own(update, user_id, Membership::Join).next().is_some()
    {
        return true;
    }
    // Some servers tell of the same leave again and again.
    before.bootstrapped && has_unknown(known, own(update, user_id, Membership::Leave))
}

impl RoomSync<'_> {
    /// Whether the timeline may repeat what the account was reported before: after the loss of `since` and
    /// after a return, in the graph's order; after a return from a leave since the last response, in either
    /// order. Any other timeline reports only what is new. To be asked before anything of the response is
    /// stored: the return may stand in its state, too.
    pub(super) fn may_repeat(&mut self) -> bool {
        let returns = own(self.update, &self.response.account.user_id, Membership::Join);
        self.response.is_first()
            || self.rejoined
            || has_unknown(self.portion.known(self.room.room_key), returns)
    }
}

fn has_unknown<'e>(known: &KnownEvents, mut events: impl Iterator<Item = &'e Event>) -> bool {
    events.any(|event| !known.contains_key(&event.event_id))
}
