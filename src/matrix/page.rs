//! Parses responses to `/messages` and `/state`. Each event is parsed separately, so an invalid event never affects
//! the rest of the page (P59).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    Error, Token,
    event::{self, Event, Malformed},
    event_ids::event_ids,
    object,
};

/// The most invalid events of a section that are kept one by one. Each needs some hundred bytes, but may have only one.
const MOST_MALFORMED: usize = 10_000;

/// The events of one section of a response, in the order served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The valid events.
    pub events: Vec<Event>,
    /// The invalid events. If they are too many, an array of them is one part.
    pub(crate) malformed: Vec<Malformed>,
    /// Whether they are too many. Then events may be missing from the section, as if a part of it could not be read.
    pub(crate) has_unreadable_parts: bool,
}

/// A response to `/messages`, or several consecutive ones. For `dir=b`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The timeline.
    pub chunk: Events,
    /// State that the server considers relevant to the chunk. It is not part of the timeline (P14).
    pub(crate) state: Events,
    /// The token of the next page. `None`: the server returns no more events, but this need not be the room's start
    /// (P4).
    pub end: Option<Token>,
    /// The size of the response.
    pub(crate) bytes: usize,
    /// The number of responses in it.
    pub(crate) answers: usize,
}

/// A page whose events were asked for in the federation format. A homeserver other than Synapse may ignore that.
#[derive(Clone, Debug)]
pub struct FederationPage {
    /// The page as every walk reads it.
    pub page: Page,
    /// The bytes of each event of `page.chunk.events`, in the same order, for [`super::proof::SignedEvent::read`].
    pub raws: Vec<Box<RawValue>>,
}

impl Events {
    /// Parses the events of an array.
    ///
    /// # Errors
    /// If it is not an array.
    pub(super) fn read(room_id: &str, section: &str) -> Result<Self, serde_json::Error> {
        Self::read_each(room_id, section, |_| {})
    }

    /// The same. Calls `valid` with the bytes of each valid event.
    fn read_each(
        room_id: &str,
        section: &str,
        mut valid: impl FnMut(&RawValue),
    ) -> Result<Self, serde_json::Error> {
        let mut events = Self::default();
        let mut too_many: Option<TooMany> = None;
        object::read_items(section, |raw| match event::parse(room_id, raw) {
            Ok(event) => {
                events.events.push(event);
                valid(raw);
            }
            Err(malformed) => {
                events.malformed.push(malformed);
                if too_many.is_some() || events.malformed.len() > MOST_MALFORMED {
                    too_many.get_or_insert_default().extend(events.malformed.drain(..));
                }
            }
        })?;
        // The state of a large room is in memory for long.
        events.events.shrink_to_fit();
        events.has_unreadable_parts = too_many.is_some();
        events.malformed.extend(too_many.map(TooMany::into_part));
        Ok(events)
    }

    fn append(&mut self, mut next: Self) {
        self.events.append(&mut next.events);
        self.malformed.append(&mut next.malformed);
        self.has_unreadable_parts |= next.has_unreadable_parts;
    }
}

impl FederationPage {
    /// Parses the body of a `/messages` response for `room_id`.
    ///
    /// # Errors
    /// As [`Page::parse`].
    pub(super) fn parse(room_id: &str, body: &[u8]) -> Result<Self, Error> {
        let mut raws = Vec::new();
        let page = Page::parse_each(room_id, body, |raw| raws.push(raw.to_owned()))?;
        Ok(Self { page, raws })
    }
}

impl Malformed {
    /// The event ids in it.
    pub(crate) fn event_ids(&self) -> Vec<String> {
        let mut all = Vec::new();
        // Item by item, because a parsed array may need sixteen times the memory of its text.
        let read = object::read_items(&self.raw, |item| all.extend(event_ids(item.get())));
        if read.is_ok() { all } else { event_ids(&self.raw) }
    }
}

/// Invalid events that are not kept one by one.
#[derive(Default)]
struct TooMany {
    /// An array of them, without its end.
    raw: String,
    /// The hash of their hashes.
    own_sha256: Sha256,
}

impl TooMany {
    fn extend(&mut self, malformed: impl Iterator<Item = Malformed>) {
        for malformed in malformed {
            self.raw.push(if self.raw.is_empty() { '[' } else { ',' });
            self.raw.push_str(&malformed.raw);
            self.own_sha256.update(malformed.own_sha256);
        }
    }

    fn into_part(mut self) -> Malformed {
        self.raw.push(']');
        Malformed {
            raw: self.raw.into(),
            own_sha256: self.own_sha256.finalize().into(),
            reason: "too many events of a section are not valid",
        }
    }
}

/// The body as text. Invalid UTF-8 becomes U+FFFD.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    // Much faster than the lossy conversion, and nearly always sufficient.
    std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

#[derive(Deserialize)]
struct WirePage<'a> {
    // Required, so that a `{}` from a proxy does not count as the end of the room.
    #[serde(borrow)]
    chunk: &'a RawValue,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    // A string or absent, so that no other value counts as the end of the room.
    #[serde(default)]
    end: Option<String>,
}

impl Page {
    /// Parses the body of a `/messages` response for `room_id`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not such a response. An invalid event, or a `state` that is not a list, is not
    /// an error.
    pub fn parse(room_id: &str, body: &[u8]) -> Result<Self, Error> {
        Self::parse_each(room_id, body, |_| {})
    }

