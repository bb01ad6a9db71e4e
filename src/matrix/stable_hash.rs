//! The hash by which copies of an event are compared.
//!
//! It is the SHA-256 hash of the canonical JSON of {content, `event_id`, `origin_server_ts`, redacts, `room_id`, sender,
//! `state_key`, type}. It is the same for every copy of an event, from any endpoint, for any account and at any time
//! (P63–P70). A redaction's target is included once, even if the server repeats it (P72).

use sha2::{Digest as _, Sha256};

use super::{
    identifier::identifier,
    json::{self, Json},
};

/// The members of an event that the hash includes beside `content`, as JSON.
pub(super) struct Members<'a> {
    pub(super) event_id: Option<&'a str>,
    pub(super) origin_server_ts: Option<&'a str>,
    pub(super) sender: Option<&'a str>,
    pub(super) state_key: Option<&'a str>,
    pub(super) event_type: Option<&'a str>,
}

/// The columns of a row of `archive.events` that the hash includes beside `content`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) origin_server_ts: Option<i64>,
    pub(crate) sender: &'a str,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) event_type: &'a str,
    /// The target of a redaction, if the event had it at its top level.
    pub(crate) redacts: Option<&'a str>,
}

/// The hash of an event as served. `redacts`: its top-level member. `content_redacts`: that of its content.
pub(super) fn of(
    room_id: &str,
    members: &Members<'_>,
    content: Json<'_>,
    redacts: Option<&str>,
    content_redacts: Option<&str>,
) -> [u8; 32] {
    let (mut text, target) = begin(content, redacts, content_redacts);
    write_member(&mut text, "event_id", members.event_id);
    write_member(&mut text, "origin_server_ts", members.origin_server_ts);
    write_text(&mut text, "redacts", target);
    write_text(&mut text, "room_id", Some(room_id));
    write_member(&mut text, "sender", members.sender);
    write_member(&mut text, "state_key", members.state_key);
    write_member(&mut text, "type", members.event_type);
    end(text)
}

/// The hash of an event from its columns, for a row whose columns give all of the event.
pub(crate) fn of_columns(room_id: &str, columns: &Columns<'_>, content: Json<'_>) -> [u8; 32] {
    let content_redacts = content.get("redacts").filter(|_| columns.event_type == "m.room.redaction");
    let content_redacts = content_redacts.and_then(identifier);
    let (mut text, target) = begin(content, columns.redacts, content_redacts.as_deref());
    write_text(&mut text, "event_id", Some(columns.event_id));
    let origin_server_ts = columns.origin_server_ts.map_or_else(|| "null".to_owned(), |ts| ts.to_string());
    write_member(&mut text, "origin_server_ts", Some(&origin_server_ts));
    write_text(&mut text, "redacts", target);
    write_text(&mut text, "room_id", Some(room_id));
    write_text(&mut text, "sender", Some(columns.sender));
    write_text(&mut text, "state_key", columns.state_key);
    write_text(&mut text, "type", Some(columns.event_type));
    end(text)
}

/// The text up to the content, and the target of the redaction.
fn begin<'t>(
    mut content: Json<'_>,
    redacts: Option<&'t str>,
    content_redacts: Option<&'t str>,
) -> (String, Option<&'t str>) {
    let target = redacts.or(content_redacts);
    if target.is_some() && content_redacts == target {
        content.remove("redacts");
    }
    let mut text = String::with_capacity(1024);
    text.push_str("{\"content\":");
    content.write_canonical(&mut text);
    (text, target)
}

fn end(mut text: String) -> [u8; 32] {
    text.push('}');
    Sha256::digest(text.as_bytes()).into()
}

fn write_name(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

fn write_member(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        write_name(out, name);
        Json::parse(value).write_canonical(out);
    }
}

fn write_text(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        write_name(out, name);
        json::write_canonical_text(value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_give_the_hash_of_the_event() {
        let raw = r#"{"event_id":"$e\"x","type":"m.room.topic","state_key":"\n","sender":"@a:hs",
            "origin_server_ts":5,"content":{"topic":"\u00e4 \u0001","n":1.50}}"#;
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(raw).expect("JSON");
        let event = super::super::parse_event("!r:hs", &raw).expect("an event");
        let columns = Columns {
            event_id: &event.event_id,
            origin_server_ts: event.origin_server_ts,
            sender: &event.sender,
            state_key: event.state_key.as_deref(),
            event_type: &event.event_type,
            redacts: None,
        };
        let content = Json::parse("{\"n\": 1.50, \"topic\": \"\u{e4} \\u0001\"}");
        assert_eq!(of_columns("!r:hs", &columns, content.clone()), event.stable_sha256);
        assert_ne!(of_columns("!q:hs", &columns, content), event.stable_sha256);
    }
}
