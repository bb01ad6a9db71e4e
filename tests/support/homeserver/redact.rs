//! The redaction algorithm of room versions 1 to 12, written from the specification (P76) and from nothing else.

use super::json::Json;

const TOP_LEVEL: [&str; 12] = [
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
];
/// Kept at the top level until version 11.
const TOP_LEVEL_BEFORE_11: [&str; 3] = ["origin", "membership", "prev_state"];

/// The event with everything gone that a redaction takes away.
pub(super) fn prune(version: &str, event: &Json) -> Json {
    let version = version.parse::<u32>().unwrap_or(u32::MAX);
    let mut kept = TOP_LEVEL.to_vec();
    if version < 11 {
        kept.extend(TOP_LEVEL_BEFORE_11);
    }
    let kind = event.get("type").and_then(Json::text).unwrap_or_default();
    let empty = Json::Object(Vec::new());
    let content = event.get("content").unwrap_or(&empty);
    event.only(&kept).with("content", prune_content(version, &kind, content))
}

/// The content a redaction leaves; an unknown version keeps nothing.
fn prune_content(version: u32, kind: &str, content: &Json) -> Json {
    let since = |first: u32, key: &'static str| (version >= first).then_some(key);
    let until = |last: u32, key: &'static str| (version <= last).then_some(key);
    let kept: Vec<&str> = match kind {
        _ if version > 12 => vec![],
        "m.room.create" if version >= 11 => return content.clone(),
        "m.room.create" => vec!["creator"],
        "m.room.member" => {
            let kept: Vec<_> =
                ["membership"].into_iter().chain(since(9, "join_authorised_via_users_server")).collect();
            return keep_signed_invite(version, content, content.only(&kept));
        }
        "m.room.join_rules" => ["join_rule"].into_iter().chain(since(8, "allow")).collect(),
        "m.room.power_levels" => {
            let levels = [
                "ban",
                "events",
                "events_default",
                "kick",
                "redact",
                "state_default",
                "users",
                "users_default",
            ];
            levels.into_iter().chain(since(11, "invite")).collect()
        }
        "m.room.history_visibility" => vec!["history_visibility"],
        "m.room.aliases" => until(5, "aliases").into_iter().collect(),
        "m.room.redaction" => since(11, "redacts").into_iter().collect(),
        _ => vec![],
    };
    content.only(&kept)
}

/// From version 11 a member event keeps `third_party_invite.signed`.
fn keep_signed_invite(version: u32, content: &Json, member: Json) -> Json {
    match content.at(&["third_party_invite", "signed"]) {
        Some(signed) if version >= 11 => {
            let invite = Json::Object(vec![("signed".to_owned(), signed.clone())]);
            member.with("third_party_invite", invite)
        }
        _ => member,
    }
}
