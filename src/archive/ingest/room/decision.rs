//! Decides what to do with a room's part of a response.

use super::super::response::Response;
use crate::{
    archive::room::{self, Room},
    matrix::{
        Membership, RoomUpdate, Section, room_state,
        room_update::{canonical_alias, own, state_events},
    },
};

/// What to do with a room's part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// An invite or a knock. Its stripped state is stored if the room is wanted.
    Invited { is_wanted: bool },
    /// The account has left a room that it never joined, according to the response: it declined an
    /// invite, or its knock was rejected. Only the account's membership is stored.
    NeverJoined,
    /// The response lacks the create event of a new room, or shows a new alias that may change whether
    /// the room is wanted. Nothing is stored. The next request asks for the whole state.
    NeedFullState,
    /// The room is not wanted. Only the account's membership is stored.
    NotWatched,
    /// The room is new to the archive. Its events are stored without positions, and a history walk is
    /// opened.
    Bootstrap,
    /// The archive has the room. The timeline is appended.
    Append,
}

impl Decision {
    pub(super) fn of(response: &Response<'_>, before: &Room, update: &RoomUpdate) -> Self {
        let is_wanted =
            |aliases: &[&str]| room::is_wanted(response.rooms, &before.room_id, aliases.iter().copied());
        if matches!(update.section, Section::Invite | Section::Knock) {
            let aliases: Vec<&str> = room_state::stripped_aliases(&update.stripped).collect();
            return Self::Invited { is_wanted: is_wanted(&aliases) };
        }
        if was_never_joined(response, before, update) {
            return Self::NeverJoined;
        }
        let alias = canonical_alias(update);
        let is_wanted = is_wanted(alias.as_slice());
        // Without the whole state, a response without an alias does not mean that the room has none.
        let has_whole_state = response.full || has_create(update);
        if !has_whole_state && alias.is_some() && is_wanted != before.watched {
            return Self::NeedFullState;
        }
        let is_watched = if has_whole_state { is_wanted } else { before.watched };
        if !is_watched {
            Self::NotWatched
        } else if before.bootstrapped {
            Self::Append
        } else if has_whole_state {
            Self::Bootstrap
        } else {
            Self::NeedFullState
        }
    }
}

/// Whether nothing shows that the account was ever in the room that it has left.
fn was_never_joined(response: &Response<'_>, before: &Room, update: &RoomUpdate) -> bool {
    // Where the timeline leaves something out, the join may be in that; a whole state shows it.
    let shows_all = response.full || !update.limited;
    !before.bootstrapped
        && before.membership != Membership::Join
        && update.section == Section::Leave
        && !update.has_unreadable_parts()
        && !has_create(update)
        && own(update, &response.account.user_id, Membership::Join).next().is_none()
        && shows_all
}

fn has_create(update: &RoomUpdate) -> bool {
    state_events(update).any(|event| event.is_state("m.room.create"))
}