    fn parse_each(room_id: &str, body: &[u8], valid: impl FnMut(&RawValue)) -> Result<Self, Error> {
        let bytes = body.len();
        let body = text(body);
        let wire: WirePage<'_> =
            serde_json::from_str(&body).map_err(|error| Error::malformed("/messages", &error))?;
        let chunk = Events::read_each(room_id, wire.chunk.get(), valid);
        Ok(Self {
            bytes,
            chunk: chunk.map_err(|_| Error::Malformed("/messages: chunk is not a list".to_owned()))?,
            state: wire.state.map_or_else(Events::default, |state| read_state(room_id, state)),
            end: Token::served("/messages: `end`", wire.end.unwrap_or_default())?,
            answers: 1,
        })
    }

    /// Appends `next`, which was requested from this page's `end`.
    pub(crate) fn append(&mut self, next: Self) {
        self.chunk.append(next.chunk);
        self.state.append(next.state);
        self.end = next.end;
        self.bytes += next.bytes;
        self.answers += next.answers;
    }
}

fn read_state(room_id: &str, state: &RawValue) -> Events {
    Events::read(room_id, state.get()).unwrap_or_else(|_| Events {
        malformed: vec![Malformed::part(state.get(), "the state of a page is not a list")],
        ..Events::default()
    })
}

/// Parses the body of a `/state` response for `room_id`, which is an array of events.
///
/// # Errors
/// [`Error::Malformed`] if it is not an array.
pub(super) fn parse_state(room_id: &str, body: &[u8]) -> Result<Events, Error> {
    Events::read(room_id, &text(body)).map_err(|error| Error::malformed("/state", &error))
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

    #[test]
    fn what_is_no_page_is_refused() {
        for body in
            ["", "{}", "[]", "<html>", r#"{"chunk":null}"#, r#"{"chunk":[],"end":1}"#, r#"{"chunk":[{"#]
        {
            assert!(Page::parse("!r:hs", body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn each_valid_event_of_a_federation_page_has_its_bytes() {
        let body = br#"{"chunk":[{"type":"t","sender":"s","event_id":"$1"},{"event_id":7},
            {"sender":"s","type":"t","event_id":"$2" }]}"#;
        let page = FederationPage::parse("!r:hs", body).expect("a page");
        let ids: Vec<_> = page.page.chunk.events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids, ["$1", "$2"]);
        let raws: Vec<_> = page.raws.iter().map(|raw| raw.get()).collect();
        assert_eq!(
            raws,
            [r#"{"type":"t","sender":"s","event_id":"$1"}"#, r#"{"sender":"s","type":"t","event_id":"$2" }"#]
        );
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

    /// So many invalid events, and a valid one.
    fn flood(count: usize, age: usize) -> Events {
        let bad = |number| format!(r#"{{"event_id":"$bad{number}","age":{age}}},"#);
        let bad: String = (0..count).map(bad).collect();
        let section = format!(r#"[{bad}{{"type":"t","sender":"s","event_id":"$1","content":{{}}}}]"#);
        Events::read("!r:hs", &section).expect("a list")
    }

    #[test]
    fn too_many_bad_events_are_one_part() {
        let most = flood(MOST_MALFORMED, 1);
        assert_eq!((most.malformed.len(), most.has_unreadable_parts), (MOST_MALFORMED, false));
        let count = MOST_MALFORMED + 2;
        let more = flood(count, 1);
        assert!(more.has_unreadable_parts);
        assert_eq!(more.events, most.events, "the valid event is there");
        let [part] = more.malformed.as_slice() else { panic!("one part") };
        let items: Vec<serde_json::Value> = serde_json::from_str(&part.raw).expect("a list");
        let expected = |number| serde_json::json!({"event_id": format!("$bad{number}"), "age": 1});
        assert_eq!(items, (0..count).map(expected).collect::<Vec<_>>());
        assert_eq!(part.event_ids(), (0..count).map(|number| format!("$bad{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn copies_of_too_many_bad_events_have_one_hash() {
        let own = |count, age| flood(count, age).malformed[0].own_sha256;
        assert_eq!(own(MOST_MALFORMED + 1, 1), own(MOST_MALFORMED + 1, 2));
        assert_ne!(own(MOST_MALFORMED + 1, 1), own(MOST_MALFORMED + 2, 1));
    }

    #[test]
    fn a_state_may_have_too_many_bad_events() {
        let body = format!("[{}]", vec!["7"; MOST_MALFORMED + 1].join(","));
        let state = parse_state("!r:hs", body.as_bytes()).expect("a state");
        assert_eq!((state.malformed.len(), state.has_unreadable_parts), (1, true));
        assert!(parse_state("!r:hs", b"[7").is_err() && parse_state("!r:hs", b"[] 7").is_err());
        let page = Page::parse("!r:hs", format!(r#"{{"chunk":[],"state":{body}}}"#).as_bytes());
        assert_eq!(page.expect("a page").state, state);
    }

    #[test]
    fn event_ids_are_found_in_every_kind_of_part() {
        let ids = |raw: &str| Malformed::part(raw, "no list").event_ids();
        assert_eq!(ids(r#"{"event_id":"$1","a":[{"event_id":"$2"}]}"#), ["$1", "$2"]);
        assert_eq!(ids(r#"[{"event_id":"$1"},[[{"event_id":"$2"}],7]]"#), ["$1", "$2"]);
        assert!(ids("7").is_empty());
    }

    #[test]
    fn state_that_is_no_list_leaves_its_page() {
        let page = Page::parse("!r:hs", br#"{"chunk":[],"state":{"a":1},"end":"t"}"#).expect("a page");
        assert!(page.end.is_some() && page.state.events.is_empty());
        assert_eq!(page.state.malformed.len(), 1);
        assert!(Page::parse("!r:hs", br#"{"chunk":[],"state":null}"#).is_ok());
    }
}
