//! One event as an archive row holds it.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    bundled_edit,
    json::{self, Json, Member, Text},
};

/// Longest Matrix identifier in bytes (specification, appendices, "Common Identifier Format").
const MAX_ID: usize = 255;
/// Longest type or state key in bytes: 255 code points (P56), and what an index entry of both can hold (P117).
const MAX_KEY: usize = 1020;

/// An event in the client format (specification, "Room event format"), ready for the archive. Text fields are safe for
/// PostgreSQL: what text cannot hold is escaped as [`archive.events.type`](crate) documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// At most 255 bytes, never empty.
    pub event_id: String,
    /// Event type.
    pub event_type: String,
    /// Sender.
    pub sender: String,
    /// `Some("")` is a state event, `None` is not.
    pub state_key: Option<String>,
    /// Milliseconds since 1970; `None` where the served value is no 64-bit integer.
    pub origin_server_ts: Option<i64>,
    /// Content as text that `jsonb` accepts.
    pub content: String,
    /// The stable members' exact bytes, where the other fields would not give them back.
    pub raw: Option<String>,
    /// Top-level `redacts`.
    pub redacts: Option<String>,
    /// `content.redacts`.
    pub content_redacts: Option<String>,
    /// `unsigned.replaces_state`.
    pub replaces_state: Option<String>,
    /// `unsigned.prev_content`, as text that `jsonb` accepts; only where `replaces_state` says whose it is, so that a
    /// redaction of that event finds it here.
    pub prev_content: Option<String>,
    /// What the event replaced, where nothing names the event that had it; only of state.
    pub unnamed_prev: Option<UnnamedPrev>,
    /// `unsigned.prev_sender`: whose content `prev_content` is, where the server says that.
    pub prev_sender: Option<String>,
    /// Event that redacted this one, from `unsigned.redacted_because` or `redacted_by`.
    pub redacted_by: Option<String>,
    /// `m.relates_to.event_id`.
    pub relates_to: Option<String>,
    /// `m.relates_to.rel_type`.
    pub rel_type: Option<String>,
    /// Whether `content` may be that of an edit, which old servers put in its place (P60).
    pub maybe_edited_in_place: bool,
    /// SHA-256 over what is the same in every copy that a server gives of the event (P63–P70).
    pub stable_sha256: [u8; 32],
}

/// What a state event is said to have replaced, without the name of the event that had this content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnnamedPrev {
    /// As text that `jsonb` accepts.
    pub content: String,
    /// `served` in `unsigned`, which is the server's; or at the `top level`, as by the old client-server API (specification
    /// v1.1, `GET /rooms/{roomId}/messages`), where a sender may have written it.
    pub source: &'static str,
}

/// What was served as an event and cannot be one, or as a part of an answer and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The bytes as served.
    pub raw: Box<str>,
    /// SHA-256 over what is the same in every copy: without what servers add, and without the id of the room asked for.
    pub own_sha256: [u8; 32],
    /// Why, naming the field and never its content.
    pub reason: &'static str,
}

impl Malformed {
    /// A part of an answer. One that holds nothing but a number or a text is the same whatever that is: a homeserver that
    /// errs once errs in every answer.
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

/// Removes what [is derived](is_derived) from all events within.
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
    /// What this redaction redacts: by the room version from `content` (11 and later) or from the top level; servers
    /// send both for the other kind of client (P71).
    pub fn redaction_target(&self, room_version: Option<&str>) -> Option<&str> {
        if self.event_type != "m.room.redaction" {
            return None;
        }
        let [top, content] = [self.redacts.as_deref(), self.content_redacts.as_deref()];
        if in_content(room_version) { content.or(top) } else { top.or(content) }
    }

    /// The event whose content this one repeats.
    pub fn replaced(&self) -> Option<&str> {
        self.prev_content.as_ref().and(self.replaces_state.as_deref())
    }

    /// Whether this is state of that type with an empty key.
    pub fn is_state(&self, event_type: &str) -> bool {
        self.event_type == event_type && self.state_key.as_deref() == Some("")
    }

    /// Who gets which membership by this, if it is a member event.
    pub fn membership(&self) -> Option<(&str, String)> {
        #[derive(Deserialize)]
        struct Member {
            membership: String,
        }
        let user_id = self.state_key.as_deref().filter(|_| self.event_type == "m.room.member")?;
        let member: Member = serde_json::from_str(&self.content).ok()?;
        Some((user_id, member.membership))
    }
}

