//! Events: how a test writes them, and how the server serves them.

use super::json::{Json, object, quote};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An event as a test writes it; everything after `kind` and `content` has a default.
///
/// `content` and the values of `with` are JSON text, served as they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) sender: String,
    pub(crate) state_key: Option<String>,
    pub(crate) content: String,
    pub(crate) origin_server_ts: Option<String>,
    pub(crate) redacts: Option<String>,
    pub(crate) extra: Vec<(String, String)>,
}

impl Event {
    /// An event of any type; from Alice unless said otherwise.
    pub(crate) fn new(kind: &str, content: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            sender: super::ALICE.to_owned(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// A text message.
    pub(crate) fn message(body: &str) -> Self {
        Self::new("m.room.message", object(&[("msgtype", quote("m.text")), ("body", quote(body))]))
    }

    /// A state event.
    pub(crate) fn state(kind: &str, state_key: &str, content: impl Into<String>) -> Self {
        Self { state_key: Some(state_key.to_owned()), ..Self::new(kind, content) }
    }

    /// A membership event about `user`, sent by `user`.
    pub(crate) fn member(user: &str, membership: &str) -> Self {
        let content = object(&[("membership", quote(membership)), ("displayname", quote(user))]);
        Self::state("m.room.member", user, content).from(user)
    }

    /// A redaction; the server files `target` where the room's version has it.
    pub(crate) fn redaction(target: &str) -> Self {
        Self { redacts: Some(target.to_owned()), ..Self::new("m.room.redaction", r#"{"reason":"model"}"#) }
    }

    pub(crate) fn from(mut self, sender: &str) -> Self {
        sender.clone_into(&mut self.sender);
        self
    }

    /// With this `origin_server_ts`, which says nothing about the order (P21).
    pub(crate) fn at(mut self, origin_server_ts: i64) -> Self {
        self.origin_server_ts = Some(origin_server_ts.to_string());
        self
    }

    /// With one more top-level field, `json` as it stands.
    pub(crate) fn with(mut self, field: &str, json: &str) -> Self {
        self.extra.push((field.to_owned(), json.to_owned()));
        self
    }

    /// What the model can make out of an event given as bytes; what is missing or mistyped stays empty.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let json = Json::from_bytes(bytes).unwrap_or(Json::Object(Vec::new()));
        let text = |path: &[&str]| json.at(path).and_then(Json::text);
        Self {
            kind: text(&["type"]).unwrap_or_default(),
            sender: text(&["sender"]).unwrap_or_default(),
            state_key: text(&["state_key"]),
            content: json.get("content").map_or_else(|| "{}".to_owned(), Json::write),
            origin_server_ts: json.get("origin_server_ts").map(Json::write),
            redacts: text(&["redacts"]).or_else(|| text(&["content", "redacts"])),
            extra: Vec::new(),
        }
    }

    /// The (type, state key) this event sets, if it is state: an empty key is a key (P57).
    pub(super) fn slot(&self) -> Option<Slot> {
        self.state_key.clone().map(|key| (self.kind.clone(), key))
    }

    /// The event this one redacts, if it is a redaction.
    pub(super) fn target(&self) -> Option<&str> {
        self.redacts.as_deref().filter(|_| self.kind == "m.room.redaction")
    }

    pub(super) fn content_text(&self, field: &str) -> Option<String> {
        Json::parse(&self.content)?.get(field)?.text()
    }
}

/// What a current-state event is current for.
pub(crate) type Slot = (String, String);

/// An event the server keeps.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: String,
    /// Arrival order; negative for history the server fetched from others (P47).
    pub(super) stream: i64,
    pub(super) event: Event,
    /// The bytes to serve, when the test gave bytes.
    pub(super) raw: Option<Vec<u8>>,
    /// The state event this one replaced on its own branch (P66).
    pub(super) replaces: Option<String>,
    /// The redaction that emptied it; never forgotten, even if that redaction is redacted itself (P78).
    pub(super) redacted_by: Option<String>,
    /// Whether the server has it at all; `hide` and `reveal`.
    pub(super) known: bool,
    /// Whether it has been purged (P137).
    pub(super) purged: bool,
    /// Whether the account may not see it (P2, P102).
    pub(super) concealed: bool,
    /// A state event in force on the branch that this event ends, though not in the room (P86).
    pub(super) branch: Option<usize>,
    pub(super) last_served: Option<Vec<u8>>,
    served: HashSet<u64>,
}

impl Stored {
    pub(super) fn new(id: String, stream: i64, event: Event, raw: Option<Vec<u8>>) -> Self {
        Self {
            id,
            stream,
            event,
            raw,
            replaces: None,
            redacted_by: None,
            known: true,
            purged: false,
            concealed: false,
            branch: None,
            last_served: None,
            served: HashSet::new(),
        }
    }

    /// Whether the server has the event and has not thrown it away.
    pub(super) fn is_kept(&self) -> bool {
        self.known && !self.purged
    }

    /// The event that this one edits, if it is made as an edit: an `m.replace` with a new content.
    pub(super) fn edited_id(&self) -> Option<String> {
        let content = Json::parse(&self.event.content)?;
        let relation = content.get("m.relates_to")?;
        let text = |name| relation.get(name).and_then(Json::text);
        content.get("m.new_content")?;
        text("event_id").filter(|_| text("rel_type").as_deref() == Some("m.replace"))
    }

    /// Whether this may edit `original`: it has its sender and its type.
    pub(super) fn may_edit(&self, original: &Self) -> bool {
        (&self.event.sender, &self.event.kind) == (&original.event.sender, &original.event.kind)
    }

    /// The content that `edit` gives this event, which keeps its own relation.
    pub(super) fn edited_by(&self, edit: &Self) -> Option<Json> {
        let edited = Json::parse(&edit.event.content)?.get("m.new_content")?.clone();
        let own = Json::parse(&self.event.content)?;
        Some(match own.get("m.relates_to") {
            Some(relation) => edited.with("m.relates_to", relation.clone()),
            None => edited,
        })
    }

    /// All that servers of old bundled of an edit.
    pub(super) fn named(&self) -> String {
        let ts = self.event.origin_server_ts.clone().unwrap_or_else(|| "0".to_owned());
        let (event_id, sender) = (quote(&self.id), quote(&self.event.sender));
        object(&[("event_id", event_id), ("origin_server_ts", ts), ("sender", sender)])
    }

    pub(super) fn note_served(&mut self, bytes: &[u8]) {
        self.served.insert(digest(bytes));
        self.last_served = Some(bytes.to_vec());
    }

    pub(super) fn was_served_as(&self, bytes: &[u8]) -> bool {
        self.served.contains(&digest(bytes))
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What a server makes of edits (P60).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Edits {
    /// Nothing: as a plain timeline of /sync, which bundles no relations (P38).
    #[default]
    Alone,
    /// The edited event is served with the whole edit bundled, as since specification v1.7.
    Bundled,
    /// The edited event is served with the edit's content, but by /event, as before.
    InPlace,
}

/// The shapes in which one event is served (P58, P63-P67).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// In a /sync timeline: no `room_id` (P37), no legacy copies.
    SyncTimeline,
    /// In a /sync state section: as there, and no `prev_content` (P64).
    SyncState,
    /// By /messages and /context: with `room_id` and the legacy top-level copies.
    Client,
    /// By /event: as there, and never with another content than its own.
    Event,
    /// By /state: as there, but no `prev_content`.
    ClientState,
}

impl Shape {
    fn has_prev_content(self) -> bool {
        matches!(self, Self::SyncTimeline | Self::Client | Self::Event)
    }

    pub(super) fn has_legacy_copies(self) -> bool {
        matches!(self, Self::Client | Self::Event | Self::ClientState)
    }
}

/// What surrounds an event at the moment it is served.
pub(super) struct Setting {
    pub(super) age: u64,
    pub(super) shape: Shape,
    /// `unsigned.transaction_id`, for the account's own events (P63).
    pub(super) transaction_id: Option<String>,
    /// The sender and content of the replaced state event, if the account may see it.
    pub(super) previous: Option<(String, String)>,
    /// The redaction, served in the same shape (P67).
    pub(super) redaction: Option<(String, String)>,
    /// The newest edit as `m.replace` in `m.relations` has it.
    pub(super) edit: Option<String>,
    /// The edit's content, if it stands in the event's own place.
    pub(super) edited: Option<Json>,
}

impl Setting {
    /// `unsigned`, and behind it the copies old clients expect at the top level (P58).
    pub(super) fn fields(&self, stored: &Stored) -> Vec<(&'static str, String)> {
        let mut volatile = vec![("age", self.age.to_string())];
        if let Some(id) = &stored.replaces {
            volatile.push(("replaces_state", quote(id)));
        }
        if let Some((_, content)) = self.previous.as_ref().filter(|_| self.shape.has_prev_content()) {
            volatile.push(("prev_content", content.clone()));
        }
        if let Some((_, redaction)) = &self.redaction {
            volatile.push(("redacted_because", redaction.clone()));
        }
        let mut unsigned = volatile.clone();
        unsigned.push(("membership", quote("join")));
        unsigned.extend(self.transaction_id.as_ref().map(|id| ("transaction_id", quote(id))));
        unsigned.extend(self.redaction.as_ref().map(|(id, _)| ("redacted_by", quote(id))));
        let sender = self.previous.as_ref().filter(|_| self.shape.has_prev_content());
        unsigned.extend(sender.map(|(sender, _)| ("prev_sender", quote(sender))));
        let replace = self.edit.as_ref().map(|edit| object(&[("m.replace", edit.clone())]));
        unsigned.extend(replace.map(|relations| ("m.relations", relations)));

        let mut fields = vec![("unsigned", object(&unsigned))];
        if self.shape.has_legacy_copies() {
            fields.push(("user_id", quote(&stored.event.sender)));
            fields.extend(volatile);
        }
        fields
    }
}

/// The event as it is served, byte for byte what the test gave where it gave bytes and nothing was redacted.
pub(super) fn render(version: &str, room_id: &str, stored: &Stored, setting: &Setting) -> Vec<u8> {
    if let Some(raw) = stored.raw.as_ref().filter(|_| stored.redacted_by.is_none()) {
        return raw.clone();
    }
    let mut text = text_of(version, room_id, stored, setting.shape);
    if let Some((event, content)) = Json::parse(&text).zip(setting.edited.clone()) {
        text = event.with("content", content).write();
    }
    text.pop();
    for (name, value) in setting.fields(stored) {
        let comma = if text == "{" { "" } else { "," };
        text.extend([comma, &quote(name), ":", &value]);
    }
    text.push('}');
    text.into_bytes()
}

/// The event without what changes from one request to the next: an object's text.
fn text_of(version: &str, room_id: &str, stored: &Stored, shape: Shape) -> String {
    let room_id = Some(room_id).filter(|_| shape.has_legacy_copies());
    let original = match &stored.raw {
        Some(raw) => String::from_utf8_lossy(raw).into_owned(),
        None => assemble(version, room_id, stored),
    };
    if stored.redacted_by.is_none() && stored.event.kind != "m.room.redaction" {
        return original;
    }
    let event = Json::parse(&original).unwrap_or(Json::Object(Vec::new()));
    let event = if stored.redacted_by.is_some() { super::redact::prune(version, &event) } else { event };
    with_both_redacts(version, &event).write()
}

/// The content of an event as it is now, or, from a server that still has it in memory, as it was.
pub(super) fn content_now(version: &str, stored: &Stored, stale: bool) -> String {
    if stale || stored.redacted_by.is_none() {
        return stored.event.content.clone();
    }
    let content = Json::parse(&stored.event.content).unwrap_or(Json::Object(Vec::new()));
    let event =
        Json::Object(vec![("type".to_owned(), Json::of(&stored.event.kind))]).with("content", content);
    super::redact::prune(version, &event).get("content").map_or_else(|| "{}".to_owned(), Json::write)
}

/// The text of an event the test did not give as bytes.
fn assemble(version: &str, room_id: Option<&str>, stored: &Stored) -> String {
    let event = &stored.event;
    let mut fields = vec![
        ("type", quote(&event.kind)),
        ("sender", quote(&event.sender)),
        ("content", event.content.clone()),
        ("event_id", quote(&stored.id)),
        ("origin_server_ts", event.origin_server_ts.clone().unwrap_or_else(|| "0".to_owned())),
    ];
    fields.extend(room_id.map(|id| ("room_id", quote(id))));
    fields.extend(event.state_key.as_ref().map(|key| ("state_key", quote(key))));
    if let Some(target) = &event.redacts {
        let field = if redacts_in_content(version) { "content" } else { "redacts" };
        let content =
            Json::parse(&event.content).map(|content| content.with("redacts", Json::of(target)).write());
        fields.retain(|(name, _)| *name != field);
        fields.push((field, if field == "content" { content.unwrap_or_default() } else { quote(target) }));
    }
    fields.extend(event.extra.iter().map(|(name, json)| (name.as_str(), json.clone())));
    object(&fields)
}

/// Where a redaction names its target: from version 11 on in the content (P71).
fn redacts_in_content(version: &str) -> bool {
    version.parse::<u32>().is_ok_and(|version| version >= 11)
}

/// Synapse serves the target in both places, whichever is the signed one (P71, P72).
fn with_both_redacts(version: &str, event: &Json) -> Json {
    if event.get("type").and_then(Json::text).as_deref() != Some("m.room.redaction") {
        return event.clone();
    }
    if redacts_in_content(version) {
        event
            .at(&["content", "redacts"])
            .map_or_else(|| event.clone(), |target| event.with("redacts", target.clone()))
    } else if let (Some(target), Some(content)) = (event.get("redacts"), event.get("content")) {
        event.with("content", content.with("redacts", target.clone()))
    } else {
        event.clone()
    }
}

/// What may be compared between any two served copies of an event (P164): type, state key, sender, time and
/// content, the last without the copy of `redacts` that rooms up to version 10 get. Numbers stand as they were sent.
///
/// Nothing if the bytes are no JSON object the model can read; then only the bytes themselves can be compared.
pub(crate) fn stable_json(version: &str, bytes: &[u8]) -> Option<String> {
    let event = Json::from_bytes(bytes).filter(|json| matches!(json, Json::Object(_)))?;
    let stable = event.only(&["type", "state_key", "sender", "origin_server_ts", "content"]);
    let is_redaction = event.get("type").and_then(Json::text).as_deref() == Some("m.room.redaction");
    match event.get("content") {
        Some(content) if is_redaction && !redacts_in_content(version) => {
            Some(stable.with("content", content.without("redacts")).canonical())
        }
        _ => Some(stable.canonical()),
    }
}
