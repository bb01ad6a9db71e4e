//! Reads one room's part of a `/sync` response: the account's membership, the state, the current alias.

use super::{
    Event, Membership, RoomUpdate, Section,
    room_state::{alias_contents, own_membership},
};

/// The account's membership. A ban is listed like any other leave, so it is read from the account's member event.
pub(crate) fn membership(update: &RoomUpdate, user_id: &str) -> Membership {
    let last_membership = || state_events(update).filter_map(|event| own_membership(event, user_id)).last();
    match update.section {
        Section::Join => Membership::Join,
        Section::Invite => Membership::Invite,
        Section::Knock => Membership::Knock,
        Section::Leave if last_membership() == Some(Membership::Ban) => Membership::Ban,
        Section::Leave => Membership::Leave,
    }
}

pub(crate) fn after(update: &RoomUpdate) -> impl Iterator<Item = &Event> {
    update.state_after.iter().flat_map(|state| &state.events)
}

/// All events of the room in the response, those of the timeline last.
pub(crate) fn state_events(update: &RoomUpdate) -> impl Iterator<Item = &Event> {
    update.state.events.iter().chain(after(update)).chain(&update.timeline.events)
}

/// The content of the current canonical alias, if the response contains it. The last event counts, because the
/// response may also contain one that it has replaced.
pub(crate) fn canonical_alias(update: &RoomUpdate) -> Option<&str> {
    let latest_first = [update.state_after.as_ref(), Some(&update.timeline), Some(&update.state)];
    latest_first.into_iter().flatten().find_map(|section| alias_contents(&section.events).last())
}

/// The account's own member events with that membership in the timeline.
pub(crate) fn own<'a>(
    update: &'a RoomUpdate,
    user_id: &'a str,
    membership: Membership,
) -> impl Iterator<Item = &'a Event> {
    let is_own = move |event: &&Event| own_membership(event, user_id) == Some(membership);
    update.timeline.events.iter().filter(is_own)
}

/// The account's own last member event in the timeline.
pub(crate) fn last_of_own<'a>(update: &'a RoomUpdate, user_id: &str) -> Option<&'a Event> {
    update.timeline.events.iter().rfind(|event| own_membership(event, user_id).is_some())
}
