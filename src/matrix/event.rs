//! Parses an event into the fields of an archive row.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    Membership, bundled_edit,
    identifier::{MAX_ID, identifier},
    json::{self, Json, Member, Text},
    stable_hash,
};

/// The longest type or state key in bytes: 255 code points (P56). Both fit into one index entry (P117).
const MAX_KEY: usize = 1020;

/// The largest event in bytes. The specification allows 64 KiB ("Size limits"). `jsonb` has at most 256 MiB, and a value
/// may need six times as much there as its JSON: an array of zeros has two bytes for each, and needs twelve.
const MAX_EVENT: usize = 16 << 20;

/// An event in the client format (specification, "Room event format"), ready for the archive. Text fields are valid
/// PostgreSQL text: characters that it cannot store are escaped, see the comment of the column `archive.events.type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// At most 255 bytes, never empty.
    pub(crate) event_id: String,
    /// Event type.
    pub(crate) event_type: String,
    /// Sender.
    pub(crate) sender: String,
    /// `Some`, even if empty: a state event. `None`: not a state event.
    pub(crate) state_key: Option<String>,
    /// Milliseconds since 1970. `None`: the served value is not a 64-bit integer.
    pub(crate) origin_server_ts: Option<i64>,
    /// Content as text that `jsonb` accepts.
    pub(crate) content: String,
    /// `unsigned.replaces_state`.
    pub(crate) replaces_state: Option<String>,
    /// `unsigned.prev_content`, as text that `jsonb` accepts. `None` without `replaces_state`, which names the event
    /// with that content, so that its redaction also removes this copy.
    pub(crate) prev_content: Option<String>,
    /// `unsigned.prev_sender`: the sender of `prev_content`, if the server names it.
    pub(crate) prev_sender: Option<String>,
    /// The fields that few events have. Read them with [`Event::uncommon`], set them with `with_uncommon`.
    pub(crate) uncommon: Option<Box<Uncommon>>,
    /// Whether `content` may be that of an edit, with which old servers replace it (P60).
    pub(crate) maybe_edited_in_place: bool,
    /// A SHA-256 hash of the parts that are the same in every copy of the event that servers return (P63–P70).
    pub(crate) stable_sha256: [u8; 32],
}

/// The fields that few events have. They are separate to save memory: the state of a room of 100,000 members is in
/// memory at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uncommon {
    /// The exact bytes of the event, if they cannot be restored from the event's other fields.
    pub(crate) raw: Option<String>,
    /// Top-level `redacts`.
    pub(crate) redacts: Option<String>,
    /// `content.redacts`.
    pub(crate) content_redacts: Option<String>,
    /// The content that a state event has replaced, if the replaced event is not named.
    pub(crate) unnamed_prev: Option<UnnamedPrev>,
    /// The event that redacted this one, from `unsigned.redacted_because` or `redacted_by`.
    pub(crate) redacted_by: Option<String>,
    /// `m.relates_to.event_id`.
    pub(crate) relates_to: Option<String>,
    /// `m.relates_to.rel_type`.
    pub(crate) rel_type: Option<String>,
}

static NOTHING_UNCOMMON: Uncommon = Uncommon {
    raw: None,
    redacts: None,
    content_redacts: None,
    unnamed_prev: None,
    redacted_by: None,
    relates_to: None,
    rel_type: None,
};

/// The content that a state event has replaced, without the id of the replaced event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnnamedPrev {
    /// The content as text that `jsonb` accepts.
    pub(crate) content: String,
    /// `served`: from `unsigned`, which only the server writes. `top level`: as in the old client-server API
    /// (specification v1.1, `GET /rooms/{roomId}/messages`), where a sender may have written it.
    pub(crate) source: &'static str,
}

/// An event that is not valid, or a part of a response that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The bytes as served.
    pub(crate) raw: Box<str>,
    /// A SHA-256 hash of the parts that are the same in every copy: without the members that servers add, and without
    /// the id of the requested room.
    pub(crate) own_sha256: [u8; 32],
    /// The reason. It names the field, but never its content.
    pub(crate) reason: &'static str,
}

