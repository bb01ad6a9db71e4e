//! Parses responses to `/messages` and `/state`. Each event is parsed separately, so an invalid event never affects
//! the rest of the page (P59).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Error, Token,
    event::{self, Event, Malformed},
    object,
};

/// The events of one section of a response, in the order served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The valid events.
    pub events: Vec<Event>,
    /// The invalid events.
    pub(crate) malformed: Vec<Malformed>,
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

impl Events {
    pub(super) fn read(room_id: &str, section: &[&RawValue]) -> Self {
        let mut events = Self { events: Vec::with_capacity(section.len()), malformed: Vec::new() };
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

/// The body as text. Invalid UTF-8 becomes U+FFFD.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    // Much faster than the lossy conversion, and nearly always sufficient.
    std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

#[derive(Deserialize)]
struct WirePage<'a> {
    // Required, so that a `{}` from a proxy does not count as the end of the room.
    #[serde(borrow)]
    chunk: Vec<&'a RawValue>,
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
        let bytes = body.len();
        let body = text(body);
        let wire: WirePage<'_> =
            serde_json::from_str(&body).map_err(|error| Error::malformed("/messages", &error))?;
        Ok(Self {
            bytes,
            chunk: Events::read(room_id, &wire.chunk),
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
    match object::items(state.get()) {
        Some(events) => Events::read(room_id, &events),
        None => Events {
            malformed: vec![Malformed::part(state.get(), "the state of a page is no list")],
            ..Events::default()
        },
    }
}

/// Parses the body of a `/state` response for `room_id`, which is an array of events.
///
/// # Errors
/// [`Error::Malformed`] if it is not an array.
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
    fn state_that_is_no_list_leaves_its_page() {
        let page = Page::parse("!r:hs", br#"{"chunk":[],"state":{"a":1},"end":"t"}"#).expect("a page");
        assert!(page.end.is_some() && page.state.events.is_empty());
        assert_eq!(page.state.malformed.len(), 1);
        assert!(Page::parse("!r:hs", br#"{"chunk":[],"state":null}"#).is_ok());
    }
}
