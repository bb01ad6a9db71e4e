//! `/messages` and `/context`: walks through the graph, and the many ways in which servers end them.

use super::event::Shape;
use super::http::{Reply, Request};
use super::json::{Json, object, quote};
use super::room::{Place, Room, member_event};
use super::world::World;
use std::fmt;

/// A pagination token as Synapse writes it: `s<stream>` live, `t<depth>-<stream>_<side>` historic (P20); behind it, if
/// the server has the habit, how many empty pages it has already led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) place: Place,
    depth: usize,
    empties: usize,
}

impl Token {
    pub(super) fn live(stream: i64) -> Self {
        Self { place: Place::Stream(stream), depth: 0, empties: 0 }
    }

    /// The place just below or just above an event.
    pub(super) fn beside(room: &Room, index: usize, after: bool) -> Self {
        let place = Place::Graph { stream: room.events[index].stream, after };
        Self { place, depth: room.position(index), empties: 0 }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.get(1..)?.split('_');
        let first = fields.next()?;
        let side = fields.next().unwrap_or("0");
        let empties = fields.next().unwrap_or("0").parse().ok()?;
        match text.get(..1)? {
            "s" => Some(Self { empties, ..Self::live(first.parse().ok()?) }),
            "t" => {
                let (depth, stream) = first.split_once('-')?;
                let place = Place::Graph { stream: stream.parse().ok()?, after: side == "1" };
                Some(Self { place, depth: depth.parse().ok()?, empties })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Stream(stream) if self.empties == 0 => write!(f, "s{stream}"),
            Place::Stream(stream) => write!(f, "s{stream}_0_{}", self.empties),
            Place::Graph { stream, after } if self.empties == 0 => {
                write!(f, "t{}-{stream}_{}", self.depth, u8::from(after))
            }
            Place::Graph { stream, after } => {
                write!(f, "t{}-{stream}_{}_{}", self.depth, u8::from(after), self.empties)
            }
        }
    }
}

/// A stretch of the graph that a request asks for.
#[derive(Clone, Copy, Debug)]
struct Walk {
    from: Token,
    to: Option<Token>,
    backward: bool,
}

impl Walk {
    /// The events on the way, at `most` so many, the nearest first: later pages are all below the cursor, whenever their events arrived
    /// (P15); only the first page, from a live token, looks at the stream. `to` hides what the server fetched from
    /// others, for its place in the stream is negative (P48).
    fn events(self, room: &Room, readable: usize, most: usize) -> Option<Vec<usize>> {
        let from = bounds(room, self.from, self.backward)?;
        let to = match self.to {
            Some(to) => bounds(room, to, !self.backward)?,
            None => (0..room.graph.len(), i64::MIN..=i64::MAX),
        };
        let range = from.0.start.max(to.0.start)..from.0.end.min(to.0.end).min(readable);
        let range = room.graph.get(range).unwrap_or_default();
        let is_asked_for = |index: &usize| {
            let stored = &room.events[*index];
            stored.is_kept() && from.1.contains(&stored.stream) && to.1.contains(&stored.stream)
        };
        let nearest_first: Box<dyn Iterator<Item = usize>> = if self.backward {
            Box::new(range.iter().rev().copied())
        } else {
            Box::new(range.iter().copied())
        };
        let events = nearest_first.filter(is_asked_for).take(most).collect();
        Some(events)
    }
}

type Bounds = (std::ops::Range<usize>, std::ops::RangeInclusive<i64>);

/// What lies on one side of a token: positions of the graph, and places in the stream.
fn bounds(room: &Room, token: Token, below: bool) -> Option<Bounds> {
    let split = room.below(token.place)?;
    let all = i64::MIN..=i64::MAX;
    Some(match (token.place, below) {
        (Place::Stream(stream), true) => (0..room.graph.len(), i64::MIN..=stream),
        (Place::Stream(stream), false) => (0..room.graph.len(), stream.saturating_add(1)..=i64::MAX),
        (Place::Graph { .. }, true) => (0..split, all),
        (Place::Graph { .. }, false) => (split..room.graph.len(), all),
    })
}

/// How a server says that there is nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum LastPage {
    /// As Synapse: one extra page, empty and without `end` (P3).
    #[default]
    Extra,
    /// As Dendrite: no `end` on the page that holds the create event, nor on any page whose events were all invisible
    /// (P3, P4).
    HoldsCreate,
    /// As Dendrite with its `TopologyToken`: `"end":""` (P5).
    EmptyString,
    /// `"end":null` (P5).
    Null,
}

/// What a page says.
struct Page {
    chunk: Vec<usize>,
    end: Option<String>,
}

impl World {
    /// `GET /rooms/{room}/messages`.
    pub(super) fn messages(&mut self, id: &str, request: &Request) -> Reply {
        let Some((room, readable)) = self.readable_room(id) else {
            return Reply::forbidden();
        };
        let backward = request.query("dir") == Some("b");
        let edge = if backward { Token::live(self.stream) } else { Token::live(i64::MIN) };
        let from = request.query("from").map_or(Some(edge), Token::parse);
        let to = request.query("to").filter(|_| !self.habits.ignores_to).map(Token::parse);
        let (Some(from), None | Some(Some(_))) = (from, to) else {
            return Reply::invalid_from();
        };
        let walk = Walk { from, to: to.flatten(), backward };
        let Some(limit) = request.query("limit").map_or(Some(10), |limit| limit.parse().ok()) else {
            return Reply::error(
                400,
                "M_INVALID_PARAM",
                "Query parameter 'limit' must be a positive integer",
            );
        };
        let one_more = limit.min(self.habits.page_cap) + 1;
        let Some(mut events) = walk.events(room, readable, one_more) else {
            return Reply::invalid_from();
        };
        if filter_excludes(request, id) {
            events.clear();
        }
        let page = self.page(id, walk, &events, limit);
        self.write_page(id, &from, &page)
    }

