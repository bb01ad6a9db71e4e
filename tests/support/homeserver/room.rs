//! A room: its events in two orders, its state over time, and what the archiver's account may see of it.

use super::event::{Edits, Setting, Shape, Slot, Stored, content_now, render};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Which event is current for each (type, state key).
pub(crate) type State = BTreeMap<Slot, usize>;

/// Rooms hold events twice: by arrival (`stream`, the order of /sync) and by the graph (the order of /messages). The
/// two differ as soon as one event arrives late (P18).
#[derive(Debug)]
pub(super) struct Room {
    /// The events that everybody may see.
    public: HashSet<usize>,
    pub(super) id: String,
    pub(super) version: String,
    pub(super) events: Vec<Stored>,
    by_id: HashMap<String, usize>,
    by_stream: BTreeMap<i64, usize>,
    /// Graph order, oldest first.
    pub(super) graph: Vec<usize>,
    pub(super) state: State,
    moves: Vec<Move>,
    /// Redactions that came before their target, by target.
    waiting: HashMap<String, usize>,
    /// Edits in order of arrival, by the event they edit.
    edits: HashMap<String, Vec<usize>>,
    /// Where /sync must admit a hole although few events came (P26).
    pub(super) gaps: Vec<i64>,
    pub(super) forgotten: bool,
}

/// One step of a current-state pointer; often without any event in the timeline (P93).
#[derive(Debug)]
struct Move {
    stream: i64,
    slot: Slot,
    event: Option<usize>,
}

/// What the account may do with a room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Access {
    Joined,
    /// May read up to its leave event, the one given (P98).
    Left(usize),
    /// Not in it, and may read what everybody may (specification, "Room history visibility": `world_readable`).
    Public,
    /// Banned, forgotten, only invited, or never there (P98, P100, P101).
    Denied,
}

/// A cursor between two events of the graph, or a place in the stream (P20).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    Stream(i64),
    Graph { stream: i64, after: bool },
}

impl Room {
    pub(super) fn new(id: String, version: &str) -> Self {
        Self {
            id,
            version: version.to_owned(),
            public: HashSet::new(),
            events: Vec::new(),
            by_id: HashMap::new(),
            by_stream: BTreeMap::new(),
            graph: Vec::new(),
            state: State::new(),
            moves: Vec::new(),
            waiting: HashMap::new(),
            edits: HashMap::new(),
            gaps: Vec::new(),
            forgotten: false,
        }
    }

    /// Adds an event that has just arrived, at the end of the graph or right after another event.
    pub(super) fn add(&mut self, stored: Stored, after: Option<usize>) -> usize {
        let index = self.events.len();
        let position = after.map_or(self.graph.len(), |after| self.position(after) + 1);
        self.graph.insert(position, index);
        self.by_id.insert(stored.id.clone(), index);
        self.by_stream.insert(stored.stream, index);
        if let Some(edited) = stored.edited_id() {
            self.edits.entry(edited).or_default().push(index);
        }
        self.events.push(stored);
        self.events[index].replaces = self.replaced_by(index, position);
        self.conceal_by_visibility(index);
        index
    }

    /// The state event an event replaced on its own branch: the last one before it in the graph (P66).
    fn replaced_by(&self, index: usize, position: usize) -> Option<String> {
        let slot = self.events[index].event.slot()?;
        if position + 1 == self.graph.len() {
            return self.state.get(&slot).map(|&current| self.events[current].id.clone());
        }
        let before = self.graph[..position].iter().rev();
        let replaced =
            before.map(|&i| &self.events[i]).find(|stored| stored.event.slot().as_ref() == Some(&slot))?;
        Some(replaced.id.clone())
    }

    /// Makes a state event current, unless one later in the graph already is.
    pub(super) fn settle(&mut self, index: usize) {
        let Some(slot) = self.events[index].event.slot() else {
            return;
        };
        let position = self.position(index);
        let is_late = self.state.get(&slot).is_some_and(|&current| self.position(current) > position);
        if !is_late {
            let stream = self.events[index].stream;
            self.move_state(stream, slot, Some(index));
        }
    }

    pub(super) fn move_state(&mut self, stream: i64, slot: Slot, event: Option<usize>) {
        match event {
            Some(index) => self.state.insert(slot.clone(), index),
            None => self.state.remove(&slot),
        };
        self.moves.push(Move { stream, slot, event });
    }

    /// Applies a redaction to its target, if the server has both, in this room, and the target may be redacted at all
    /// (P73-P75). Whichever of the two arrives last brings it about.
    pub(super) fn apply_redactions(&mut self, index: usize) {
        let stored = &self.events[index];
        if let Some(target) = self.target_of(index) {
            self.redact(target, stored.id.clone());
        } else if let Some(target) = stored.event.target() {
            self.waiting.insert(target.to_owned(), index);
        }
        if let Some(redaction) = self.waiting.remove(&self.events[index].id) {
            self.redact(index, self.events[redaction].id.clone());
        }
    }

