//! What a test may say: things that happen in rooms, to the account, and to the server.

use super::event::{Event, Slot, Stored};
use super::fault::Fault;
use super::http::Request;
use super::json::{object, quote};
use super::world::{Habits, OracleEvent, World};
use super::{ALICE, ARCHIVER, Homeserver};
use std::collections::BTreeMap;

/// Rooms and what happens in them. Every event has arrived when the call returns, and /sync is awake.
impl Homeserver {
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let outcome = change(&mut self.shared.lock());
        self.shared.happened.notify_waiters();
        outcome
    }

    /// A room that the archiver's account has made: create, its own membership, power levels, join rules.
    pub(crate) fn create_room(&self, version: &str) -> String {
        self.create_room_by(version, ARCHIVER)
    }

    /// A room made by somebody else; the account is not in it.
    pub(crate) fn create_room_by(&self, version: &str, creator: &str) -> String {
        let content = object(&[("room_version", quote(version)), ("creator", quote(creator))]);
        self.create_room_of(version, creator, &content)
    }

    /// The same, with a create event of this content.
    pub(crate) fn create_room_of(&self, version: &str, creator: &str, content: &str) -> String {
        let room = self.change(|world| world.new_room(version));
        let levels =
            object(&[("users", object(&[(creator, "100".to_owned())])), ("invite", "50".to_owned())]);
        self.append(&room, Event::state("m.room.create", "", content).from(creator));
        self.append(&room, Event::member(creator, "join"));
        self.append(&room, Event::state("m.room.power_levels", "", levels).from(creator));
        self.append(&room, Event::state("m.room.join_rules", "", r#"{"join_rule":"public"}"#).from(creator));
        room
    }

    /// Everybody may read what happens in the room from now on, without being in it.
    pub(crate) fn open_to_all(&self, room: &str) {
        self.state(room, "m.room.history_visibility", "", r#"{"history_visibility":"world_readable"}"#);
    }

    /// An event arrives, and is the newest in the graph too. State becomes current.
    pub(crate) fn append(&self, room: &str, event: Event) -> String {
        self.change(|world| world.append(room, event))
    }

    /// So many messages, for tests that need a crowd.
    pub(crate) fn append_many(&self, room: &str, count: usize) -> Vec<String> {
        (0..count).map(|n| self.message(room, ALICE, &format!("message {n}"))).collect()
    }

    /// An event of these bytes arrives; they are served as they stand, whatever they say.
    pub(crate) fn append_raw(&self, room: &str, event_id: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.change(|world| {
            let stream = world.next_stream();
            let stored = Stored::new(event_id.to_owned(), stream, Event::read(&bytes), Some(bytes));
            world.take_in(room, stored, None)
        });
    }

    pub(crate) fn message(&self, room: &str, sender: &str, body: &str) -> String {
        self.append(room, Event::message(body).from(sender))
    }

    pub(crate) fn state(&self, room: &str, kind: &str, key: &str, content: &str) -> String {
        self.append(room, Event::state(kind, key, content))
    }

    /// Alice redacts an event. If the server does not have it, the redaction waits for it (P73).
    pub(crate) fn redact(&self, room: &str, target: &str) -> String {
        self.append(room, Event::redaction(target))
    }

    /// An event arrives late from another server: now in the stream, but right after `earlier` in the graph (P36).
    /// State becomes current only if the graph has nothing newer for its key.
    pub(crate) fn insert_after(&self, room: &str, earlier: &str, event: Event) -> String {
        self.change(|world| {
            let (id, stream) = (world.id_for(room, &event), world.next_stream());
            world.take_in(room, Stored::new(id, stream, event, None), Some(earlier))
        })
    }

    /// The server has fetched an event from others: it never comes down /sync, only /messages finds it, and only
    /// without `to` (P47, P48). It moves no state.
    pub(crate) fn backfill_insert_after(&self, room: &str, earlier: &str, event: Event) -> String {
        self.change(|world| {
            let (id, stream) = (world.id_for(room, &event), world.next_backward());
            world.take_in(room, Stored::new(id, stream, event, None), Some(earlier))
        })
    }

    /// /sync admits to a hole here although few events came: what follows is `limited` (P26).
    pub(crate) fn federation_gap(&self, room: &str) {
        self.change(|world| {
            let stream = world.next_stream();
            world.room_mut(room).gaps.push(stream);
        });
    }

    /// An event that the server does not have (yet), see [`Self::hide`]. It is hidden from the start: no `/sync` that
    /// waits can report it.
    pub(crate) fn append_hidden(&self, room: &str, event: Event) -> String {
        self.change(|world| {
            let id = world.append(room, event);
            let room = world.room_mut(room);
            let index = room.index_of(&id);
            room.events[index].known = false;
            id
        })
    }

    /// The server does not have this event (yet): a hole, and nothing says so (P44).
    pub(crate) fn hide(&self, room: &str, event: &str) {
        self.change(|world| {
            let room = world.room_mut(room);
            let index = room.index_of(event);
            room.events[index].known = false;
        });
    }

    /// The server learns a hidden event in the background: where it belongs in the graph, at a negative place in the
    /// stream, so that only a later walk finds it (P45, P47).
    pub(crate) fn reveal(&self, room: &str, event: &str) {
        self.change(|world| {
            let stream = world.next_backward();
            let room = world.room_mut(room);
            let index = room.index_of(event);
            room.events[index].known = true;
            room.move_in_stream(index, stream);
            room.apply_redactions(index);
        });
    }

    /// The account may not see this event; it counts towards a page all the same, which may so become empty (P2).
    pub(crate) fn conceal(&self, room: &str, event: &str) {
        self.change(|world| {
            let room = world.room_mut(room);
            let index = room.index_of(event);
            room.events[index].concealed = true;
        });
    }

    /// The purge API: everything older than `before` in the graph is gone from /messages and /event, the create event
    /// too, though /state still has what is current (P137).
    pub(crate) fn purge(&self, room: &str, before: &str) {
        self.change(|world| {
            let room = world.room_mut(room);
            let position = room.position(room.index_of(before));
            for &index in &room.graph[..position] {
                room.events[index].purged = true;
            }
        });
    }

    /// The server's database comes back from a backup: what arrived after `token` never happened, and the numbers of
    /// the stream are given out again (P23).
    pub(crate) fn roll_back(&self, token: &str) {
        let stream = token.trim_start_matches('s').parse().expect("a token of `now`");
        self.change(|world| {
            world.stream = stream;
            world.rooms.values_mut().for_each(|room| room.roll_back(stream));
        });
    }

    /// Current state moves to an event the room has, be it older or newer, without anything in the timeline
    /// (P93).
    pub(crate) fn set_state(&self, room: &str, kind: &str, key: &str, event: &str) {
        self.move_state(room, kind, key, Some(event));
    }

    /// Current state loses a key; no section of /sync can say that, only a full one leaves it out.
    pub(crate) fn unset_state(&self, room: &str, kind: &str, key: &str) {
        self.move_state(room, kind, key, None);
    }

    fn move_state(&self, room: &str, kind: &str, key: &str, event: Option<&str>) {
        self.change(|world| {
            let stream = world.next_stream();
            let room = world.room_mut(room);
            let index = event.map(|event| room.index_of(event));
            room.move_state(stream, (kind.to_owned(), key.to_owned()), index);
        });
    }

    /// A state event that loses state resolution: it appears in the timeline, replacing what the current one
    /// replaced on its own branch, and the current one stays (P86).
    pub(crate) fn fork_state(&self, room: &str, kind: &str, key: &str, content: &str) -> String {
        self.losing_state(room, Event::state(kind, key, content), |winner| winner.replaces.clone())
    }

    /// A message arrives from a branch of the graph where `state` is still in force, and not what is in the room.
    pub(crate) fn branched_message(&self, room: &str, body: &str, state: &str) -> String {
        self.change(|world| {
            let id = world.append(room, Event::message(body));
            let room = world.room_mut(room);
            let (index, branch) = (room.index_of(&id), room.index_of(state));
            room.events[index].branch = Some(branch);
            id
        })
    }

    /// A state event that replaces the one in force and yet loses against it: it claims to be older, and another branch has
    /// not seen it.
    pub(crate) fn backdated_state(&self, room: &str, kind: &str, key: &str, content: &str) -> String {
        self.losing_state(room, Event::state(kind, key, content).at(1), |winner| Some(winner.id.clone()))
    }

    fn losing_state(
        &self,
        room: &str,
        event: Event,
        replaces: impl FnOnce(&Stored) -> Option<String>,
    ) -> String {
        self.change(|world| {
            let slot = event.slot().unwrap();
            let (id, stream) = (world.id_for(room, &event), world.next_stream());
            let winner = world.room(room).state.get(&slot).copied();
            world.take_in(room, Stored::new(id.clone(), stream, event, None), None);
            let room = world.room_mut(room);
            let index = room.index_of(&id);
            room.events[index].replaces = winner.and_then(|winner| replaces(&room.events[winner]));
            room.move_state(stream, slot, winner);
            id
        })
    }

    /// `user` makes a room that replaces this one (P108); the new room's id.
    pub(crate) fn upgrade(&self, room: &str, version: &str) -> String {
        let new = self.change(|world| world.new_room(version));
        let tombstone = object(&[("body", quote("upgraded")), ("replacement_room", quote(&new))]);
        let tombstone = self.append(room, Event::state("m.room.tombstone", "", tombstone).from(ARCHIVER));
        let mut predecessor = vec![("room_id", quote(room))];
        if new.contains(':') {
            predecessor.push(("event_id", quote(&tombstone)));
        }
        let content = object(&[("room_version", quote(version)), ("predecessor", object(&predecessor))]);
        self.append(&new, Event::state("m.room.create", "", content).from(ARCHIVER));
        self.append(&new, Event::member(ARCHIVER, "join"));
        new
    }
}

/// Who is in a room. All of these work on the archiver's own account too.
impl Homeserver {
    pub(crate) fn join(&self, room: &str, user: &str) -> String {
        self.append(room, Event::member(user, "join"))
    }

    pub(crate) fn leave(&self, room: &str, user: &str) -> String {
        self.append(room, Event::member(user, "leave"))
    }

    pub(crate) fn invite(&self, room: &str, user: &str) -> String {
        self.append(room, Event::member(user, "invite").from(ALICE))
    }

    pub(crate) fn kick(&self, room: &str, user: &str) -> String {
        self.append(room, Event::member(user, "leave").from(ALICE))
    }

    pub(crate) fn ban(&self, room: &str, user: &str) -> String {
        self.append(room, Event::member(user, "ban").from(ALICE))
    }

    /// The account forgets a room it has left: 403 from now on (P100).
    pub(crate) fn forget(&self, room: &str) {
        self.change(|world| world.room_mut(room).forgotten = true);
    }

    /// The account ignores a user, whose events but for state then vanish (P103).
    pub(crate) fn ignore(&self, user: &str) {
        self.change(|world| world.ignored.insert(user.to_owned()));
    }
}

/// What the server does to its clients.
impl Homeserver {
    /// Changes the server's habits: `server.behave(|habits| habits.overlap = 2)`.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Habits)) {
        self.change(|world| {
            change(&mut world.habits);
            world.asked.clear();
            world.page_starts.clear();
        });
    }

    /// Lets something go wrong; faults injected earlier come first.
    pub(crate) fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Ends every fault.
    pub(crate) fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// No token works any more; `soft` says so in the answer (P126).
    pub(crate) fn log_out(&self, soft: bool) {
        self.change(|world| {
            world.revoked = world.tokens.len();
            world.soft_logout = soft;
        });
    }

    /// A new token that works, beside those that do.
    pub(crate) fn new_access_token(&self) -> String {
        self.shared.lock().new_token()
    }
}

/// What a test may ask.
impl Homeserver {
    /// Everything the account may read now, in graph order; nothing for a room it is banned from or has forgotten.
    pub(crate) fn visible(&self, room: &str) -> Vec<OracleEvent> {
        self.shared.lock().visible(room)
    }

    /// The ids of [`Self::visible`].
    pub(crate) fn visible_ids(&self, room: &str) -> Vec<String> {
        self.shared.lock().visible_ids(room)
    }

    /// The current state, or that at the time of leaving (P90).
    pub(crate) fn current_state(&self, room: &str) -> BTreeMap<Slot, String> {
        self.shared.lock().current_state(room)
    }

    /// Whether an event was ever served as exactly these bytes.
    pub(crate) fn served(&self, room: &str, event: &str, bytes: &[u8]) -> bool {
        let world = self.shared.lock();
        let room = world.room(room);
        room.events[room.index_of(event)].was_served_as(bytes)
    }

    /// A token for now, such as the next /sync would give as `next_batch`.
    pub(crate) fn now(&self) -> String {
        format!("s{}", self.shared.lock().stream)
    }

    /// Every request so far.
    pub(crate) fn journal(&self) -> Vec<Request> {
        self.shared.lock().journal.clone()
    }

    /// Every request so far whose decoded path contains this.
    pub(crate) fn requests(&self, fragment: &str) -> Vec<Request> {
        let world = self.shared.lock();
        world.journal.iter().filter(|request| request.path().contains(fragment)).cloned().collect()
    }

    /// Waits until so many requests have come whose decoded path contains this.
    pub(crate) async fn has_been_asked(&self, fragment: &str, times: usize) {
        loop {
            let requested = self.shared.requested.notified();
            tokio::pin!(requested);
            requested.as_mut().enable();
            if self.requests(fragment).len() >= times {
                return;
            }
            requested.await;
        }
    }

    /// How many /messages requests for a room were ever answered at once: never more than one is right (P17).
    pub(crate) fn most_at_once(&self, room: &str) -> usize {
        self.shared.lock().in_flight.get(room).map_or(0, |(_, most)| *most)
    }
}
