//! What the server answers to `/messages`, `/sync` and `/state`, with each event read on its own: one bad event never
//! costs its page (P59).

use std::{borrow::Cow, collections::BTreeMap};

use ruma::OwnedRoomId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Error,
    event::{self, Event, Malformed},
};

/// A pagination token: opaque, of any length, compared for equality only (P20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token as the server gave it; `None` for what no server means as one: the empty string (P5) and what
    /// PostgreSQL could not keep.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        let token = token.into();
        (!token.is_empty() && !token.contains('\0')).then_some(Self(token))
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Events of one section of an answer, in the order served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// What could be read.
    pub events: Vec<Event>,
    /// What could not.
    pub malformed: Vec<Malformed>,
}

/// An answer to `/messages`, or several that follow each other: for `dir=b`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The timeline.
    pub chunk: Events,
    /// State that the server thinks relevant to the chunk: no part of the timeline (P14).
    pub state: Events,
    /// Where the next page begins. Absent: the server gives no more, which alone does not mean the room's start (P4).
    pub end: Option<Token>,
    /// Length of the answer.
    pub bytes: usize,
    /// How many answers it is made of.
    pub answers: usize,
}

/// An answer to `/sync`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncBatch {
    /// `since` of the next request.
    pub next_batch: Token,
    /// Rooms with something to tell, in the order of their ids.
    pub rooms: Vec<RoomBatch>,
}

/// The account's membership as a section of `/sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `rooms.join`.
    Join,
    /// `rooms.leave`: left, kicked or banned.
    Leave,
    /// `rooms.invite`.
    Invite,
    /// `rooms.knock`.
    Knock,
}

/// What one `/sync` answer tells of one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomBatch {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Where it was listed.
    pub section: Section,
    /// New events in the order of arrival.
    pub timeline: Events,
    /// Whether events are missing before the timeline. False does not prove that none are (P28).
    pub limited: bool,
    /// Token before the timeline.
    pub prev_batch: Option<Token>,
    /// State changes up to the timeline's start.
    pub state: Events,
    /// State changes up to the timeline's end; if present, the only source of state (P87).
    pub state_after: Option<Events>,
    /// Stripped state of an invite or knock: no event ids (P105).
    pub stripped: Vec<Stripped>,
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

impl Events {
    fn read(room_id: &str, section: &[&RawValue]) -> Self {
        let mut events = Self::default();
        for raw in section {
            match event::parse(room_id, raw) {
                Ok(event) => events.events.push(event),
                Err(malformed) => events.malformed.push(malformed),
            }
        }
        events
    }

    fn append(&mut self, mut next: Self) {
        self.events.append(&mut next.events);
        self.malformed.append(&mut next.malformed);
    }
}

/// The body as text; what is no UTF-8 becomes U+FFFD.
fn text(body: &[u8]) -> Cow<'_, str> {
    // Many times faster than the lossy reading, and nearly always enough.
    std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

#[derive(Deserialize)]
struct WirePage<'a> {
    // Required, so that a stray `{}` from a proxy is not taken for the end of the room.
    #[serde(borrow)]
    chunk: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    end: Option<String>,
}

impl Page {
    /// Reads the body of a `/messages` answer about `room_id`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such answer. An unreadable event is none.
    pub fn parse(room_id: &str, body: &[u8]) -> Result<Self, Error> {
        let bytes = body.len();
        let body = text(body);
        let wire: WirePage<'_> =
            serde_json::from_str(&body).map_err(|error| Error::malformed("/messages", &error))?;
        Ok(Self {
            bytes,
            chunk: Events::read(room_id, &wire.chunk),
            state: Events::read(room_id, &wire.state.unwrap_or_default()),
            end: wire.end.and_then(Token::new),
            answers: 1,
        })
    }

    /// Makes one page of this and `next`, which was asked for from this one's `end`.
    pub fn append(&mut self, next: Self) {
        self.chunk.append(next.chunk);
        self.state.append(next.state);
        self.end = next.end;
        self.bytes += next.bytes;
        self.answers += next.answers;
    }
}

#[derive(Deserialize)]
struct WireSync<'a> {
    next_batch: String,
    #[serde(borrow, default)]
    rooms: Option<WireRooms<'a>>,
}

#[derive(Deserialize, Default)]
struct WireRooms<'a> {
    #[serde(borrow, default)]
    join: Option<BTreeMap<String, WireRoom<'a>>>,
    #[serde(borrow, default)]
    leave: Option<BTreeMap<String, WireRoom<'a>>>,
    #[serde(borrow, default)]
    invite: Option<BTreeMap<String, WireRoom<'a>>>,
    #[serde(borrow, default)]
    knock: Option<BTreeMap<String, WireRoom<'a>>>,
}

#[derive(Deserialize, Default)]
struct WireRoom<'a> {
    #[serde(borrow, default)]
    timeline: Option<WireTimeline<'a>>,
    #[serde(borrow, default)]
    state: Option<WireState<'a>>,
    #[serde(borrow, default)]
    state_after: Option<WireState<'a>>,
    #[serde(borrow, default, rename = "org.matrix.msc4222.state_after")]
    unstable_state_after: Option<WireState<'a>>,
    #[serde(borrow, default)]
    invite_state: Option<WireState<'a>>,
    #[serde(borrow, default)]
    knock_state: Option<WireState<'a>>,
}

#[derive(Deserialize, Default)]
struct WireTimeline<'a> {
    #[serde(borrow, default)]
    events: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    limited: Option<bool>,
    #[serde(default)]
    prev_batch: Option<String>,
}