    fn redact(&mut self, target: usize, redaction: String) {
        let stored = &mut self.events[target];
        if stored.event.kind != "m.room.create" && stored.id != redaction {
            stored.redacted_by.get_or_insert(redaction);
        }
    }

    /// The event a redaction is for, if the server has it in this room.
    fn target_of(&self, index: usize) -> Option<usize> {
        self.find(self.events[index].event.target()?).filter(|&target| self.events[target].known)
    }

    /// Gives an event that the server learned late its negative place in the stream (P47).
    pub(super) fn move_in_stream(&mut self, index: usize, stream: i64) {
        let old = std::mem::replace(&mut self.events[index].stream, stream);
        self.by_stream.remove(&old);
        self.by_stream.insert(stream, index);
    }

    /// Forgets all that arrived after a place in the stream.
    pub(super) fn roll_back(&mut self, stream: i64) {
        for index in self.by_stream.split_off(&(stream + 1)).into_values() {
            self.events[index].known = false;
        }
        self.moves.retain(|step| step.stream <= stream);
        self.state = self.state_at(stream);
    }

    /// Whether the server got this event as history, behind the stream.
    pub(super) fn is_backfilled(&self, event_id: &str) -> bool {
        self.events[self.index_of(event_id)].stream < 0
    }

    pub(super) fn find(&self, event_id: &str) -> Option<usize> {
        self.by_id.get(event_id).copied()
    }

    /// The event of this id, which the test knows to be there.
    pub(super) fn index_of(&self, event_id: &str) -> usize {
        self.find(event_id).unwrap_or_else(|| panic!("{event_id} is not in {}", self.id))
    }

    /// Where an event stands in the graph.
    pub(super) fn position(&self, index: usize) -> usize {
        self.graph.iter().rposition(|&other| other == index).expect("every event is in the graph")
    }

    /// How many events of the graph are below a place; nothing if the place is none of ours (P13).
    pub(super) fn below(&self, place: Place) -> Option<usize> {
        match place {
            Place::Stream(_) => Some(self.graph.len()),
            Place::Graph { stream, after } => {
                let index = *self.by_stream.get(&stream)?;
                Some(self.position(index) + usize::from(after))
            }
        }
    }

    /// The events that arrived in this part of the stream, in order of arrival.
    pub(super) fn arrived(&self, after: i64, until: i64) -> impl Iterator<Item = usize> {
        let range = if after < until { after + 1..until + 1 } else { 0..0 };
        self.by_stream.range(range).map(|(_, &index)| index)
    }

    /// The state as it was at a place in the stream.
    pub(super) fn state_at(&self, stream: i64) -> State {
        let mut state = State::new();
        for step in self.moves.iter().take_while(|step| step.stream <= stream) {
            match step.event {
                Some(index) => state.insert(step.slot.clone(), index),
                None => state.remove(&step.slot),
            };
        }
        state
    }

    /// The state just below a position of the graph, by the graph alone.
    pub(super) fn state_below(&self, position: usize) -> State {
        let before = self.graph[..position].iter().filter(|&&index| self.events[index].is_kept());
        before.filter_map(|&index| Some((self.events[index].event.slot()?, index))).collect()
    }

    /// Whether any state pointer moved in this part of the stream.
    pub(super) fn state_moved(&self, after: i64, until: i64) -> bool {
        self.moves.iter().any(|step| after < step.stream && step.stream <= until)
    }

    pub(super) fn membership(&self, user: &str, state: &State) -> Option<String> {
        self.events[member_event(user, state)?].event.content_text("membership")
    }

    /// Whether this is the account's membership now.
    pub(super) fn membership_is(&self, membership: &str) -> bool {
        self.membership(super::ARCHIVER, &self.state).as_deref() == Some(membership)
    }

    pub(super) fn access(&self, user: &str) -> Access {
        match self.membership(user, &self.state).as_deref() {
            _ if self.forgotten => Access::Denied,
            Some("join") => Access::Joined,
            Some("leave") => self.left(user),
            _ => self.to_others(),
        }
    }

    fn to_others(&self) -> Access {
        if self.visibility().as_deref() == Some("world_readable") { Access::Public } else { Access::Denied }
    }

    fn visibility(&self) -> Option<String> {
        let slot = ("m.room.history_visibility".to_owned(), String::new());
        self.state.get(&slot).and_then(|&i| self.events[i].event.content_text("history_visibility"))
    }

