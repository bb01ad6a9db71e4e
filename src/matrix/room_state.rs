//! Reads the room version, aliases and memberships from state events.

use serde::Deserialize;

use super::{Event, Membership, Stripped};

/// The room version in a create event. Without one it is 1 (specification, "m.room.create").
pub(crate) fn declared_version(create: &Event) -> String {
    #[derive(Deserialize)]
    struct Create {
        #[serde(default)]
        room_version: Option<String>,
    }
    let create: Option<Create> = serde_json::from_str(&create.content).ok();
    create.and_then(|create| create.room_version).unwrap_or_else(|| "1".to_owned())
}

/// The contents of a room's canonical alias among these events.
pub(crate) fn alias_contents(events: &[Event]) -> impl Iterator<Item = &str> {
    events.iter().filter(|event| event.is_state("m.room.canonical_alias")).map(|event| event.content.as_str())
}

/// The same among its stripped state.
pub(crate) fn stripped_aliases(state: &[Stripped]) -> impl Iterator<Item = &str> {
    let is_alias =
        |state: &&Stripped| state.event_type == "m.room.canonical_alias" && state.state_key.is_empty();
    state.iter().filter(is_alias).map(|state| state.content.as_str())
}

/// The aliases that contents of `m.room.canonical_alias` name.
pub(crate) fn aliases<'a>(contents: impl Iterator<Item = &'a str>) -> Vec<String> {
    let aliases = |content: &str| {
        let content: serde_json::Value = serde_json::from_str(content).ok()?;
        let others = content.get("alt_aliases").and_then(|others| others.as_array());
        let all = content.get("alias").into_iter().chain(others.into_iter().flatten());
        // Anything may be set here. An invalid alias does not affect the others.
        Some(all.filter_map(|alias| alias.as_str()).map(str::to_owned).collect::<Vec<_>>())
    };
    contents.filter_map(aliases).flatten().collect()
}

/// The membership in a member event, if it is that of `user_id`.
pub(crate) fn own_membership(event: &Event, user_id: &str) -> Option<Membership> {
    event.membership().filter(|(member, _)| *member == user_id).map(|(_, membership)| membership)
}

/// Whether this is a power event (specification, "Room Version 2"). State resolution applies power events before all
/// others.
pub(crate) fn takes_power(event: &Event) -> bool {
    match event.event_type.as_str() {
        "m.room.power_levels" | "m.room.join_rules" => true,
        _ => event
            .membership()
            .is_some_and(|(user_id, membership)| user_id != event.sender && membership.is_out()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_takes_power_and_a_leave_does_not() {
        let member = |user: &str, membership: &str| Event {
            event_type: "m.room.member".to_owned(),
            sender: "@a:hs".to_owned(),
            state_key: Some(user.to_owned()),
            content: format!(r#"{{"membership":"{membership}"}}"#),
            ..Event::default()
        };
        let topic = Event {
            event_type: "m.room.topic".to_owned(),
            state_key: Some(String::new()),
            ..Event::default()
        };
        assert!(takes_power(&member("@b:hs", "ban")) && takes_power(&member("@b:hs", "leave")));
        assert!(!takes_power(&member("@b:hs", "invite")) && !takes_power(&member("@a:hs", "leave")));
        assert!(!takes_power(&topic));
    }
}
