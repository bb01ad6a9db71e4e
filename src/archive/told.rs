//! What one room's part of a `/sync` response tells: the account's membership, whether events are missing before it, whether
//! it tells again what was told before, whether its state is all there is.

use super::{
    found::KnownEvents,
    gap,
    response::Response,
    room::{self, Room},
};
use crate::matrix::{Event, RoomBatch, Section};

/// Why events may be missing between the archive and this timeline; `None`: none are.
pub(super) fn discontinuity(
    response: &Response<'_>,
    before: &Room,
    told: &RoomBatch,
    rejoined: bool,
) -> Option<&'static str> {
    if response.is_first() {
        Some("the sync token was lost")
    } else if !before.watched {
        Some(gap::NOT_WATCHED)
    } else if rejoined {
        Some("the account was not in the room")
    } else if told.timeline_unread {
        Some("the room's timeline in a sync response could not be read")
    } else if told.limited {
        Some("the server left events out of the sync (limited timeline)")
    } else {
        None
    }
}

pub(super) fn membership(told: &RoomBatch, user_id: &str) -> String {
    let told_last = || state_events(told).filter_map(|event| room::own_membership(event, user_id)).last();
    let membership = match told.section {
        Section::Join => "join",
        Section::Invite => "invite",
        Section::Knock => "knock",
        Section::Leave if told_last().as_deref() == Some("ban") => "ban",
        Section::Leave => "leave",
    };
    membership.to_owned()
}

pub(super) fn after(told: &RoomBatch) -> impl Iterator<Item = &Event> {
    told.state_after.iter().flat_map(|state| &state.events)
}

/// All events of the response, those of the timeline last.
pub(super) fn state_events(told: &RoomBatch) -> impl Iterator<Item = &Event> {
    told.state.events.iter().chain(after(told)).chain(&told.timeline.events)
}

/// The content of the canonical alias in force, if the response tells it. A timeline may still tell, or its beginning have,
/// one that another has replaced.
pub(super) fn canonical_alias(told: &RoomBatch) -> Option<&str> {
    let latest_first = [told.state_after.as_ref(), Some(&told.timeline), Some(&told.state)];
    latest_first.into_iter().flatten().find_map(|section| room::alias_contents(&section.events).last())
}

/// Whether the account may see more of a room that it had left than its last leave let it see: it is back, or was between
/// this response and the last, or has left anew without a return (its ban was lifted, it declined an invite), up to which
/// the server shows the room now. That it was back may stand in what a limited timeline leaves out: nothing else is new in
/// a room that was left.
pub(super) fn rejoined(
    response: &Response<'_>,
    before: &Room,
    told: &RoomBatch,
    known: &KnownEvents,
) -> bool {
    if before.membership == "join" {
        return false;
    }
    if told.section != Section::Leave {
        return told.section == Section::Join;
    }
    let user_id = &response.account.user_id;
    if (told.limited && response.account.since.is_some()) || own(told, user_id, "join").next().is_some() {
        return true;
    }
    // Some servers tell of the same leave again and again.
    before.bootstrapped && has_unknown(known, own(told, user_id, "leave"))
}

fn has_unknown<'e>(known: &KnownEvents, mut events: impl Iterator<Item = &'e Event>) -> bool {
    events.any(|event| !known.contains_key(&event.event_id))
}

/// The account's own membership events of the timeline of that kind.
pub(super) fn own<'a>(
    told: &'a RoomBatch,
    user_id: &'a str,
    membership: &'a str,
) -> impl Iterator<Item = &'a Event> {
    let is_own = move |event: &&Event| room::own_membership(event, user_id).as_deref() == Some(membership);
    told.timeline.events.iter().filter(is_own)
}

/// The account's last membership event of the timeline.
pub(super) fn last_of_own<'a>(told: &'a RoomBatch, user_id: &str) -> Option<&'a Event> {
    told.timeline.events.iter().rfind(|event| room::own_membership(event, user_id).is_some())
}

/// Whether the timeline may tell again what the account was told before: after the loss of `since` and after a return, in the
/// graph's order; after a return from a leave since the last response, in either order. Any other timeline tells only what is new.
/// `known`: what was before anything of the response was stored: the return may stand in its state, too.
pub(super) fn tells_again(
    response: &Response<'_>,
    told: &RoomBatch,
    rejoined: bool,
    known: &KnownEvents,
) -> bool {
    response.is_first() || rejoined || has_unknown(known, own(told, &response.account.user_id, "join"))
}

/// Whether the current state may not be what the response says, though all that it says was followed.
pub(super) fn told_in_part(response: &Response<'_>, before: &Room, told: &RoomBatch, rejoined: bool) -> bool {
    // A homeserver may tell of state in /state that it leaves out of /sync, such as aliases: a whole state is none.
    if response.full || !before.bootstrapped {
        return true;
    }
    if told.section == Section::Leave {
        // It tells the state as it was then (P90), but what changed while the account was away is told to those who stay,
        // and a timeline may hold what came too late to count.
        return rejoined;
    }
    // Beyond a hole a key may have lost its event, which only a whole state tells (P93).
    discontinuity(response, before, told, rejoined).is_some()
}
