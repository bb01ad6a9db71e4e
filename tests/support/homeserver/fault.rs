//! Faults: what goes wrong, on which requests, how often.

use super::http::{Reply, Request};
use super::json::Json;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Something that goes wrong with some requests: all of them for ever, unless narrowed.
///
/// ```ignore
/// server.inject(Fault::bad_gateway().on("/messages").times(3));
/// server.inject(Fault::forbidden().in_room(&room));
/// server.inject(Fault::cut_body().on("/sync").after(2).times(1));
/// ```
pub(crate) struct Fault {
    effect: Effect,
    applies: Vec<Condition>,
    skip: usize,
    left: usize,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("skip", &self.skip).field("left", &self.left).finish_non_exhaustive()
    }
}

type Condition = Box<dyn Fn(&Request) -> bool + Send>;
type Change = dyn Fn(&mut Reply) + Send + Sync;

/// What a fault does.
#[derive(Clone)]
pub(super) enum Effect {
    /// Answers instead of the server.
    Instead(Reply),
    /// Lets the server answer, this much later.
    Delay(Duration),
    /// Answers as things are now, and lets the answer arrive this much later.
    Hold(Duration),
    /// Never answers.
    Stall,
    /// Changes the true answer.
    Change(std::sync::Arc<Change>),
    /// Spoils the way the true answer is sent.
    Spoil(Wire),
}

/// How a reply goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire {
    Whole,
    Close,
    Reset,
    CutHead,
    CutBody,
    LongLength,
    CutChunks,
    CutGzip,
    StallInBody,
    Endless,
}

/// A reply and how to send it.
pub(super) struct Wired {
    pub(super) reply: Reply,
    pub(super) wire: Wire,
}

/// What goes wrong.
impl Fault {
    fn new(effect: Effect) -> Self {
        Self { effect, applies: Vec::new(), skip: 0, left: usize::MAX }
    }

