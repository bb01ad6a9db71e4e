//! A line of `events.jsonl`: an event as served, with what the archive knows of it.

use std::{borrow::Cow, fmt::Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    archive::{
        transfer::{ExportedEvent, ImportedEvent},
        verification::{Row, is_storable},
    },
    matrix::json::{Json, write_canonical_text},
    verify::seal::tree::{push_hex, unhex},
};

/// An event as served (specification, "Room event format").
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) event_id: Cow<'a, str>,
    #[serde(borrow)]
    room_id: Cow<'a, str>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow, default)]
    state_key: Option<Cow<'a, str>>,
    #[serde(default)]
    origin_server_ts: Option<i64>,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow, default)]
    redacts: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unsigned: Unsigned<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsigned<'a> {
    #[serde(borrow, default)]
    replaces_state: Option<Cow<'a, str>>,
    /// The event that redacted it.
    #[serde(borrow, default)]
    redacted_by: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prev_content: Option<&'a RawValue>,
    /// The rest of the row.
    #[serde(borrow, rename = "dev.backscroll")]
    extra: Extra<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra<'a> {
    /// Place in the room's order.
    #[serde(default)]
    position: Option<i64>,
    /// When it was stored, in microseconds since 1970.
    received_at: i64,
    #[serde(borrow)]
    stable_sha256: Cow<'a, str>,
    #[serde(borrow, default)]
    relates_to: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    rel_type: Option<Cow<'a, str>>,
    /// The event's exact JSON, where the rest does not give it.
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
}

/// Writes an event to `to`, which is emptied first, as [`Line`] reads it. The text that PostgreSQL makes of `jsonb` has no line
/// break.
pub(super) fn write(room_id: &str, event: &ExportedEvent, to: &mut String) {
    to.clear();
    to.push('{');
    let text = |to: &mut String, name: &str, value: Option<&str>| {
        if let Some(value) = value {
            member(to, name);
            write_canonical_text(value, to);
        }
    };
    let json = |to: &mut String, name: &str, value: Option<&str>| {
        if let Some(value) = value {
            member(to, name);
            to.push_str(value);
        }
    };
    text(to, "type", Some(&event.event_type));
    text(to, "event_id", Some(&event.event_id));
    text(to, "room_id", Some(room_id));
    text(to, "sender", Some(&event.sender));
    text(to, "state_key", event.state_key.as_deref());
    number(to, "origin_server_ts", event.origin_server_ts);
    json(to, "content", Some(&event.content));
    text(to, "redacts", event.redacts.as_deref());
    member(to, "unsigned");
    to.push('{');
    text(to, "replaces_state", event.replaces_state.as_deref());
    text(to, "redacted_by", event.redacted_by.as_deref());
    json(to, "prev_content", event.prev_content.as_deref());
    member(to, "dev.backscroll");
    to.push('{');
    number(to, "position", event.position);
    number(to, "received_at", Some(event.received_at));
    member(to, "stable_sha256");
    to.push('"');
    push_hex(&event.stable_sha256, to);
    to.push('"');
    text(to, "relates_to", event.relates_to.as_deref());
    text(to, "rel_type", event.rel_type.as_deref());
    text(to, "raw", event.raw.as_deref().map(String::from_utf8_lossy).as_deref());
    to.push_str("}}}");
}

/// Begins a member of an object.
fn member(to: &mut String, name: &str) {
    if !to.ends_with('{') {
        to.push(',');
    }
    to.push('"');
    to.push_str(name);
    to.push_str("\":");
}

fn number(to: &mut String, name: &str, value: Option<i64>) {
    if let Some(value) = value {
        member(to, name);
        let _ = write!(to, "{value}");
    }
}

impl<'a> Line<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("it is no event of an export: {error}"))
    }

    /// What is wrong with the event: its hash, its columns, or what PostgreSQL cannot store.
    pub(super) fn wrong(&self, room_id: &str, room_version: Option<&str>) -> Option<&'static str> {
        if self.room_id != room_id {
            return Some("the event is of another room");
        }
        let extra = &self.unsigned.extra;
        let prev_content = self.unsigned.prev_content.map(RawValue::get);
        let texts =
            [Some(&self.event_type), Some(&self.event_id), Some(&self.sender), self.state_key.as_ref()];
        let more = [
            &self.redacts,
            &self.unsigned.redacted_by,
            &extra.relates_to,
            &extra.rel_type,
            &self.unsigned.replaces_state,
        ];
        let texts = texts.into_iter().flatten().chain(more.into_iter().flatten());
        if texts.into_iter().any(|text| text.contains('\0'))
            || !is_storable(&Json::parse(self.content.get()))
            || prev_content.is_some_and(|content| !is_storable(&Json::parse(content)))
        {
            return Some("PostgreSQL cannot store it: it has a NUL, or a number that is too large");
        }
        let Some(stable_sha256) = unhex(&extra.stable_sha256) else {
            return Some("stable_sha256 is no hash");
        };
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let row = Row {
            room_id: room_id.to_owned(),
            event_id: self.event_id.to_string(),
            event_type: self.event_type.to_string(),
            sender: self.sender.to_string(),
            state_key: text(&self.state_key),
            origin_server_ts: self.origin_server_ts,
            content: self.content.get().to_owned(),
            redacts: text(&self.redacts),
            redacted_by: text(&self.unsigned.redacted_by),
            relates_to: text(&extra.relates_to),
            rel_type: text(&extra.rel_type),
            raw: extra.raw.as_deref().map(|raw| raw.as_bytes().to_vec()),
            stable_sha256,
            room_version: room_version.map(str::to_owned),
        };
        row.wrong()
    }

    /// The row. `sha256` is for its hash.
    pub(super) fn event<'b>(&'b self, sha256: &'b mut Vec<u8>) -> ImportedEvent<'b> {
        let extra = &self.unsigned.extra;
        *sha256 = unhex(&extra.stable_sha256).unwrap_or_default();
        ImportedEvent {
            event_id: &self.event_id,
            event_type: &self.event_type,
            sender: &self.sender,
            state_key: self.state_key.as_deref(),
            origin_server_ts: self.origin_server_ts,
            content: self.content.get(),
            redacts: self.redacts.as_deref(),
            redacted_by: self.unsigned.redacted_by.as_deref(),
            replaces_state: self.unsigned.replaces_state.as_deref(),
            prev_content: self.unsigned.prev_content.map(RawValue::get),
            relates_to: extra.relates_to.as_deref(),
            rel_type: extra.rel_type.as_deref(),
            raw: extra.raw.as_deref().map(str::as_bytes),
            stable_sha256: sha256,
            position: extra.position,
            received_at: extra.received_at,
        }
    }
}