    fn page(&mut self, id: &str, walk: Walk, events: &[usize], limit: usize) -> Page {
        let habits = &self.habits;
        let seen = self.asked.entry((id.to_owned(), walk.from.to_string())).or_default();
        *seen += 1;
        if limit == 0 || *seen <= habits.repeat_end {
            return Page { chunk: Vec::new(), end: Some(walk.from.to_string()) };
        }
        if walk.from.empties < habits.empty_pages {
            let end = Token { empties: walk.from.empties + 1, ..walk.from };
            return Page { chunk: Vec::new(), end: Some(end.to_string()) };
        }
        let room = &self.rooms[id];
        let taken =
            limit.min(habits.page_cap).min(habits.short_pages.unwrap_or(usize::MAX)).min(events.len());
        let scanned = &events[..taken];
        let chunk: Vec<_> = scanned.iter().copied().filter(|&index| self.shows(room, index)).collect();
        let end = self.end(room, walk, scanned, taken == events.len(), chunk.is_empty());
        Page { chunk, end: self.go_round(id, &walk.from, end) }
    }

    /// The `end` of a page that went as far as `scanned`; `last` if nothing lies beyond.
    fn end(&self, room: &Room, walk: Walk, scanned: &[usize], last: bool, invisible: bool) -> Option<String> {
        let habits = &self.habits;
        match (habits.last_page, scanned.is_empty()) {
            _ if habits.early_end => return None,
            (LastPage::HoldsCreate, _) if last || invisible => return None,
            (LastPage::Extra | LastPage::HoldsCreate, true) => return None,
            (LastPage::EmptyString, true) => return Some(String::new()),
            (LastPage::Null, true) => return Some("null".to_owned()),
            _ => {}
        }
        let overlap = if last { 0 } else { habits.overlap.min(scanned.len() - 1) };
        let furthest = scanned[scanned.len() - 1 - overlap];
        Some(Token::beside(room, furthest, !walk.backward).to_string())
    }

    /// With the habit of going in circles, every so many pages lead back to where the walk was that many ago.
    fn go_round(&mut self, id: &str, start: &Token, end: Option<String>) -> Option<String> {
        let Some(length) = self.habits.cycle else {
            return end;
        };
        let starts = self.page_starts.entry(id.to_owned()).or_default();
        starts.push(start.to_string());
        if starts.len() < length { end } else { starts.drain(..).next() }
    }

    fn write_page(&mut self, id: &str, start: &Token, page: &Page) -> Reply {
        let mut fields =
            vec![("start", quote(&start.to_string())), ("chunk", self.serve(id, &page.chunk, Shape::Client))];
        fields.extend(
            page.end.as_ref().map(|end| ("end", if end == "null" { end.clone() } else { quote(end) })),
        );
        if self.habits.state_in_pages {
            let state = self.senders_of(id, &page.chunk);
            fields.push(("state", self.serve(id, &state, Shape::ClientState)));
        }
        Reply::ok(object(&fields))
    }

    /// The member events of those who speak in a page: not timeline, and not for keeping (P14).
    fn senders_of(&self, id: &str, chunk: &[usize]) -> Vec<usize> {
        let room = &self.rooms[id];
        let mut members: Vec<_> = chunk
            .iter()
            .filter_map(|&index| member_event(&room.events[index].event.sender, &room.state))
            .collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// `GET /rooms/{room}/context/{event}`: the way to find a place again when a cursor has died (P25).
    pub(super) fn context(&mut self, id: &str, event_id: &str, request: &Request) -> Reply {
        let Some((room, readable)) = self.readable_room(id) else {
            return Reply::forbidden();
        };
        let found =
            room.find(event_id).filter(|&index| room.position(index) < readable && self.shows(room, index));
        let Some(index) = found else {
            return Reply::not_found("Event not found.");
        };
        let limit = request.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10) / 2;
        let beside = |after| Walk { from: Token::beside(room, index, after), to: None, backward: !after };
        let around = |after| -> Vec<usize> {
            let events = beside(after).events(room, readable, limit).unwrap_or_default();
            events.into_iter().filter(|&index| self.shows(room, index)).collect()
        };
        let (before, after) = (around(false), around(true));
        let start = Token::beside(room, before.last().copied().unwrap_or(index), false);
        let end = Token::beside(room, after.last().copied().unwrap_or(index), true);
        let event = self.serve_one(id, index, Shape::Client);
        Reply::ok(object(&[
            ("event", event),
            ("events_before", self.serve(id, &before, Shape::Client)),
            ("events_after", self.serve(id, &after, Shape::Client)),
            ("start", quote(&start.to_string())),
            ("end", quote(&end.to_string())),
            ("state", "[]".to_owned()),
        ]))
    }
}

/// A filter that leaves the room out gives an empty page without `end`: a false end (P12).
fn filter_excludes(request: &Request, id: &str) -> bool {
    let Some(filter) = request.query("filter").and_then(Json::parse) else {
        return false;
    };
    let names = |key: &str| Some(filter.get(key)?.items().iter().filter_map(Json::text).collect::<Vec<_>>());
    names("not_rooms").is_some_and(|rooms| rooms.iter().any(|room| room == id))
        || names("rooms").is_some_and(|rooms| !rooms.iter().any(|room| room == id))
}