#[derive(Deserialize, Default)]
struct WireState<'a> {
    #[serde(borrow, default)]
    events: Option<Vec<&'a RawValue>>,
}

impl WireState<'_> {
    fn read(self, room_id: &str) -> Events {
        Events::read(room_id, &self.events.unwrap_or_default())
    }
}

impl SyncBatch {
    /// Reads the body of a `/sync` answer.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such answer. An unreadable event is none.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let body = text(body);
        let wire: WireSync<'_> =
            serde_json::from_str(&body).map_err(|error| Error::malformed("/sync", &error))?;
        let next_batch =
            Token::new(wire.next_batch).ok_or_else(|| Error::Malformed("/sync: empty next_batch".into()))?;
        let sections = wire.rooms.unwrap_or_default();
        let mut rooms = Vec::new();
        for (section, listed) in [
            (Section::Join, sections.join),
            (Section::Leave, sections.leave),
            (Section::Invite, sections.invite),
            (Section::Knock, sections.knock),
        ] {
            for (room_id, room) in listed.unwrap_or_default() {
                rooms.push(RoomBatch::read(section, &room_id, room)?);
            }
        }
        rooms.sort_by(|left, right| left.room_id.cmp(&right.room_id));
        Ok(Self { next_batch, rooms })
    }
}

impl RoomBatch {
    fn read(section: Section, room_id: &str, wire: WireRoom<'_>) -> Result<Self, Error> {
        let timeline = wire.timeline.unwrap_or_default();
        let stripped = wire.invite_state.or(wire.knock_state).unwrap_or_default().events.unwrap_or_default();
        Ok(Self {
            section,
            timeline: Events::read(room_id, &timeline.events.unwrap_or_default()),
            limited: timeline.limited.unwrap_or_default(),
            prev_batch: timeline.prev_batch.and_then(Token::new),
            state: wire.state.unwrap_or_default().read(room_id),
            state_after: wire.state_after.or(wire.unstable_state_after).map(|state| state.read(room_id)),
            stripped: stripped.iter().filter_map(|raw| event::parse_stripped(raw)).collect(),
            room_id: room_id
                .try_into()
                .map_err(|_| Error::Malformed("/sync: a room id that is none".into()))?,
        })
    }
}

/// Reads the body of a `/state` answer about `room_id`: an array of events.
///
/// # Errors
/// [`Error::Malformed`] if it is no array.
pub(super) fn parse_state(room_id: &str, body: &[u8]) -> Result<Events, Error> {
    let body = text(body);
    let wire: Vec<&RawValue> =
        serde_json::from_str(&body).map_err(|error| Error::malformed("/state", &error))?;
    Ok(Events::read(room_id, &wire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_is_a_token() {
        let end = |end: &str| {
            let body = format!(r#"{{"chunk":[],"start":"s"{end}}}"#);
            Page::parse("!r:hs", body.as_bytes()).expect("a page").end
        };
        assert_eq!(end(""), None);
        assert_eq!(end(r#","end":null"#), None);
        assert_eq!(end(r#","end":"""#), None);
        assert_eq!(end(r#","end":"t1""#), Token::new("t1"));
    }

    /// What a server leaves empty in its own way, or tells under both names, costs nothing of the rest.
    #[test]
    fn a_sync_may_hold_nulls_and_both_names() {
        let body = br#"{"next_batch":"s","rooms":{"leave":null,"join":{"!r:hs":{
            "timeline":{"events":null,"limited":null,"prev_batch":null},"state":{"events":null},
            "state_after":{"events":[]},"org.matrix.msc4222.state_after":{"events":[]}}}}}"#;
        let batch = SyncBatch::parse(body).expect("a batch");
        let [room] = batch.rooms.as_slice() else { panic!("one room") };
        assert!(!room.limited && room.prev_batch.is_none() && room.state_after.is_some());
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for body in
            ["", "{}", "[]", "<html>", r#"{"chunk":null}"#, r#"{"chunk":[],"end":1}"#, r#"{"chunk":[{"#]
        {
            assert!(Page::parse("!r:hs", body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_bad_event_leaves_its_neighbours() {
        let body = r#"{"chunk":[{"type":"t","sender":"s","event_id":"$1","content":{},"origin_server_ts":1},
            {"event_id":7},3,{"type":"t","sender":"s","event_id":"$2","content":{},"origin_server_ts":1}]}"#;
        let page = Page::parse("!r:hs", body.as_bytes()).expect("a page");
        let ids: Vec<_> = page.chunk.events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids, ["$1", "$2"]);
        assert_eq!(page.chunk.malformed.len(), 2);
    }

    #[test]
    fn sync_sections_are_all_optional() {
        let quiet = SyncBatch::parse(br#"{"next_batch":"s1"}"#).expect("a batch");
        assert!(quiet.rooms.is_empty());
        let batch = SyncBatch::parse(
            br#"{"next_batch":"s2","rooms":{"join":{"!b:hs":{"timeline":{"limited":true,"prev_batch":"p","events":[]},
                "org.matrix.msc4222.state_after":{"events":[]}}},"invite":{"!a:hs":{"invite_state":{"events":[
                {"type":"m.room.name","state_key":"","sender":"@x:hs","content":{"name":"n"}}]}}}}}"#,
        )
        .expect("a batch");
        let [invite, join] = batch.rooms.as_slice() else { panic!("two rooms") };
        assert_eq!((invite.section, invite.stripped.len()), (Section::Invite, 1));
        assert!(join.limited && join.state_after.is_some() && join.prev_batch.is_some());
    }
}
