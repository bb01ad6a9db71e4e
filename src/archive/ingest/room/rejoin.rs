//! Whether the account has come back to the room, and what that means for the response.

use super::{super::response::Response, RoomSync};
use crate::{
    archive::{event::lookup::KnownEvents, room::Room},
    matrix::{Event, Membership, RoomUpdate, Section, room_update::own},
};

/// Whether the account can see more of the room than at its last leave: it rejoined, or left again.
/// It may leave again without a return, after an unban or a declined invite; the server then shows
/// the room up to that point. The return may also be in the part that a limited timeline leaves
/// out, because nothing else is new in a room that the account has left.
pub(super) fn has_rejoined(
    response: &Response<'_>,
    before: &Room,
    update: &RoomUpdate,
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
    // Some servers report the same leave repeatedly.
    before.bootstrapped && has_unknown(known, own(update, user_id, Membership::Leave))
}

impl RoomSync<'_> {
    /// Whether the timeline may repeat events of earlier responses: after the loss of `since` and after
    /// a rejoin, in graph order; after a leave and a return since the last response, in either order.
    /// Any other timeline has only new events. It must be called before the response is stored, because
    /// the return may also be in its state.
    pub(super) fn may_repeat(&mut self) -> bool {
        let returns = own(self.update, &self.response.account.user_id, Membership::Join);
        self.response.is_first()
            || self.rejoined
            || has_unknown(self.portion.known(&self.room.room_id), returns)
    }
}

fn has_unknown<'e>(known: &KnownEvents, mut events: impl Iterator<Item = &'e Event>) -> bool {
    events.any(|event| !known.contains_key(&event.event_id))
}