impl Malformed {
    /// A part of a response. Its hash ignores the value of a number or a string: a homeserver with such a bug may
    /// return another value in every response.
    pub(super) fn part(raw: &str, reason: &'static str) -> Self {
        let mut own = Json::parse(raw);
        let mut text = reason.to_owned();
        if matches!(own, Json::Object(_) | Json::Array(_)) {
            remove_derived(&mut own);
            own.write_canonical(&mut text);
        }
        Self { raw: raw.into(), own_sha256: Sha256::digest(text.as_bytes()).into(), reason }
    }
}

/// Removes the [derived](is_derived) members of all events in it.
fn remove_derived(value: &mut Json<'_>) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(remove_derived),
        Json::Object(members) => {
            members.retain(|(name, _)| !is_derived(name));
            for (_, value) in members {
                remove_derived(value);
            }
        }
        Json::Literal(_) | Json::Number(_) | Json::String(_) | Json::Deep(_) => {}
    }
}

impl Event {
    /// The fields that few events have.
    pub(crate) fn uncommon(&self) -> &Uncommon {
        self.uncommon.as_deref().unwrap_or(&NOTHING_UNCOMMON)
    }

    /// Changes the fields that few events have.
    pub(crate) fn with_uncommon(mut self, change: impl FnOnce(&mut Uncommon)) -> Self {
        let mut uncommon = self.uncommon.take().unwrap_or_default();
        change(&mut uncommon);
        self.uncommon = (*uncommon != NOTHING_UNCOMMON).then_some(uncommon);
        self
    }

    /// The event that this redaction redacts: from `content` in room version 11 and later, else from the top level.
    /// Servers send both, for clients of either kind (P71).
    pub(crate) fn redaction_target(&self, room_version: Option<&str>) -> Option<&str> {
        if self.event_type != "m.room.redaction" {
            return None;
        }
        let Uncommon { redacts, content_redacts, .. } = self.uncommon();
        let [top, content] = [redacts.as_deref(), content_redacts.as_deref()];
        if in_content(room_version) { content.or(top) } else { top.or(content) }
    }

    /// The event whose content this one repeats.
    pub(crate) fn replaced(&self) -> Option<&str> {
        self.prev_content.as_ref().and(self.replaces_state.as_deref())
    }

    /// Whether this is a state event of that type with an empty state key.
    pub(crate) fn is_state(&self, event_type: &str) -> bool {
        self.event_type == event_type && self.state_key.as_deref() == Some("")
    }

    /// The user and the membership, if this is a member event.
    pub(crate) fn membership(&self) -> Option<(&str, Membership)> {
        #[derive(Deserialize)]
        struct Member {
            membership: String,
        }
        let user_id = self.state_key.as_deref().filter(|_| self.event_type == "m.room.member")?;
        let member: Member = serde_json::from_str(&self.content).ok()?;
        Some((user_id, Membership::named(&member.membership)?))
    }
}

