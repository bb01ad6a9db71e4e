//! Applies the redaction algorithm to an event.

use ruma::{
    RoomVersionId,
    canonical_json::{CanonicalJsonObject, CanonicalJsonValue, redact_content_in_place},
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, Membership, Uncommon, json::Json};
use crate::matrix;

/// The message that an event edits.
pub(crate) fn edited(event: &Event) -> Option<&str> {
    let Uncommon { relates_to, rel_type, .. } = event.uncommon();
    let is_edit = rel_type.as_deref() == Some("m.replace") && event.state_key.is_none();
    relates_to.as_deref().filter(|_| is_edit)
}

/// Whether this is a ban or kick that also redacts all of its user's events in the room (MSC4293). A server that
/// supports this redacts them when it serves them (P67).
pub(crate) fn redacts_all_of_a_user(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Removal {
        #[serde(default)]
        redact_events: bool,
        #[serde(default, rename = "org.matrix.msc4293.redact_events")]
        unstable: bool,
    }
    let removes = |(user_id, membership): (&str, Membership)| user_id != event.sender && membership.is_out();
    event.membership().is_some_and(removes)
        && serde_json::from_str(&event.content)
            .is_ok_and(|removal: Removal| removal.redact_events || removal.unstable)
}

/// The event as it is after a redaction.
pub(crate) fn pruned(room_id: &str, room_version: Option<&str>, event: &Event) -> Event {
    let content = content(room_version, &event.event_type, &event.content);
    let pruned = Event { stable_sha256: rehash(room_id, event, &content), content, ..event.clone() };
    pruned.with_uncommon(|it| (it.raw, it.relates_to, it.rel_type) = (None, None, None))
}

/// The event as [`pruned`], except that an edit keeps the relation to its message. Without it, nothing would tell the edit
/// from a message of its own.
pub(crate) fn pruned_but_relation_of_edit(room_id: &str, room_version: Option<&str>, event: &Event) -> Event {
    let pruned = pruned(room_id, room_version, event);
    if edited(event).is_none() {
        return pruned;
    }
    let Uncommon { relates_to, rel_type, .. } = event.uncommon().clone();
    pruned.with_uncommon(|it| (it.relates_to, it.rel_type) = (relates_to, rel_type))
}

/// The content after the redaction algorithm of the room's version (specification, "Redactions"). Empty if the
/// version is unknown.
pub(crate) fn content(room_version: Option<&str>, event_type: &str, content: &str) -> String {
    let rules = rules(room_version);
    let content = Json::parse(content);
    // ruma's values cannot contain numbers beyond 2^53 or lone surrogates, but ours can. So a copy without the values
    // is redacted, and its remaining members show what to keep.
    let (Some(rules), CanonicalJsonValue::Object(mut shadow)) = (rules, shadow(&content)) else {
        return "{}".to_owned();
    };
    redact_content_in_place(&mut shadow, &rules.redaction, event_type);
    let mut kept = String::new();
    if !retain(content, &shadow).write_jsonb(&mut kept) {
        // As the hash of the pruned event has it, so that the columns give the hash: 1e2 becomes 100.0.
        let normal: Option<serde_json::Value> = serde_json::from_str(&kept).ok();
        return normal.map_or_else(|| "{}".to_owned(), |normal| normal.to_string());
    }
    kept
}

/// Whether the rules of this room version are known.
pub(crate) fn knows(room_version: Option<&str>) -> bool {
    rules(room_version).is_some()
}

fn rules(room_version: Option<&str>) -> Option<RoomVersionRules> {
    room_version.and_then(|version| RoomVersionId::try_from(version).ok()).and_then(|id| id.rules())
}

fn shadow(value: &Json<'_>) -> CanonicalJsonValue {
    match value {
        Json::Object(members) => {
            let members =
                members.iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), shadow(value))));
            CanonicalJsonValue::Object(members.collect())
        }
        Json::Array(items) => CanonicalJsonValue::Array(items.iter().map(shadow).collect()),
        Json::String(text) => CanonicalJsonValue::String(text.to_column().0),
        Json::Literal("true") => CanonicalJsonValue::Bool(true),
        Json::Literal("false") => CanonicalJsonValue::Bool(false),
        Json::Literal(_) | Json::Number(_) | Json::Deep(_) => CanonicalJsonValue::Null,
    }
}

fn retain<'a>(value: Json<'a>, shadow: &CanonicalJsonObject) -> Json<'a> {
    let Json::Object(members) = value else { return value };
    let kept = members.into_iter().filter_map(|(name, value)| {
        let value = match shadow.get(name.as_str()?)? {
            CanonicalJsonValue::Object(shadow) => retain(value, shadow),
            _ => value,
        };
        Some((name, value))
    });
    Json::Object(kept.collect())
}

/// The stable hash of an event after its content was replaced, from its columns.
fn rehash(room_id: &str, event: &Event, content: &str) -> [u8; 32] {
    let content: Option<Box<RawValue>> = serde_json::from_str(content).ok();
    let mut copy = serde_json::json!({
        "event_id": event.event_id,
        "type": event.event_type,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
        "content": {},
    });
    if let Some(state_key) = &event.state_key {
        copy["state_key"] = state_key.as_str().into();
    }
    if let Some(content) = content.and_then(|content| serde_json::from_str(content.get()).ok()) {
        copy["content"] = content;
    }
    let raw = serde_json::value::to_raw_value(&copy).ok();
    raw.and_then(|raw| matrix::parse_event(room_id, &raw).ok())
        .map_or(event.stable_sha256, |parsed| parsed.stable_sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_pruned_by_the_version() {
        let levels = r#"{"ban":50,"invite":0,"users":{"@a:hs":100},"x":1}"#;
        assert_eq!(content(Some("10"), "m.room.power_levels", levels), r#"{"ban":50,"users":{"@a:hs":100}}"#);
        assert_eq!(
            content(Some("11"), "m.room.power_levels", levels),
            r#"{"ban":50,"invite":0,"users":{"@a:hs":100}}"#
        );
        let aliases = r##"{"aliases":["#a:hs"]}"##;
        assert_eq!(content(Some("5"), "m.room.aliases", aliases), aliases);
        assert_eq!(content(Some("6"), "m.room.aliases", aliases), "{}");
        assert_eq!(content(Some("9"), "m.room.message", r#"{"body":"x"}"#), "{}");
        let member = r#"{"membership":"join","displayname":"x","join_authorised_via_users_server":"@s:hs"}"#;
        assert_eq!(content(Some("8"), "m.room.member", member), r#"{"membership":"join"}"#);
        assert_eq!(
            content(Some("9"), "m.room.member", member),
            r#"{"membership":"join","join_authorised_via_users_server":"@s:hs"}"#
        );
    }

    #[test]
    fn what_is_kept_is_kept_to_the_letter() {
        let levels = r#"{"ban":123456789012345678901234567890,"kick":1.50,"x":1}"#;
        assert_eq!(
            content(Some("1"), "m.room.power_levels", levels),
            r#"{"ban":123456789012345678901234567890,"kick":1.50}"#
        );
        assert_eq!(content(Some("org.example"), "m.room.power_levels", levels), "{}");
        assert_eq!(content(None, "m.room.power_levels", levels), "{}");
    }
}
