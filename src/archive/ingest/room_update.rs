//! Compares one room's part of a `/sync` response with the archive: whether events are missing before it, whether the
//! account has rejoined, whether it repeats earlier events, and whether its state is complete.

use super::response::Response;
use crate::{
    archive::{event::lookup::KnownEvents, room::Room, walk::gap},
    matrix::{Event, Membership, RoomBatch, Section, room_update::own},
};

/// Why events may be missing between the archive and this timeline. `None`: none are missing.
pub(in crate::archive) fn discontinuity(
    response: &Response<'_>,
    before: &Room,
    update: &RoomBatch,
    rejoined: bool,
) -> Option<&'static str> {
    if response.is_first() {
        Some("the sync token was lost")
    } else if !before.watched {
        Some(gap::NOT_WATCHED)
    } else if rejoined {
        Some("the account was not in the room")
    } else if update.timeline_unread {
        Some("the room's timeline in a sync response could not be read")
    } else if update.limited {
        Some("the server left events out of the sync (limited timeline)")
    } else {
        None
    }
}

/// Whether the account can see more of the room than at its last leave: it rejoined, or left again. It may leave
/// again without a return, after an unban or a declined invite; the server then shows the room up to that point. The
/// return may also be in the part that a limited timeline leaves out, because nothing else is new in a room that the
/// account has left.
pub(in crate::archive) fn rejoined(
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
    // Some servers report the same leave repeatedly.
    before.bootstrapped && has_unknown(known, own(update, user_id, Membership::Leave))
}

fn has_unknown<'e>(known: &KnownEvents, mut events: impl Iterator<Item = &'e Event>) -> bool {
    events.any(|event| !known.contains_key(&event.event_id))
}

/// Whether the timeline may repeat events of earlier responses: after the loss of `since` and after a rejoin, in
/// graph order; after a leave and a return since the last response, in either order. Any other timeline has only new
/// events. `known`: the look-up from before the response was stored, because the return may also be in its state.
pub(in crate::archive) fn may_repeat(
    response: &Response<'_>,
    update: &RoomBatch,
    rejoined: bool,
    known: &KnownEvents,
) -> bool {
    response.is_first()
        || rejoined
        || has_unknown(known, own(update, &response.account.user_id, Membership::Join))
}

/// Whether the current state may be wrong although everything in the response was applied.
pub(in crate::archive) fn state_is_partial(
    response: &Response<'_>,
    before: &Room,
    update: &RoomBatch,
    rejoined: bool,
) -> bool {
    // A homeserver may return state in /state that it leaves out of /sync, such as aliases. So even a whole state is
    // not complete.
    if response.full || !before.bootstrapped {
        return true;
    }
    if update.section == Section::Leave {
        // The server reports the state as it was at the leave (P90). If the account was back in between, the state may have
        // changed during its absence, and the timeline may contain late events that are not the current state.
        return rejoined;
    }
    // After a gap, a state key may have no event any more. Only the whole state shows that (P93).
    discontinuity(response, before, update, rejoined).is_some()
}