    /// A rejected invitation leaves a `leave` too, but no right to read.
    fn left(&self, user: &str) -> Access {
        let was_joined = self.moves.iter().filter_map(|step| step.event).any(|index| {
            let event = &self.events[index].event;
            event.state_key.as_deref() == Some(user)
                && event.content_text("membership").as_deref() == Some("join")
        });
        member_event(user, &self.state).filter(|_| was_joined).map_or(self.to_others(), Access::Left)
    }

    /// How much of the graph the account may read, seen from the oldest event: nothing, all, or up to its leave.
    pub(super) fn readable(&self, user: &str) -> usize {
        match self.access(user) {
            Access::Joined | Access::Public => self.graph.len(),
            Access::Left(leave) => self.position(leave) + 1,
            Access::Denied => 0,
        }
    }

    /// Whether the account may see the event. What it may not see still counts towards a page (P2).
    pub(super) fn shows(&self, index: usize) -> bool {
        let stored = &self.events[index];
        let never_served = ["m.room.aliases", "org.matrix.dummy_event"].contains(&stored.event.kind.as_str());
        let to_others = self.access(super::ARCHIVER) == Access::Public && !self.public.contains(&index);
        stored.is_kept() && !stored.concealed && !to_others && !never_served && !self.withholds(index)
    }

    /// From version 3 on a redaction is withheld until its target is known in the room (P73).
    fn withholds(&self, index: usize) -> bool {
        let lenient = ["1", "2"].contains(&self.version.as_str());
        !lenient && self.events[index].event.target().is_some() && self.target_of(index).is_none()
    }

    /// Under `joined` or `invited` visibility what happens while the account is away stays hidden from it (P102).
    fn conceal_by_visibility(&mut self, index: usize) {
        let setting = self.visibility();
        if setting.as_deref() == Some("world_readable") {
            self.public.insert(index);
        }
        let private = setting.is_some_and(|setting| ["joined", "invited"].contains(&setting.as_str()));
        let away = self.membership(super::ARCHIVER, &self.state).as_deref() != Some("join");
        let own = self.events[index].event.state_key.as_deref() == Some(super::ARCHIVER);
        self.events[index].concealed = private && away && !own;
    }

    /// The bytes of an event as this request gets them.
    pub(super) fn serve(&mut self, index: usize, shape: Shape, moment: Moment) -> String {
        let bytes = self.bytes(index, shape, moment);
        self.events[index].note_served(&bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn bytes(&self, index: usize, shape: Shape, moment: Moment) -> Vec<u8> {
        let stored = &self.events[index];
        let own = stored.event.sender == super::ARCHIVER;
        let edit = self.newest_edit(stored).filter(|_| moment.edits != Edits::Alone);
        let in_place = moment.edits == Edits::InPlace;
        let setting = Setting {
            age: moment.tick * 17 + stored.stream.unsigned_abs(),
            shape,
            transaction_id: own.then(|| format!("m{}", stored.stream)),
            previous: self.previous_of(stored, moment.stale_prev_content),
            redaction: self.redaction_of(stored, shape, moment),
            edit: edit.map(|edit| {
                if in_place {
                    return self.events[edit].named();
                }
                String::from_utf8_lossy(&self.bytes(edit, shape, moment)).into_owned()
            }),
            edited: edit
                .filter(|_| in_place && shape != Shape::Event)
                .and_then(|edit| stored.edited_by(&self.events[edit])),
        };
        render(&self.version, &self.id, stored, &setting)
    }

    /// The newest valid edit of an event.
    fn newest_edit(&self, stored: &Stored) -> Option<usize> {
        let stands = |index: &&usize| {
            let edit = &self.events[**index];
            edit.is_kept() && edit.redacted_by.is_none() && edit.may_edit(stored)
        };
        let edits = self.edits.get(&stored.id).filter(|_| stored.redacted_by.is_none())?;
        edits.iter().rev().find(stands).copied()
    }

    fn redaction_of(&self, stored: &Stored, shape: Shape, moment: Moment) -> Option<(String, String)> {
        let index = self.find(stored.redacted_by.as_deref()?)?;
        let bytes = self.bytes(index, shape, moment);
        Some((self.events[index].id.clone(), String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Sender and content of the state event that was replaced. The content is what is left of it, or, until a
    /// restart, the content it had before it was redacted (P65).
    fn previous_of(&self, stored: &Stored, stale: bool) -> Option<(String, String)> {
        let previous = self.find(stored.replaces.as_deref()?).filter(|&index| self.shows(index))?;
        let previous = &self.events[previous];
        let content = content_now(&self.version, previous, stale);
        Some((previous.event.sender.clone(), content))
    }
}

/// The event that reports a user's membership.
pub(super) fn member_event(user: &str, state: &State) -> Option<usize> {
    state.get(&("m.room.member".to_owned(), user.to_owned())).copied()
}

/// What makes the same event look different from one request to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) tick: u64,
    pub(super) stale_prev_content: bool,
    pub(super) edits: Edits,
}