/// Whether redactions of this room version name their target in `content`. An unknown version counts as newer than 11.
fn in_content(room_version: Option<&str>) -> bool {
    !matches!(room_version, Some("1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "10"))
}

/// Parses one event of `room_id`. Other fields may be missing or have a wrong type. The bytes are then kept in
/// [`Uncommon::raw`].
///
/// # Errors
/// [`Malformed`] if it is too large, or if `event_id`, `type` or `sender` is missing or cannot be used as a key.
pub(crate) fn parse(room_id: &str, raw: &RawValue) -> Result<Event, Malformed> {
    let malformed =
        |reason| Malformed { raw: raw.get().into(), own_sha256: own_sha256(room_id, raw), reason };
    if raw.get().len() > MAX_EVENT {
        return Err(malformed("larger than an event may be"));
    }
    let members = json::members(raw).ok_or_else(|| malformed("not an object"))?;
    let mut fields = Fields::read(&members);
    if fields.room_id.is_some() && fields.room_id.and_then(as_identifier).as_deref() != Some(room_id) {
        return Err(malformed("room_id names another room"));
    }
    // A `state_key` of null counts as none. Homeservers, such as Synapse, and clients do not treat such an event as
    // state. The specification allows only strings ("Room event format").
    let has_null_key = fields.state_key == Some("null");
    fields.state_key = fields.state_key.filter(|_| !has_null_key);
    let mut faithful = fields.all_known_once && !has_null_key;
    let mut required = |value, max, reason| {
        let (column, unaltered) =
            text(value).filter(|(text, _)| text.len() <= max).ok_or_else(|| malformed(reason))?;
        faithful &= unaltered;
        Ok(column)
    };
    let event_id = required(fields.event_id, MAX_ID, "event_id is missing, not a string, or too long")?;
    if event_id.is_empty() {
        return Err(malformed("event_id is empty"));
    }
    let event_type = required(fields.event_type, MAX_KEY, "type is missing, not a string, or too long")?;
    let sender = required(fields.sender, MAX_KEY, "sender is missing, not a string, or too long")?;
    let state_key = match fields.state_key {
        None => None,
        state_key => Some(required(state_key, MAX_KEY, "state_key is not a string, or is too long")?),
    };

    let (origin_server_ts, exact) = timestamp(fields.origin_server_ts);
    faithful &= exact;
    let content_json = fields.content.map_or(Json::Object(Vec::new()), Json::parse);
    faithful &= fields.content.is_some();
    let mut content = String::with_capacity(fields.content.map_or(2, str::len));
    faithful &= content_json.write_jsonb(&mut content);

    let redaction = event_type == "m.room.redaction";
    let redacts = fields.redacts.and_then(as_identifier);
    let content_redacts = if redaction { content_json.get("redacts").and_then(identifier) } else { None };
    faithful &= redacts.is_some() || fields.redacts.is_none();
    // There is one column for both.
    faithful &= redacts.is_none() || content_redacts.is_none() || redacts == content_redacts;
    let (relates_to, rel_type) = relation(&content_json);
    let unsigned = fields.unsigned.and_then(json::members_of).unwrap_or_default();
    let unsigned = Fields::read(&unsigned);
    // These are read only from `unsigned`, which the own server writes. The server may repeat them at the top level
    // for old clients (P64), but there the sender's server can write anything. Only the replaced content is also read
    // from there, as the last choice.
    let replaces_state = unsigned.replaces_state.and_then(as_identifier);
    let unnamed_prev = if state_key.is_some() && replaces_state.is_none() {
        unnamed_prev(unsigned.prev_content, "served").or_else(|| {
            unnamed_prev(fields.prev_content.filter(|_| unsigned.prev_content.is_none()), "top level")
        })
    } else {
        None
    };
    let relations = unsigned.relations.map(Json::parse);
    let maybe_edited_in_place = relations.is_some_and(|it| bundled_edit::may_stand_in(&content_json, &it));
    let (top, inner) = (redacts.as_deref(), content_redacts.as_deref());
    let stable_sha256 = stable_hash::of(room_id, &fields.hashed(), content_json, top, inner);

    let uncommon = Uncommon {
        raw: (!faithful).then(|| stable_text(&members)),
        redacts,
        content_redacts,
        unnamed_prev,
        redacted_by: redacted_by(&unsigned),
        relates_to,
        rel_type,
    };
    let event = Event {
        prev_content: unsigned.prev_content.filter(|_| replaces_state.is_some()).and_then(object),
        replaces_state,
        prev_sender: unsigned.prev_sender.and_then(as_identifier),
        maybe_edited_in_place,
        stable_sha256,
        event_id,
        event_type,
        sender,
        state_key,
        origin_server_ts,
        content,
        uncommon: None,
    };
    Ok(event.with_uncommon(|it| *it = uncommon))
}

/// The id and the type of `m.relates_to`.
pub(crate) fn relation(content: &Json<'_>) -> (Option<String>, Option<String>) {
    let Some(relation) = content.get("m.relates_to") else { return (None, None) };
    let rel_type = relation.get("rel_type").and_then(Json::as_text).map(|text| text.to_column().0);
    (relation.get("event_id").and_then(identifier), rel_type)
}

/// A stripped state event (specification, "Stripped state").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stripped {
    /// Event type.
    pub(crate) event_type: String,
    /// State key.
    pub(crate) state_key: String,
    /// Claimed sender.
    pub(crate) sender: String,
    /// Content as text that `jsonb` accepts.
    pub(crate) content: String,
}

/// Parses one stripped state event. `None`: it is not valid. It can be dropped, because stripped state is only shown.
pub(super) fn parse_stripped(raw: &RawValue) -> Option<Stripped> {
    if raw.get().len() > MAX_EVENT {
        return None;
    }
    let members = json::members(raw)?;
    let fields = Fields::read(&members);
    let key = |value| text(value).map(|(text, _)| text).filter(|text| text.len() <= MAX_KEY);
    let mut content = String::new();
    Json::parse(fields.content?).write_jsonb(&mut content);
    Some(Stripped {
        event_type: key(fields.event_type)?,
        state_key: key(fields.state_key)?,
        sender: key(fields.sender)?,
        content,
    })
}

/// The members as served, without the derived ones.
fn stable_text(members: &[Member<'_>]) -> String {
    let kept: Vec<_> =
        members.iter().filter(|member| !is_derived(&member.name)).map(|member| member.whole).collect();
    format!("{{{}}}", kept.join(","))
}

/// The hash that identifies an invalid event.
fn own_sha256(room_id: &str, raw: &RawValue) -> [u8; 32] {
    let Some(mut members) = json::members(raw) else { return Sha256::digest(raw.get()).into() };
    let names_room = |value| as_identifier(value).as_deref() == Some(room_id);
    members.retain(|member| !(member.name.is("room_id") && names_room(member.value)));
    Sha256::digest(stable_text(&members)).into()
}

fn object(value: &str) -> Option<String> {
    let value = Json::parse(value);
    let mut text = String::new();
    matches!(value, Json::Object(_)).then(|| value.write_jsonb(&mut text))?;
    Some(text)
}

fn unnamed_prev(content: Option<&str>, source: &'static str) -> Option<UnnamedPrev> {
    Some(UnnamedPrev { content: object(content?)?, source })
}

/// The redacting event, from `redacted_because` of the specification or `redacted_by` of Synapse (P67).
fn redacted_by(fields: &Fields<'_>) -> Option<String> {
    let because = fields.redacted_because.map(Json::parse);
    because
        .as_ref()
        .and_then(|event| event.get("event_id"))
        .and_then(identifier)
        .or_else(|| fields.redacted_by.and_then(as_identifier))
}

/// A string as text for a column, and whether it is unchanged. `None`: the value is not a string.
fn text(value: Option<&str>) -> Option<(String, bool)> {
    Json::parse(value?).as_text().map(Text::to_column)
}

fn as_identifier(value: &str) -> Option<String> {
    identifier(&Json::parse(value))
}

/// `origin_server_ts` if it fits into a 64-bit integer (P115), and whether that is exactly what was served.
fn timestamp(token: Option<&str>) -> (Option<i64>, bool) {
    let Some(token) = token else { return (None, false) };
    if let Ok(exact) = token.parse() {
        return (Some(exact), token != "-0");
    }
    let whole = token.parse::<f64>().ok().filter(|value| value.fract() == 0.0 && value.abs() < 9e15);
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    (whole.map(|value| value as i64), false)
}

/// The values of an event's members, or of its `unsigned`, as text. Of duplicate names the last counts, as in most
/// JSON parsers.
#[derive(Default)]
struct Fields<'a> {
    content: Option<&'a str>,
    event_id: Option<&'a str>,
    origin_server_ts: Option<&'a str>,
    prev_content: Option<&'a str>,
    prev_sender: Option<&'a str>,
    redacted_because: Option<&'a str>,
    redacted_by: Option<&'a str>,
    redacts: Option<&'a str>,
    relations: Option<&'a str>,
    replaces_state: Option<&'a str>,
    room_id: Option<&'a str>,
    sender: Option<&'a str>,
    state_key: Option<&'a str>,
    event_type: Option<&'a str>,
    unsigned: Option<&'a str>,
    age: Option<&'a str>,
    user_id: Option<&'a str>,
    /// Whether there is a column for every member of the event, and no member occurs twice.
    all_known_once: bool,
}

impl<'a> Fields<'a> {
    fn hashed(&self) -> stable_hash::Members<'a> {
        stable_hash::Members {
            event_id: self.event_id,
            origin_server_ts: self.origin_server_ts,
            sender: self.sender,
            state_key: self.state_key,
            event_type: self.event_type,
        }
    }

    fn read(members: &[Member<'a>]) -> Self {
        let mut fields = Self { all_known_once: true, ..Self::default() };
        for member in members {
            let field = match member.name.as_bytes() {
                b"content" => &mut fields.content,
                b"event_id" => &mut fields.event_id,
                b"origin_server_ts" => &mut fields.origin_server_ts,
                b"redacts" => &mut fields.redacts,
                b"room_id" => &mut fields.room_id,
                b"sender" => &mut fields.sender,
                b"state_key" => &mut fields.state_key,
                b"type" => &mut fields.event_type,
                b"age" => &mut fields.age,
                b"prev_content" => &mut fields.prev_content,
                b"redacted_because" => &mut fields.redacted_because,
                b"replaces_state" => &mut fields.replaces_state,
                b"unsigned" => &mut fields.unsigned,
                b"user_id" => &mut fields.user_id,
                other => {
                    fields.all_known_once = false;
                    match other {
                        b"prev_sender" => &mut fields.prev_sender,
                        b"redacted_by" => &mut fields.redacted_by,
                        b"m.relations" => &mut fields.relations,
                        _ => continue,
                    }
                }
            };
            fields.all_known_once &= field.replace(member.value).is_none();
        }
        fields
    }
}

/// Whether a server adds this member (P58, P63, P64). [`parse`] reads what the columns need. Such members are not
/// kept in [`Uncommon::raw`]: they depend on the account and the time of the request, or repeat another event's
/// content, which that event's redaction would have to remove.
fn is_derived(name: &Text<'_>) -> bool {
    matches!(
        name.as_bytes(),
        b"age" | b"prev_content" | b"redacted_because" | b"replaces_state" | b"unsigned" | b"user_id"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "!r:hs";

    fn read(text: &str) -> Result<Event, Malformed> {
        let raw: Box<RawValue> = serde_json::from_str(text).expect("well-formed JSON");
        parse(ROOM, &raw)
    }

    fn event(text: &str) -> Event {
        read(text).expect("an event")
    }

    #[test]
    fn copies_of_what_is_no_event_have_one_hash() {
        let own = |text: &str| read(text).expect_err("no sender").own_sha256;
        let sync = own(r#"{"type":"m.x","event_id":"$e","content":{},"unsigned":{"age":1}}"#);
        let page =
            own(r#"{"type":"m.x","event_id":"$e","content":{},"room_id":"!r:hs","age":7,"user_id":"@a:hs",
                "unsigned":{"age":7,"prev_content":{"topic":"x"}}}"#);
        assert_eq!(sync, page);
        assert_ne!(sync, own(r#"{"type":"m.x","event_id":"$e","content":{"body":"other"}}"#));
        assert_ne!(sync, own(r#"{"type":"m.x","event_id":"$e","content":{},"room_id":"!other:hs"}"#));
    }

    #[test]
    fn copies_of_one_event_have_one_hash() {
        let sync = event(
            r#"{"type":"m.room.topic","sender":"@a:hs","content":{"topic":"x"},"state_key":"",
                "origin_server_ts":1,"event_id":"$1","unsigned":{"age":5,"transaction_id":"t"}}"#,
        );
        let messages = event(
            r#"{"type":"m.room.topic","room_id":"!r:hs","sender":"@a:hs","content":{"topic":"x"},
                "state_key":"","origin_server_ts":1,"user_id":"@a:hs","age":99,"event_id":"$1",
                "prev_content":{"topic":"w"},"replaces_state":"$0",
                "unsigned":{"age":99,"prev_content":{"topic":"w"},"replaces_state":"$0"}}"#,
        );
        assert_eq!(sync.stable_sha256, messages.stable_sha256);
        assert_eq!((sync.uncommon, messages.uncommon.clone()), (None, None));
        assert_eq!(messages.replaces_state.as_deref(), Some("$0"));
        assert_eq!(messages.prev_content.as_deref(), Some(r#"{"topic":"w"}"#));
    }

    #[test]
    fn what_the_sender_wrote_is_not_the_servers_word() {
        let forged = event(
            r#"{"type":"m.room.topic","sender":"@a:hs","content":{"topic":"x"},"state_key":"",
                "origin_server_ts":1,"event_id":"$1","prev_content":{"topic":"w"},"replaces_state":"$0","redacted_by":"$2",
                "redacted_because":{"event_id":"$2"},"unsigned":{"age":5}}"#,
        );
        assert_eq!((&forged.prev_content, &forged.replaces_state), (&None, &None));
        let Uncommon { redacted_by, unnamed_prev, .. } = forged.uncommon();
        assert_eq!(*redacted_by, None);
        assert_eq!(unnamed_prev.as_ref().map(|prev| prev.source), Some("top level"));
    }

    #[test]
    fn a_state_key_of_null_is_none() {
        let with = |key: &str| {
            event(&format!(
                r#"{{"type":"m.room.topic","sender":"@a:hs","content":{{}},"event_id":"$1",
                    "origin_server_ts":1{key}}}"#
            ))
        };
        let null = with(r#","state_key":null"#);
        assert_eq!((&null.state_key, null.stable_sha256), (&None, with("").stable_sha256));
        assert!(
            null.uncommon().raw.as_ref().is_some_and(|raw| raw.contains(r#""state_key":null"#)),
            "given back as served"
        );
    }

    #[test]
    fn previous_content_is_taken_only_where_its_event_is_named() {
        let nameless = event(
            r#"{"type":"m.room.topic","sender":"@a:hs","content":{"topic":"x"},"state_key":"",
                "origin_server_ts":1,"event_id":"$1","unsigned":{"prev_content":{"topic":"w"}}}"#,
        );
        assert_eq!(nameless.prev_content, None);
        let unnamed =
            |text: &str| event(text).uncommon().unnamed_prev.clone().map(|prev| (prev.source, prev.content));
        assert_eq!(nameless.uncommon().unnamed_prev.as_ref().map(|prev| prev.source), Some("served"));
        let state = r#""type":"t","sender":"s","event_id":"$1","content":{},"state_key":"""#;
        let old = |rest: &str| unnamed(&format!("{{{state},{rest}}}"));
        let content = |name: &str| format!(r#"{{"topic":"{name}"}}"#);
        assert_eq!(old(r#""prev_content":{"topic":"w"}"#), Some(("top level", content("w"))));
        let both = r#""prev_content":{"topic":"w"},"unsigned":{"prev_content":{"topic":"v"}}"#;
        assert_eq!(old(both), Some(("served", content("v"))));
        for none in [
            r#""prev_content":7"#,
            r#""prev_content":null"#,
            r#""prev_content":{},"unsigned":{"replaces_state":"$0"}"#,
            r#""prev_content":{},"unsigned":{"prev_content":7}"#,
        ] {
            assert_eq!(old(none), None, "{none}");
        }
        let no_state = r#"{"type":"t","sender":"s","event_id":"$1","content":{},"prev_content":{"a":1}}"#;
        assert_eq!(unnamed(no_state), None);
    }

    #[test]
    fn a_redaction_is_one_however_the_server_repeats_its_target() {
        let served = |redacts: &str, content: &str| {
            event(&format!(
                r#"{{"type":"m.room.redaction","sender":"@a:hs","event_id":"$2","origin_server_ts":1{redacts},
                    "content":{{"reason":"x"{content}}}}}"#
            ))
        };
        let [top, content] = [r#","redacts":"$1""#, r#","redacts":"$1""#];
        let copies = [served(top, ""), served("", content), served(top, content)];
        for copy in &copies {
            assert_eq!(copy.stable_sha256, copies[0].stable_sha256);
            assert_eq!(copy.redaction_target(Some("10")), Some("$1"));
            assert_eq!(copy.redaction_target(Some("11")), Some("$1"));
        }
        let torn = served(r#","redacts":"$1""#, r#","redacts":"$9""#);
        assert_eq!(torn.redaction_target(Some("10")), Some("$1"));
        assert_eq!(torn.redaction_target(Some("11")), Some("$9"));
        assert_ne!(torn.stable_sha256, copies[0].stable_sha256);
    }

    #[test]
    fn what_columns_cannot_give_back_is_kept_in_bytes() {
        let event = event(
            r#"{"type":"m\u0000","sender":"@a:hs","event_id":"$1","origin_server_ts":1.0,
                "content":{"body":"a\u0000"},"com.example":1,"unsigned":{"m.relations":{"x":"secret"}}}"#,
        );
        assert_eq!(event.event_type, "m\u{F8FE}0");
        assert_eq!(event.origin_server_ts, Some(1));
        assert_eq!(event.content, "{\"body\":\"a\u{fffd}\"}");
        let raw = event.uncommon().raw.as_deref().expect("kept");
        assert!(raw.contains(r#""body":"a\u0000""#) && raw.contains(r#""com.example":1"#));
        assert!(!raw.contains("secret"));
    }

    #[test]
    fn extreme_times_are_kept() {
        let at = |ts: &str| {
            let event = event(&format!(
                r#"{{"type":"t","sender":"s","event_id":"$1","origin_server_ts":{ts},"content":{{}}}}"#
            ));
            (event.origin_server_ts, event.uncommon().raw.is_some())
        };
        assert_eq!(at("0"), (Some(0), false));
        assert_eq!(at("9007199254740991"), (Some(9_007_199_254_740_991), false));
        assert_eq!(at("-1"), (Some(-1), false));
        assert_eq!(at("1e3"), (Some(1000), true));
        assert_eq!(at("1e300"), (None, true));
        assert_eq!(at(r#""soon""#), (None, true));
    }

    #[test]
    fn an_event_may_be_large_but_not_too_large() {
        let with = |zeros: usize| {
            let zeros = "0,".repeat(zeros);
            format!(
                r#"{{"type":"t","sender":"s","event_id":"$1","state_key":"","content":{{"a":[{zeros}0]}}}}"#
            )
        };
        let most = (MAX_EVENT - with(0).len()) / 2;
        assert_eq!(read(&with(most)).map(|event| event.event_id), Ok("$1".to_owned()));
        let larger = with(most + 1);
        let malformed = read(&larger).expect_err("too large");
        assert_eq!(malformed.reason, "larger than an event may be");
        assert!(*malformed.raw == larger, "kept to the byte");
        let stripped = |text: &str| {
            let raw: Box<RawValue> = serde_json::from_str(text).expect("well-formed JSON");
            parse_stripped(&raw)
        };
        assert!(stripped(&with(most)).is_some() && stripped(&larger).is_none());
    }

    #[test]
    fn no_key_no_event() {
        for (text, reason) in [
            ("[]", "not an object"),
            ("{}", "event_id is missing, not a string, or too long"),
            (r#"{"event_id":1,"type":"t","sender":"s"}"#, "event_id is missing, not a string, or too long"),
            (r#"{"event_id":"","type":"t","sender":"s"}"#, "event_id is empty"),
            (r#"{"event_id":"$1","sender":"s"}"#, "type is missing, not a string, or too long"),
            (r#"{"event_id":"$1","type":"t","sender":null}"#, "sender is missing, not a string, or too long"),
            (
                r#"{"event_id":"$1","type":"t","sender":"s","state_key":7}"#,
                "state_key is not a string, or is too long",
            ),
            (r#"{"event_id":"$1","type":"t","sender":"s","room_id":"!x:hs"}"#, "room_id names another room"),
        ] {
            assert_eq!(read(text).map_err(|malformed| malformed.reason), Err(reason));
        }
    }
}
