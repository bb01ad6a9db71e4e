//! What one room's part of a `/sync` response reports: the account's membership, whether events are missing before it, whether
//! it repeats what was sent before, whether its state is all there is.

use super::response::Response;
use crate::{
    archive::{event::lookup::KnownEvents, room::Room, walk::gap},
    matrix::{Event, Membership, RoomBatch, Section, room_update::own},
};

/// Why events may be missing between the archive and this timeline; `None`: none are.
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

/// Whether the account may see more of a room that it had left than its last leave let it see: it is back, or was between
/// this response and the last, or has left anew without a return (its ban was lifted, it declined an invite), up to which
/// the server shows the room now. That it was back may stand in what a limited timeline leaves out: nothing else is new in
/// a room that was left.
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
    // Some servers tell of the same leave again and again.
    before.bootstrapped && has_unknown(known, own(update, user_id, Membership::Leave))
}

fn has_unknown<'e>(known: &KnownEvents, mut events: impl Iterator<Item = &'e Event>) -> bool {
    events.any(|event| !known.contains_key(&event.event_id))
}

/// Whether the timeline may repeat what the account was reported before: after the loss of `since` and after a return, in the
/// graph's order; after a return from a leave since the last response, in either order. Any other timeline reports only what is new.
/// `known`: what was before anything of the response was stored: the return may stand in its state, too.
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

/// Whether the current state may not be what the response says, though all that it says was followed.
pub(in crate::archive) fn state_is_partial(
    response: &Response<'_>,
    before: &Room,
    update: &RoomBatch,
    rejoined: bool,
) -> bool {
    // A homeserver may tell of state in /state that it leaves out of /sync, such as aliases: a whole state is none.
    if response.full || !before.bootstrapped {
        return true;
    }
    if update.section == Section::Leave {
        // It reports the state as it was then (P90), but what changed while the account was away is asked to those who stay,
        // and a timeline may hold what came too late to count.
        return rejoined;
    }
    // Beyond a hole a key may have lost its event, which only a whole state reports (P93).
    discontinuity(response, before, update, rejoined).is_some()
}
