//! What one room's part of a `/sync` response says: the account's membership, its state, the alias in force.

use super::{
    Event, RoomBatch, Section,
    room_state::{alias_contents, own_membership},
};

pub(crate) fn membership(told: &RoomBatch, user_id: &str) -> String {
    let told_last = || state_events(told).filter_map(|event| own_membership(event, user_id)).last();
    let membership = match told.section {
        Section::Join => "join",
        Section::Invite => "invite",
        Section::Knock => "knock",
        Section::Leave if told_last().as_deref() == Some("ban") => "ban",
        Section::Leave => "leave",
    };
    membership.to_owned()
}

pub(crate) fn after(told: &RoomBatch) -> impl Iterator<Item = &Event> {
    told.state_after.iter().flat_map(|state| &state.events)
}

/// All events of the response, those of the timeline last.
pub(crate) fn state_events(told: &RoomBatch) -> impl Iterator<Item = &Event> {
    told.state.events.iter().chain(after(told)).chain(&told.timeline.events)
}

/// The content of the canonical alias in force, if the response tells it. A timeline may still tell, or its beginning have,
/// one that another has replaced.
pub(crate) fn canonical_alias(told: &RoomBatch) -> Option<&str> {
    let latest_first = [told.state_after.as_ref(), Some(&told.timeline), Some(&told.state)];
    latest_first.into_iter().flatten().find_map(|section| alias_contents(&section.events).last())
}

/// The account's own membership events of the timeline of that kind.
pub(crate) fn own<'a>(
    told: &'a RoomBatch,
    user_id: &'a str,
    membership: &'a str,
) -> impl Iterator<Item = &'a Event> {
    let is_own = move |event: &&Event| own_membership(event, user_id).as_deref() == Some(membership);
    told.timeline.events.iter().filter(is_own)
}

/// The account's last membership event of the timeline.
pub(crate) fn last_of_own<'a>(told: &'a RoomBatch, user_id: &str) -> Option<&'a Event> {
    told.timeline.events.iter().rfind(|event| own_membership(event, user_id).is_some())
}
