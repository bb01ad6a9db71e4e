//! The state of the model: rooms, counters, habits, and what has been asked of it.

use super::ARCHIVER;
use super::event::{Edits, Event, Shape, Slot, Stored};
use super::fault::Fault;
use super::http::{Reply, Request};
use super::ids::{event_id, hash};
use super::json::Json;
use super::messages::LastPage;
use super::room::{Access, Moment, Room, State};
use super::sync::StateAfter;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the server does differently from a plain Synapse; a test switches it with [`super::Homeserver::behave`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each habit is a switch of its own")]
pub(crate) struct Habits {
    /// How /messages ends (P3-P5).
    pub(crate) last_page: LastPage,
    /// The most events a page may have, whatever the client asks for (P8).
    pub(crate) page_cap: usize,
    /// Pages of at most so many events, without meaning that nothing follows (P8).
    pub(crate) short_pages: Option<usize>,
    /// So many empty pages, each with a new `end`, before every real one (P2).
    pub(crate) empty_pages: usize,
    /// Each page repeats so many events of the one before.
    pub(crate) overlap: usize,
    /// The first so many requests with any one token get an empty page with `end == from` (P4); `usize::MAX` for ever.
    pub(crate) repeat_end: usize,
    /// Every so many pages lead back to where they began.
    pub(crate) cycle: Option<usize>,
    /// No page has an `end`, as if the room began there (P1).
    pub(crate) early_end: bool,
    /// Pages carry a `state` array, which is not timeline (P14).
    pub(crate) state_in_pages: bool,
    /// The most events a /sync timeline may have (P30).
    pub(crate) timeline_cap: usize,
    /// As Dendrite: a cut timeline says `limited:false` if any of its events was invisible (P28).
    pub(crate) hides_truncation: bool,
    /// Whether the timeline of a room that the account came back to since the last answer is that of an initial sync, also
    /// where it was in the room then, or has left again; else it shows what arrived since.
    pub(crate) repeats_returns: bool,
    /// The first event of a /sync timeline stands there twice (P35).
    pub(crate) stutters: bool,
    /// Whether /sync can tell the state after the timeline (P87).
    pub(crate) state_after: StateAfter,
    /// Whether `state_after` says nothing of a room that the account has left, as where nobody else of Synapse's was in it
    /// (P87).
    pub(crate) drops_left_state: bool,
    /// `prev_content` still shows what has been redacted since, as until a restart of Synapse (P65).
    pub(crate) stale_prev_content: bool,
    /// How an edited event is served (P60).
    pub(crate) edits: Edits,
    /// `to` does not bound a walk (P48).
    pub(crate) ignores_to: bool,
    /// Replies are compressed when the client accepts it.
    pub(crate) gzip: bool,
}

impl Habits {
    pub(crate) fn synapse() -> Self {
        Self {
            last_page: LastPage::Extra,
            page_cap: 1000,
            short_pages: None,
            empty_pages: 0,
            overlap: 0,
            repeat_end: 0,
            cycle: None,
            early_end: false,
            state_in_pages: false,
            timeline_cap: 100,
            hides_truncation: false,
            repeats_returns: true,
            stutters: false,
            state_after: StateAfter::Never,
            drops_left_state: false,
            stale_prev_content: false,
            edits: Edits::Alone,
            ignores_to: false,
            gzip: false,
        }
    }

    pub(crate) fn dendrite() -> Self {
        Self {
            last_page: LastPage::HoldsCreate,
            hides_truncation: true,
            repeats_returns: false,
            ..Self::synapse()
        }
    }
}

/// One event as the account sees it, in the words of the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OracleEvent {
    pub(crate) event_id: String,
    /// Its place among all events of the room the server has, oldest first.
    pub(crate) graph_order: usize,
    /// What must agree between any two copies, see [`super::stable_json`]; nothing if the bytes cannot be read.
    pub(crate) stable: Option<String>,
    /// The bytes of the last answer that held it; nothing if it has not been asked for.
    pub(crate) last_served: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) rooms: BTreeMap<String, Room>,
    /// The newest place in the stream.
    pub(super) stream: i64,
    /// The next place for history fetched from others.
    backward: i64,
    minted: u64,
    seed: u64,
    /// How many requests were served; it makes `age` go up.
    pub(super) tick: u64,
    pub(super) habits: Habits,
    pub(super) filters: Vec<String>,
    pub(super) ignored: BTreeSet<String>,
    /// Every access token there ever was, the newest last.
    pub(super) tokens: Vec<String>,
    /// How many of them work no more, counted from the oldest.
    pub(super) revoked: usize,
    pub(super) soft_logout: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) journal: Vec<Request>,
    /// How often each cursor was asked for, by room.
    pub(super) asked: HashMap<(String, String), usize>,
    /// Where the pages of a circle began, by room.
    pub(super) page_starts: HashMap<String, Vec<String>>,
    /// How many /messages requests of a room are being answered, and the most there ever were.
    pub(super) in_flight: HashMap<String, (usize, usize)>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rooms: BTreeMap::new(),
            stream: 0,
            backward: 0,
            minted: 0,
            seed,
            tick: 0,
            habits: Habits::synapse(),
            filters: Vec::new(),
            ignored: BTreeSet::new(),
            tokens: vec!["model-token-0".to_owned()],
            revoked: 0,
            soft_logout: false,
            faults: Vec::new(),
            journal: Vec::new(),
            asked: HashMap::new(),
            page_starts: HashMap::new(),
            in_flight: HashMap::new(),
        }
    }

    pub(super) fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    pub(super) fn next_stream(&mut self) -> i64 {
        self.stream += 1;
        self.stream
    }

    pub(super) fn next_backward(&mut self) -> i64 {
        self.backward -= 1;
        self.backward
    }

    pub(super) fn new_room(&mut self, version: &str) -> String {
        let n = self.mint();
        let name = hash(self.seed, n);
        let has_domain = version.parse::<u32>().is_ok_and(|version| version < 12);
        let id = if has_domain { format!("!{}:model.test", &name[..18]) } else { format!("!{name}") };
        self.rooms.insert(id.clone(), Room::new(id.clone(), version));
        id
    }

    /// The room of this id, which the test knows to be there.
    pub(super) fn room(&self, id: &str) -> &Room {
        self.rooms.get(id).unwrap_or_else(|| panic!("there is no room {id}"))
    }

    pub(super) fn room_mut(&mut self, id: &str) -> &mut Room {
        self.rooms.get_mut(id).unwrap_or_else(|| panic!("there is no room {id}"))
    }

    /// A room with its own id as version 12 has it: the hash of its create event (P54).
    pub(super) fn id_for(&mut self, room: &str, event: &Event) -> String {
        let version = &self.room(room).version;
        let names_room = event.kind == "m.room.create" && !room.contains(':');
        let version = version.clone();
        let n = self.mint();
        if names_room { room.replacen('!', "$", 1) } else { event_id(&version, self.seed, n) }
    }

    /// Takes an event in: now, or as history; at the end of the graph, or right after another event.
    pub(super) fn take_in(&mut self, room: &str, mut stored: Stored, after: Option<&str>) -> String {
        let time = 1_700_000_000_000 + self.minted * 1000;
        stored.event.origin_server_ts.get_or_insert(time.to_string());
        let id = stored.id.clone();
        let room = self.room_mut(room);
        let after = after.map(|after| room.index_of(after));
        let is_history = stored.stream < 0;
        let index = room.add(stored, after);
        room.apply_redactions(index);
        if !is_history {
            room.settle(index);
        }
        id
    }

    pub(super) fn append(&mut self, room: &str, event: Event) -> String {
        let id = self.id_for(room, &event);
        let stream = self.next_stream();
        self.take_in(room, Stored::new(id, stream, event, None), None)
    }

    /// The room and how much of its graph the account may read; nothing for a room it may not read.
    pub(super) fn readable_room(&self, id: &str) -> Option<(&Room, usize)> {
        let room = self.rooms.get(id)?;
        Some((room, room.readable(ARCHIVER))).filter(|(_, readable)| *readable > 0)
    }

    /// Whether the account sees an event: those of ignored users it does not, unless they are state (P103).
    pub(super) fn shows(&self, room: &Room, index: usize) -> bool {
        let event = &room.events[index].event;
        room.shows(index) && (event.state_key.is_some() || !self.ignored.contains(&event.sender))
    }

    fn moment(&self) -> Moment {
        let Habits { stale_prev_content, edits, .. } = self.habits;
        Moment { tick: self.tick, stale_prev_content, edits }
    }

    pub(super) fn serve_one(&mut self, room: &str, index: usize, shape: Shape) -> String {
        let moment = self.moment();
        self.room_mut(room).serve(index, shape, moment)
    }

    /// Events as a JSON array.
    pub(super) fn serve(&mut self, room: &str, events: &[usize], shape: Shape) -> String {
        let events: Vec<_> = events.iter().map(|&index| self.serve_one(room, index, shape)).collect();
        format!("[{}]", events.join(","))
    }

    /// What the account may read: places in the graph and events, oldest first.
    fn seen<'a>(&'a self, room: &'a Room) -> impl Iterator<Item = (usize, usize)> {
        let readable = &room.graph[..room.readable(ARCHIVER)];
        let graph = readable.iter().copied().enumerate();
        graph.filter(|&(_, index)| self.shows(room, index))
    }

    pub(super) fn visible_ids(&self, id: &str) -> Vec<String> {
        let room = self.room(id);
        self.seen(room).map(|(_, index)| room.events[index].id.clone()).collect()
    }

    pub(super) fn visible(&self, id: &str) -> Vec<OracleEvent> {
        let room = self.room(id);
        let bytes = |index| room.bytes(index, Shape::Event, self.moment());
        self.seen(room)
            .map(|(graph_order, index)| OracleEvent {
                event_id: room.events[index].id.clone(),
                graph_order,
                stable: super::stable_json(&room.version, &bytes(index)),
                last_served: room.events[index].last_served.clone(),
            })
            .collect()
    }

    pub(super) fn current_state(&self, id: &str) -> BTreeMap<Slot, String> {
        let room = self.room(id);
        let state = readable_state(room);
        state.into_iter().map(|(slot, index)| (slot, room.events[index].id.clone())).collect()
    }

    /// `GET /rooms/{room}/state`.
    pub(super) fn full_state(&mut self, id: &str) -> Reply {
        let Some((room, _)) = self.readable_room(id) else {
            return Reply::forbidden();
        };
        let events: Vec<_> = readable_state(room).into_values().collect();
        Reply::ok(self.serve(id, &events, Shape::ClientState))
    }

    /// `GET /rooms/{room}/state/{type}/{key}`: the content, or with `format=event` the event.
    pub(super) fn state_event(&mut self, id: &str, kind: &str, key: &str, request: &Request) -> Reply {
        let Some((room, _)) = self.readable_room(id) else {
            return Reply::forbidden();
        };
        let slot = (kind.to_owned(), key.to_owned());
        let Some(&index) = readable_state(room).get(&slot) else {
            return Reply::not_found("Event not found.");
        };
        let event = self.serve_one(id, index, Shape::ClientState);
        if request.query("format") == Some("event") {
            return Reply::ok(event);
        }
        let content = Json::parse(&event).and_then(|event| event.get("content").map(Json::write));
        Reply::ok(content.unwrap_or_else(|| "{}".to_owned()))
    }

    /// `GET /rooms/{room}/event/{event}`.
    pub(super) fn event(&mut self, id: &str, event_id: &str) -> Reply {
        let Some((room, readable)) = self.readable_room(id) else {
            return Reply::forbidden();
        };
        let found =
            room.find(event_id).filter(|&index| room.position(index) < readable && self.shows(room, index));
        match found {
            Some(index) => Reply::ok(self.serve_one(id, index, Shape::Event)),
            None => Reply::not_found("Event not found."),
        }
    }
}

/// The state now, or as it was when the account left (P90).
pub(super) fn readable_state(room: &Room) -> State {
    match room.access(ARCHIVER) {
        Access::Left(leave) => room.state_at(room.events[leave].stream),
        _ => room.state.clone(),
    }
}