/// Whether redactions of this room version name their target in `content`; an unknown version is a new one.
fn in_content(room_version: Option<&str>) -> bool {
    !matches!(room_version, Some("1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "10"))
}

/// Reads one event of `room_id`. Fields that are missing or of another type than the specification's are tolerated
/// where a row can still be keyed; the bytes are then kept in [`Event::raw`].
///
/// # Errors
/// [`Malformed`] where `event_id`, `type` or `sender` is missing or unusable as a key.
pub(crate) fn parse(room_id: &str, raw: &RawValue) -> Result<Event, Malformed> {
    let malformed =
        |reason| Malformed { raw: raw.get().into(), own_sha256: own_sha256(room_id, raw), reason };
    let members = json::members(raw).ok_or_else(|| malformed("not an object"))?;
    let mut fields = Fields::read(&members);
    if fields.room_id.is_some() && fields.room_id.and_then(as_identifier).as_deref() != Some(room_id) {
        return Err(malformed("room_id names another room"));
    }
    // A null is no key. Homeservers, Synapse among them, and clients take such an event for one that is no state; the
    // specification knows only strings ("Room event format").
    let has_null_key = fields.state_key == Some("null");
    fields.state_key = fields.state_key.filter(|_| !has_null_key);
    let mut faithful = fields.all_known_once && !has_null_key;
    let mut required = |value, max, reason| {
        let (column, unaltered) =
            text(value).filter(|(text, _)| text.len() <= max).ok_or_else(|| malformed(reason))?;
        faithful &= unaltered;
        Ok(column)
    };
    let event_id = required(fields.event_id, MAX_ID, "event_id is missing, no string or too long")?;
    if event_id.is_empty() {
        return Err(malformed("event_id is empty"));
    }
    let event_type = required(fields.event_type, MAX_KEY, "type is missing, no string or too long")?;
    let sender = required(fields.sender, MAX_KEY, "sender is missing, no string or too long")?;
    let state_key = match fields.state_key {
        None => None,
        state_key => Some(required(state_key, MAX_KEY, "state_key is no string or too long")?),
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
    let relation = content_json.get("m.relates_to");
    let (relates_to, rel_type) = (
        relation.and_then(|relation| relation.get("event_id")).and_then(identifier),
        relation
            .and_then(|relation| relation.get("rel_type"))
            .and_then(Json::as_text)
            .map(|text| text.to_column().0),
    );
    let unsigned = fields.unsigned.and_then(json::members_of).unwrap_or_default();
    let unsigned = Fields::read(&unsigned);
    // Of `unsigned` only, which is the server's: at the top level, where it may repeat these for old clients (P64), stands
    // whatever the sender's server signed. What is replaced is taken from there as the least of all words.
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
    let stable_sha256 =
        stable_sha256(room_id, &fields, content_json, redacts.as_deref(), content_redacts.as_deref());

    Ok(Event {
        redacts,
        content_redacts,
        prev_content: unsigned.prev_content.filter(|_| replaces_state.is_some()).and_then(object),
        replaces_state,
        unnamed_prev,
        prev_sender: unsigned.prev_sender.and_then(as_identifier),
        redacted_by: redacted_by(&unsigned),
        relates_to,
        rel_type,
        maybe_edited_in_place,
        raw: (!faithful).then(|| stable_text(&members)),
        stable_sha256,
        event_id,
        event_type,
        sender,
        state_key,
        origin_server_ts,
        content,
    })
}

/// A stripped state event (specification, "Stripped state").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripped {
    /// Event type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// Claimed sender.
    pub sender: String,
    /// Content as text that `jsonb` accepts.
    pub content: String,
}

/// Reads one stripped state event; `None` where it is none. Stripped state is only shown, so nothing is lost by that.
pub(super) fn parse_stripped(raw: &RawValue) -> Option<Stripped> {
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

/// SHA-256 over the canonical JSON of {content, `event_id`, `origin_server_ts`, redacts, `room_id`, sender,
/// `state_key`, type}. The same for every copy of an event that endpoints, requesters and times give (P63–P70): a
/// redaction's target counts once, wherever the server repeats it (P72).
fn stable_sha256(
    room_id: &str,
    fields: &Fields<'_>,
    mut content: Json<'_>,
    redacts: Option<&str>,
    content_redacts: Option<&str>,
) -> [u8; 32] {
    let target = redacts.or(content_redacts);
    if target.is_some() && content_redacts == target {
        content.remove("redacts");
    }
    let mut text = String::with_capacity(fields.content.map_or(0, str::len) + 512);
    text.push_str("{\"content\":");
    content.write_canonical(&mut text);
    for (name, value) in [("event_id", fields.event_id), ("origin_server_ts", fields.origin_server_ts)] {
        write_member(&mut text, name, value.map(Json::parse));
    }
    write_member(&mut text, "redacts", target.map(quoted).as_deref().map(Json::parse));
    write_member(&mut text, "room_id", Some(Json::parse(&quoted(room_id))));
    for (name, value) in
        [("sender", fields.sender), ("state_key", fields.state_key), ("type", fields.event_type)]
    {
        write_member(&mut text, name, value.map(Json::parse));
    }
    text.push('}');
    Sha256::digest(text.as_bytes()).into()
}

fn write_member(out: &mut String, name: &str, value: Option<Json<'_>>) {
    if let Some(value) = value {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":");
        value.write_canonical(out);
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The stable members as served, and all that no column knows.
fn stable_text(members: &[Member<'_>]) -> String {
    let kept: Vec<_> =
        members.iter().filter(|member| !is_derived(&member.name)).map(|member| member.whole).collect();
    format!("{{{}}}", kept.join(","))
}

/// What reports apart what cannot be an event.
fn own_sha256(room_id: &str, raw: &RawValue) -> [u8; 32] {
    let Some(mut members) = json::members(raw) else { return Sha256::digest(raw.get()).into() };
    let names_room = |value| as_identifier(value).as_deref() == Some(room_id);
    members.retain(|member| !(member.name.is("room_id") && names_room(member.value)));
    Sha256::digest(stable_text(&members)).into()
}

fn identifier(value: &Json<'_>) -> Option<String> {
    value
        .as_text()
        .and_then(Text::as_str)
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID)
        .map(str::to_owned)
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

/// The redacting event: `redacted_because` is the specification's, `redacted_by` Synapse's (P67).
fn redacted_by(fields: &Fields<'_>) -> Option<String> {
    let because = fields.redacted_because.map(Json::parse);
    because
        .as_ref()
        .and_then(|event| event.get("event_id"))
        .and_then(identifier)
        .or_else(|| fields.redacted_by.and_then(as_identifier))
}

/// A value as a column's text, and whether it stands there unaltered; `None` if it is no string.
fn text(value: Option<&str>) -> Option<(String, bool)> {
    Json::parse(value?).as_text().map(Text::to_column)
}

fn as_identifier(value: &str) -> Option<String> {
    identifier(&Json::parse(value))
}

/// `origin_server_ts` as far as a 64-bit integer holds it (P115), and whether that is what was served.
fn timestamp(token: Option<&str>) -> (Option<i64>, bool) {
    let Some(token) = token else { return (None, false) };
    if let Ok(exact) = token.parse() {
        return (Some(exact), token != "-0");
    }
    let whole = token.parse::<f64>().ok().filter(|value| value.fract() == 0.0 && value.abs() < 9e15);
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    (whole.map(|value| value as i64), false)
}

/// The values of an event's members, or of its `unsigned`, as text. Of several with one name the last counts, as readers
/// of JSON agree.
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
    /// Whether the columns know every member of an event, each once.
    all_known_once: bool,
}

impl<'a> Fields<'a> {
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

/// Members that servers add and that no column needs beyond what [`parse`] takes from them (P58, P63, P64). Not kept in
/// [`Event::raw`]: they depend on who asks and when, or repeat other events' content, which a redaction would have to
/// find there.
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
        assert_eq!((sync.raw, messages.raw.clone()), (None, None));
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
        assert_eq!((forged.prev_content, forged.replaces_state, forged.redacted_by), (None, None, None));
        assert_eq!(forged.unnamed_prev.map(|prev| prev.source), Some("top level"));
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
        assert_eq!((null.state_key, null.stable_sha256), (None, with("").stable_sha256));
        assert!(null.raw.is_some_and(|raw| raw.contains(r#""state_key":null"#)), "given back as served");
    }

    #[test]
    fn previous_content_is_taken_only_where_its_event_is_named() {
        let nameless = event(
            r#"{"type":"m.room.topic","sender":"@a:hs","content":{"topic":"x"},"state_key":"",
                "origin_server_ts":1,"event_id":"$1","unsigned":{"prev_content":{"topic":"w"}}}"#,
        );
        assert_eq!(nameless.prev_content, None);
        let unnamed = |text: &str| event(text).unnamed_prev.map(|prev| (prev.source, prev.content));
        assert_eq!(nameless.unnamed_prev.map(|prev| prev.source), Some("served"));
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
        let raw = event.raw.expect("kept");
        assert!(raw.contains(r#""body":"a\u0000""#) && raw.contains(r#""com.example":1"#));
        assert!(!raw.contains("secret"));
    }

    #[test]
    fn extreme_times_are_kept() {
        let at = |ts: &str| {
            let event = event(&format!(
                r#"{{"type":"t","sender":"s","event_id":"$1","origin_server_ts":{ts},"content":{{}}}}"#
            ));
            (event.origin_server_ts, event.raw.is_some())
        };
        assert_eq!(at("0"), (Some(0), false));
        assert_eq!(at("9007199254740991"), (Some(9_007_199_254_740_991), false));
        assert_eq!(at("-1"), (Some(-1), false));
        assert_eq!(at("1e3"), (Some(1000), true));
        assert_eq!(at("1e300"), (None, true));
        assert_eq!(at(r#""soon""#), (None, true));
    }

    #[test]
    fn no_key_no_event() {
        for (text, reason) in [
            ("[]", "not an object"),
            ("{}", "event_id is missing, no string or too long"),
            (r#"{"event_id":1,"type":"t","sender":"s"}"#, "event_id is missing, no string or too long"),
            (r#"{"event_id":"","type":"t","sender":"s"}"#, "event_id is empty"),
            (r#"{"event_id":"$1","sender":"s"}"#, "type is missing, no string or too long"),
            (r#"{"event_id":"$1","type":"t","sender":null}"#, "sender is missing, no string or too long"),
            (
                r#"{"event_id":"$1","type":"t","sender":"s","state_key":7}"#,
                "state_key is no string or too long",
            ),
            (r#"{"event_id":"$1","type":"t","sender":"s","room_id":"!x:hs"}"#, "room_id names another room"),
        ] {
            assert_eq!(read(text).map_err(|malformed| malformed.reason), Err(reason));
        }
    }
}