    /// This reply, instead of the true one.
    pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::new(Effect::Instead(Reply { status, headers, body: body.into() }))
    }

    /// A Matrix error.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(Effect::Instead(Reply::error(status, code, message)))
    }

    /// 429, with these headers and this `retry_after_ms`, as JSON text (P124): `too_many(&[("Retry-After", "3")], "")`.
    pub(crate) fn too_many(headers: &[(&str, &str)], retry_after_ms: &str) -> Self {
        let hint = if retry_after_ms.is_empty() {
            String::new()
        } else {
            format!(r#","retry_after_ms":{retry_after_ms}"#)
        };
        Self::reply(
            429,
            headers,
            format!(r#"{{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests"{hint}}}"#),
        )
    }

    /// 502 with a proxy's HTML (P125).
    pub(crate) fn bad_gateway() -> Self {
        let html = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>";
        Self::reply(502, &[("Content-Type", "text/html")], html)
    }

    /// 403 as another server's refusal leaks through (P11), or as the loss of a room looks.
    pub(crate) fn forbidden() -> Self {
        Self::error(403, "M_FORBIDDEN", "Host not in room.")
    }

    /// 400 for this token, as from a server that no longer knows it (P134).
    pub(crate) fn dead_token(token: &str) -> Self {
        let token = token.to_owned();
        Self::error(400, "M_UNKNOWN", "Invalid stream token")
            .when(move |request| ["since", "from"].iter().any(|name| request.query(name) == Some(&token)))
    }

    /// The same for pages, until one is asked for without a token: those that are served then work.
    pub(crate) fn dead_cursor(token: &str) -> Self {
        let (token, is_over) = (token.to_owned(), AtomicBool::new(false));
        Self::error(400, "M_UNKNOWN", "'from' parameter is invalid").when(move |request| {
            if request.is_messages() && request.query("from").is_none() {
                is_over.store(true, Ordering::Relaxed);
            }
            !is_over.load(Ordering::Relaxed) && request.query("from") == Some(&token)
        })
    }

    /// The true page, but as if the room began there (P1, P16).
    pub(crate) fn without_end() -> Self {
        Self::change(|reply| {
            let page = Json::from_bytes(&reply.body).unwrap();
            reply.body = page.without("end").write().into_bytes();
        })
    }

    /// The true answer, later.
    pub(crate) fn delay(delay: Duration) -> Self {
        Self::new(Effect::Delay(delay))
    }

    /// The true answer of now, and it arrives later.
    pub(crate) fn hold(delay: Duration) -> Self {
        Self::new(Effect::Hold(delay))
    }

    /// No answer, ever, on an open connection.
    pub(crate) fn stall() -> Self {
        Self::new(Effect::Stall)
    }

    /// Half the body, then nothing, on an open connection.
    pub(crate) fn stall_in_body() -> Self {
        Self::new(Effect::Spoil(Wire::StallInBody))
    }

    /// The connection closed instead of an answer.
    pub(crate) fn close() -> Self {
        Self::new(Effect::Spoil(Wire::Close))
    }

    /// The connection reset instead of an answer.
    pub(crate) fn reset() -> Self {
        Self::new(Effect::Spoil(Wire::Reset))
    }

    /// The connection closed within the head.
    pub(crate) fn cut_head() -> Self {
        Self::new(Effect::Spoil(Wire::CutHead))
    }

    /// The connection closed after half the body.
    pub(crate) fn cut_body() -> Self {
        Self::new(Effect::Spoil(Wire::CutBody))
    }

    /// The whole body, and a length that promises more.
    pub(crate) fn long_content_length() -> Self {
        Self::new(Effect::Spoil(Wire::LongLength))
    }

    /// Chunks without the last one.
    pub(crate) fn cut_chunks() -> Self {
        Self::new(Effect::Spoil(Wire::CutChunks))
    }

    /// Half of a compressed body, with a length to match: only the decoder can tell.
    pub(crate) fn cut_gzip() -> Self {
        Self::new(Effect::Spoil(Wire::CutGzip))
    }

    /// A body that never ends.
    pub(crate) fn endless() -> Self {
        Self::new(Effect::Spoil(Wire::Endless))
    }

    /// The true answer, valid and padded to so many bytes.
    pub(crate) fn oversized(bytes: usize) -> Self {
        Self::change(move |reply| reply.body.resize(bytes.max(reply.body.len()), b' '))
    }

    /// The same, small on the wire: a bomb.
    pub(crate) fn gzip_bomb(bytes: usize) -> Self {
        Self::change(move |reply| {
            reply.body.resize(bytes.max(reply.body.len()), b' ');
            *reply = reply.clone().compressed();
        })
    }

    /// The true answer up to some byte, complete as HTTP: a prefix of JSON.
    pub(crate) fn json_prefix(bytes: usize) -> Self {
        Self::change(move |reply| reply.body.truncate(bytes))
    }

    /// The true answer with any change at all.
    pub(crate) fn change(change: impl Fn(&mut Reply) + Send + Sync + 'static) -> Self {
        Self::new(Effect::Change(std::sync::Arc::new(change)))
    }

    /// A page whose messages have lost their content, without a redaction.
    pub(crate) fn emptied_messages() -> Self {
        Self::change(|reply| {
            let page = Json::from_bytes(&reply.body).expect("JSON");
            let Some(Json::Array(events)) = page.get("chunk").cloned() else { return };
            let is_message =
                |event: &Json| event.get("type").and_then(Json::text).as_deref() == Some("m.room.message");
            let emptied = events.into_iter().map(|event| {
                if is_message(&event) {
                    event.with("content", Json::parse("{}").expect("JSON"))
                } else {
                    event
                }
            });
            reply.body = page.with("chunk", Json::Array(emptied.collect())).write().into_bytes();
        })
    }
}

/// On which requests, and how often.
impl Fault {
    /// Only where this holds; several conditions must all hold.
    pub(crate) fn when(mut self, applies: impl Fn(&Request) -> bool + Send + 'static) -> Self {
        self.applies.push(Box::new(applies));
        self
    }

    /// Only where the decoded path contains this.
    pub(crate) fn on(self, fragment: &str) -> Self {
        let fragment = fragment.to_owned();
        self.when(move |request| request.path().contains(&fragment))
    }

    /// Only for this room.
    pub(crate) fn in_room(self, room: &str) -> Self {
        let room = room.to_owned();
        self.when(move |request| request.room() == Some(&room))
    }

    /// Only for requests with this query parameter.
    pub(crate) fn with_query(self, name: &str, value: &str) -> Self {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.when(move |request| request.query(&name) == Some(&value))
    }

    /// Not for the first so many requests that match.
    pub(crate) fn after(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// For so many requests, then never again.
    pub(crate) fn times(mut self, requests: usize) -> Self {
        self.left = requests;
        self
    }

    /// What this fault does to a request, if it is its turn.
    pub(super) fn strike(&mut self, request: &Request) -> Option<Effect> {
        if self.left == 0 || !self.applies.iter().all(|applies| applies(request)) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left -= 1;
        Some(self.effect.clone())
    }
}
