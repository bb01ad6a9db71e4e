//! Parses responses to `/sync`. A room, section or field that cannot be read is set aside as it was served, for
//! quarantine. The rest is used, so an invalid room never affects the others.

use ruma::OwnedRoomId;
use serde_json::value::RawValue;

use super::{
    Error, Token,
    event::{self, Event, Malformed, Stripped},
    json::Member,
    object::{self, Object, boolean, string},
    page::{Events, text},
};

/// A response to `/sync`, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncBatch {
    /// The `since` of the next request. `None` in a part of a response.
    pub next_batch: Option<Token>,
    /// The rooms, ordered by id. A room that is listed twice is here twice, in the order served.
    pub rooms: Vec<RoomUpdate>,
    /// Parts that could not be read and do not belong to a valid room.
    pub(crate) set_aside: Vec<Malformed>,
    /// Whether these may contain events of any room.
    pub rooms_unreadable: bool,
    /// The to-device events, each as it was served.
    pub(crate) to_device: Vec<String>,
    /// What the server has of the device's keys. `None`: it does not say.
    pub(crate) published_keys: Option<PublishedKeys>,
}

/// What the server has of the keys that the device has published (specification, `GET /sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishedKeys {
    /// One-time keys of `signed_curve25519` that nobody has taken yet.
    pub(crate) one_time: u64,
    /// Whether there is a fallback key that nobody has used yet. A server that does not know fallback keys needs none.
    pub(crate) has_fallback: bool,
}

/// The section of `/sync` that lists a room, which shows the account's membership.
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

/// One room's part of a `/sync` response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomUpdate {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The section that lists it.
    pub section: Section,
    /// New events, in the order of arrival.
    pub timeline: Events,
    /// Whether events are missing before the timeline, or may be in the parts that were [set
    /// aside](Self::timeline_unreadable). False does not prove that none are missing (P28).
    pub limited: bool,
    /// The token before the timeline.
    pub prev_batch: Option<Token>,
    /// State changes up to the timeline's start.
    pub state: Events,
    /// State changes up to the timeline's end. If present, it is the only source of state (P87).
    pub state_after: Option<Events>,
    /// The stripped state of an invite or knock, which has no event ids (P105).
    pub(crate) stripped: Vec<Stripped>,
    /// Parts that could not be read, except single events.
    pub(crate) set_aside: Vec<Malformed>,
    /// Whether these, or [too many](Events::has_unreadable_parts) invalid events, may contain events of the timeline.
    /// Their place between `since` and `next_batch` is unknown.
    pub timeline_unreadable: bool,
    /// Whether these, or too many invalid events, may contain state.
    pub state_unreadable: bool,
}

impl Section {
    const ALL: [(&'static str, Self); 4] =
        [("join", Self::Join), ("leave", Self::Leave), ("invite", Self::Invite), ("knock", Self::Knock)];

    /// Whether rooms of this section have a timeline.
    fn has_timelines(self) -> bool {
        matches!(self, Self::Join | Self::Leave)
    }
}

impl SyncBatch {
    /// Parses the value of `next_batch`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not a token.
    pub(super) fn read_token(value: &[u8]) -> Result<Token, Error> {
        let token = std::str::from_utf8(value).ok().and_then(string).unwrap_or_default();
        Token::served("/sync: `next_batch`", token)?
            .ok_or_else(|| Error::Malformed("/sync: next_batch is missing or no token".into()))
    }

    /// Parses a `/sync` response, or a part of one, which may be empty.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not an object. No other problem makes the whole response invalid.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Error> {
        let body = text(if body.is_empty() { b"{}" } else { body });
        let body: &RawValue =
            serde_json::from_str(&body).map_err(|error| Error::malformed("/sync", &error))?;
        let answer =
            Object::read(body.get()).ok_or_else(|| Error::Malformed("/sync: it is not an object".into()))?;
        let next_batch = answer.get("next_batch").and_then(string).and_then(Token::new);
        let mut batch = Self {
            next_batch,
            rooms: Vec::new(),
            set_aside: Vec::new(),
            rooms_unreadable: false,
            to_device: Vec::new(),
            published_keys: PublishedKeys::read(&answer),
        };
        for to_device in answer.all("to_device") {
            batch.to_device.extend(read_to_device(to_device));
        }
        for rooms in answer.all("rooms") {
            batch.read_rooms(rooms);
        }
        batch.rooms.sort_by(|left, right| left.room_id.cmp(&right.room_id));
        Ok(batch)
    }

    fn read_rooms(&mut self, json: &str) {
        let Some(sections) = Object::read(json) else {
            self.set_aside.push(Malformed::part(json, "rooms is not an object"));
            self.rooms_unreadable = true;
            return;
        };
        for (name, section) in Section::ALL {
            for listed in sections.all(name) {
                self.read_section(section, listed);
            }
        }
    }

    fn read_section(&mut self, section: Section, json: &str) {
        let Some(listed) = Object::read(json) else {
            self.set_aside.push(Malformed::part(json, "a section of rooms is not an object"));
            self.rooms_unreadable |= section.has_timelines();
            return;
        };
        for member in listed.members() {
            match RoomUpdate::read(section, member) {
                Ok(room) => self.rooms.push(room),
                Err(malformed) => self.set_aside.push(malformed),
            }
        }
    }
}

impl PublishedKeys {
    fn read(answer: &Object<'_>) -> Option<Self> {
        const ALGORITHM: &str = "signed_curve25519";
        let counts = Object::read(answer.get("device_one_time_keys_count")?)?;
        let one_time = counts.get(ALGORITHM).and_then(|count| count.parse().ok()).unwrap_or(0);
        let unused = answer.get("device_unused_fallback_key_types");
        let unused = unused.map(|types| serde_json::from_str::<Vec<String>>(types).unwrap_or_default());
        let has_fallback = unused.is_none_or(|types| types.iter().any(|algorithm| algorithm == ALGORITHM));
        Some(Self { one_time, has_fallback })
    }
}

/// The events of the section `to_device`. What is no list of events is none.
fn read_to_device(json: &str) -> Vec<String> {
    let mut events = Vec::new();
    if let Some(listed) = Object::read(json).and_then(|section| section.get("events")) {
        // A list that is cut still gives its first events.
        let _ = object::read_items(listed, |raw| events.push(raw.get().to_owned()));
    }
    events
}

impl RoomUpdate {
    /// Removes these events from the timeline. A gap is opened, and its walk fetches them.
    pub(crate) fn leave_to_a_gap(&mut self, is_left_out: impl Fn(&Event) -> bool) {
        let before = self.timeline.events.len();
        self.timeline.events.retain(|event| !is_left_out(event));
        if self.timeline.events.len() < before {
            self.timeline_unreadable = true;
            self.limited = true;
        }
    }

    /// Whether events or state of the room may be in the parts that could not be read.
    pub fn has_unreadable_parts(&self) -> bool {
        self.timeline_unreadable || self.state_unreadable
    }

    /// Parses one room of a section: its id and the value.
    ///
    /// # Errors
    /// [`Malformed`] if the id is not valid, so that the room cannot be archived. No other problem makes the whole
    /// room invalid.
    pub(super) fn read(section: Section, member: &Member<'_>) -> Result<Self, Malformed> {
        let room_id = member.name.as_str().and_then(|id| OwnedRoomId::try_from(id).ok());
        let room_id = room_id.ok_or_else(|| {
            Malformed::part(&format!("{{{}}}", member.whole), "the id of a room of a sync response is none")
        })?;
        let mut batch = Self {
            room_id,
            section,
            timeline: Events::default(),
            limited: false,
            prev_batch: None,
            state: Events::default(),
            state_after: None,
            stripped: Vec::new(),
            set_aside: Vec::new(),
            timeline_unreadable: false,
            state_unreadable: false,
        };
        if let Some(room) = Object::read(member.value) {
            batch.read_parts(&room);
        } else {
            batch.lacks_timeline(member.value, "what a sync response has of the room is not an object");
            batch.state_unreadable = true;
        }
        Ok(batch)
    }

    fn read_parts(&mut self, room: &Object<'_>) {
        if let Some(timeline) = self.only(room, "timeline", Self::lacks_timeline) {
            match Object::read(timeline) {
                Some(timeline) => self.read_timeline(&timeline),
                None => self.lacks_timeline(timeline, "timeline is not an object"),
            }
        }
        self.state = self.read_state(room, "state").unwrap_or_default();
        let unstable = "org.matrix.msc4222.state_after";
        self.state_after = self.read_state(room, "state_after").or_else(|| self.read_state(room, unstable));
        let stripped = room.get("invite_state").or_else(|| room.get("knock_state"));
        if let Some(stripped) = stripped {
            match read_stripped(stripped) {
                Some(stripped) => self.stripped = stripped,
                None => {
                    self.set_aside.push(Malformed::part(stripped, "stripped state is not a list of events"));
                }
            }
        }
    }

    fn read_timeline(&mut self, timeline: &Object<'_>) {
        if let Some(events) = self.only(timeline, "events", Self::lacks_timeline) {
            match Events::read(self.room_id.as_str(), events) {
                Ok(events) => {
                    self.miss_timeline(events.has_unreadable_parts);
                    self.timeline = events;
                }
                Err(_) => self.lacks_timeline(events, "timeline.events is not a list"),
            }
        }
        if let Some(limited) = timeline.get("limited") {
            let read = boolean(limited);
            if read.is_none() {
                self.set_aside.push(Malformed::part(limited, "timeline.limited is not a boolean"));
            }
            // If in doubt, open a gap: an unnecessary one does no harm, but a missing one loses events.
            self.limited |= read.unwrap_or(true);
        }
        if let Some(prev_batch) = timeline.get("prev_batch") {
            let read = string(prev_batch);
            if read.is_none() {
                self.set_aside.push(Malformed::part(prev_batch, "timeline.prev_batch is not a string"));
            }
            // If the token is not valid, a gap's walk begins at next_batch instead. The response stays valid.
            self.prev_batch = read.and_then(Token::new);
        }
    }

    fn read_state(&mut self, room: &Object<'_>, name: &str) -> Option<Events> {
        let state = self.only(room, name, Self::lacks_state)?;
        let events = read_events(self.room_id.as_str(), state);
        match &events {
            Some(events) => self.state_unreadable |= events.has_unreadable_parts,
            None => self.lacks_state(state, "state is not a list of events"),
        }
        events
    }

    /// The value of that name. Of several the last counts; the others are set aside.
    fn only<'a>(
        &mut self,
        object: &Object<'a>,
        name: &str,
        set_aside: impl Fn(&mut Self, &str, &'static str),
    ) -> Option<&'a str> {
        let mut last = None;
        for value in object.all(name) {
            if let Some(before) = last.replace(value) {
                set_aside(self, before, "a part of the room that a sync response has twice");
            }
        }
        last
    }

    fn lacks_timeline(&mut self, raw: &str, reason: &'static str) {
        self.set_aside.push(Malformed::part(raw, reason));
        self.miss_timeline(true);
    }

    fn miss_timeline(&mut self, has_unreadable_parts: bool) {
        if has_unreadable_parts && self.section.has_timelines() {
            self.timeline_unreadable = true;
            self.limited = true;
        }
    }

    fn lacks_state(&mut self, raw: &str, reason: &'static str) {
        self.set_aside.push(Malformed::part(raw, reason));
        self.state_unreadable = true;
    }
}

/// The events of a room's section, which may have none. `None`: the section is not valid.
fn read_events(room_id: &str, json: &str) -> Option<Events> {
    let section = Object::read(json)?;
    section.get("events").map_or_else(|| Some(Events::default()), |events| Events::read(room_id, events).ok())
}

/// The same for stripped state.
fn read_stripped(json: &str) -> Option<Vec<Stripped>> {
    let mut stripped = Vec::new();
    if let Some(events) = Object::read(json)?.get("events") {
        object::read_items(events, |raw| stripped.extend(event::parse_stripped(raw))).ok()?;
    }
    Some(stripped)
}

#[cfg(test)]
mod tests {
    use super::{super::splitter::Splitter, *};

    fn batch(body: &str) -> SyncBatch {
        parse(body).expect("a batch")
    }

    /// As an answer is read that comes in one piece.
    fn parse(body: &str) -> Result<SyncBatch, Error> {
        let mut splitter = Splitter::new();
        splitter.push(body.as_bytes())?;
        let next_batch = SyncBatch::read_token(splitter.next_batch().unwrap_or_default())?;
        Ok(SyncBatch { next_batch: Some(next_batch), ..SyncBatch::read(&splitter.finish()?)? })
    }

    /// The room `!r:hs` with this value in `rooms.join`, beside one that is well.
    fn room(value: &str) -> RoomUpdate {
        let batch = batch(&format!(
            r#"{{"next_batch":"s","rooms":{{"join":{{"!r:hs":{value},
                "!s:hs":{{"timeline":{{"limited":true}}}}}}}}}}"#
        ));
        assert!(batch.set_aside.is_empty() && !batch.rooms_unreadable);
        let [room, neighbour] = batch.rooms.as_slice() else { panic!("two rooms") };
        assert!(neighbour.limited && neighbour.set_aside.is_empty());
        room.clone()
    }

    fn reasons(set_aside: &[Malformed]) -> Vec<&str> {
        set_aside.iter().map(|malformed| malformed.reason).collect()
    }

    const EVENT: &str = r#"{"type":"t","sender":"s","event_id":"$1","content":{},"origin_server_ts":1}"#;

    /// What a server leaves empty in its own way, or reports under both names, costs nothing of the rest.
    #[test]
    fn a_sync_may_hold_nulls_and_both_names() {
        let room = room(
            r#"{"timeline":{"events":null,"limited":null,"prev_batch":null},"state":{"events":null},
            "state_after":{"events":[]},"org.matrix.msc4222.state_after":{"events":[]}}"#,
        );
        assert!(!room.limited && room.prev_batch.is_none() && room.state_after.is_some());
        assert!(room.set_aside.is_empty());
        let empty = batch(r#"{"next_batch":"s","rooms":{"leave":null,"join":{}}}"#);
        assert!(empty.rooms.is_empty() && !empty.rooms_unreadable);
    }

    #[test]
    fn sync_sections_are_all_optional() {
        for quiet in [
            r#"{"next_batch":"s1"}"#,
            r#"{"next_batch":"s1","rooms":null}"#,
            r#"{"next_batch":"s0","next_batch":"s1","rooms":{"peek":[1]},"to_device":7}"#,
        ] {
            let quiet = batch(quiet);
            assert!(quiet.rooms.is_empty() && quiet.set_aside.is_empty());
            assert_eq!(quiet.next_batch, Token::new("s1"));
        }
        let batch = batch(
            r#"{"next_batch":"s2","rooms":{"join":{"!b:hs":{
                "timeline":{"limited":true,"prev_batch":"p","events":[]},
                "org.matrix.msc4222.state_after":{"events":[]}}},"invite":{"!a:hs":{"invite_state":{"events":[
                {"type":"m.room.name","state_key":"","sender":"@x:hs","content":{"name":"n"}}]}}}}}"#,
        );
        let [invite, join] = batch.rooms.as_slice() else { panic!("two rooms") };
        assert_eq!((invite.section, invite.stripped.len()), (Section::Invite, 1));
        assert!(join.limited && join.state_after.is_some() && join.prev_batch.is_some());
    }

    #[test]
    fn only_what_cannot_be_followed_is_refused() {
        for body in [
            "",
            "[]",
            "7",
            "{}",
            "<html>",
            r#"{"next_batch":""}"#,
            r#"{"next_batch":7}"#,
            r#"{"next_batch":null}"#,
            r#"{"next_batch":"a\u0000"}"#,
            r#"{"next_batch":"\ud800"}"#,
            r#"{"next_batch":"s","rooms":{"join":{"!r:hs":{}"#,
        ] {
            assert!(parse(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_room_without_an_id_leaves_its_neighbours() {
        let long = format!("!{}:hs", "x".repeat(290));
        for id in [long.as_str(), "", "r:hs", "#r:hs", r"!r\u0000:hs", r"!\ud800:hs"] {
            for section in ["join", "leave", "invite", "knock"] {
                let batch = batch(&format!(
                    r#"{{"next_batch":"s","rooms":{{"{section}":{{"{id}":{{}},"!s:hs":{{}}}}}}}}"#
                ));
                let [neighbour] = batch.rooms.as_slice() else { panic!("{id}: one room") };
                assert_eq!(neighbour.room_id, "!s:hs");
                assert_eq!(
                    reasons(&batch.set_aside),
                    ["the id of a room of a sync response is none"],
                    "{id}"
                );
                assert!(!batch.rooms_unreadable);
            }
        }
    }

    #[test]
    fn a_section_of_another_type_leaves_the_others() {
        for (section, unread) in [("join", true), ("leave", true), ("invite", false), ("knock", false)] {
            for value in [r#"["!r:hs"]"#, r#""none""#, "7", "[]", "true"] {
                let other = if section == "knock" { "invite" } else { "knock" };
                let batch = batch(&format!(
                    r#"{{"next_batch":"s","rooms":{{"{section}":{value},"{other}":{{"!s:hs":{{}}}}}}}}"#
                ));
                assert_eq!((batch.rooms.len(), batch.set_aside.len()), (1, 1), "{section} {value}");
                assert_eq!(batch.rooms_unreadable, unread, "{section} {value}");
            }
        }
        let batch = batch(r#"{"next_batch":"s","rooms":[]}"#);
        assert!(batch.rooms_unreadable && reasons(&batch.set_aside) == ["rooms is not an object"]);
    }

    #[test]
    fn a_timeline_that_cannot_be_read_counts_as_left_out() {
        for value in [
            "null",
            "7",
            "[]",
            r#"{"timeline":"none"}"#,
            r#"{"timeline":[]}"#,
            r#"{"timeline":{"events":{"0":1},"prev_batch":"p"}}"#,
            r#"{"timeline":{"events":"none","limited":false}}"#,
            r#"{"timeline":{"events":[]},"timeline":{"events":[]}}"#,
            r#"{"timeline":{"events":[],"events":[]}}"#,
        ] {
            let room = room(value);
            assert!(room.timeline_unreadable && room.limited, "{value}");
            assert_eq!(room.set_aside.len(), 1, "{value}");
        }
    }

    #[test]
    fn a_field_of_another_type_leaves_the_events() {
        let timeline = |field: &str| room(&format!(r#"{{"timeline":{{"events":[{EVENT},3],{field}}}}}"#));
        for (field, limited) in [
            (r#""limited":"true""#, true),
            (r#""limited":0"#, true),
            (r#""limited":false,"prev_batch":7"#, false),
            (r#""prev_batch":{}"#, false),
            (r#""prev_batch":"a\u0000""#, false),
        ] {
            let room = timeline(field);
            assert_eq!((room.timeline.events.len(), room.timeline.malformed.len()), (1, 1), "{field}");
            assert_eq!((room.limited, room.set_aside.len()), (limited, 1), "{field}");
            assert!(room.prev_batch.is_none() && !room.timeline_unreadable, "{field}");
        }
    }

    #[test]
    fn state_of_another_type_is_to_be_asked_for() {
        for value in [
            r#"{"state":[]}"#,
            r#"{"state":{"events":{}}}"#,
            r#"{"state_after":"none"}"#,
            r#"{"state":{},"state":{}}"#,
        ] {
            let room = room(value);
            assert!(room.state_unreadable && room.state_after.is_none() && !room.limited, "{value}");
            assert_eq!(room.set_aside.len(), 1, "{value}");
        }
        assert!(!room(r#"{"state":null,"state_after":{}}"#).state_unreadable);
        let invite =
            batch(r#"{"next_batch":"s","rooms":{"invite":{"!r:hs":{"invite_state":{"events":7}}}}}"#);
        assert_eq!(reasons(&invite.rooms[0].set_aside), ["stripped state is not a list of events"]);
    }

    #[test]
    fn too_many_bad_events_count_as_left_out() {
        let bad = "7,".repeat(10_001);
        let flooded = |section: &str| room(&format!(r#"{{"{section}":{{"events":[{bad}{EVENT}]}}}}"#));
        let timeline = flooded("timeline");
        assert_eq!((timeline.timeline.events.len(), timeline.timeline.malformed.len()), (1, 1));
        assert!(timeline.timeline_unreadable && timeline.limited && !timeline.state_unreadable);
        for section in ["state", "state_after", "org.matrix.msc4222.state_after"] {
            let room = flooded(section);
            let state = room.state_after.as_ref().unwrap_or(&room.state);
            assert_eq!((state.events.len(), state.malformed.len()), (1, 1), "{section}");
            assert!(room.state_unreadable && !room.timeline_unreadable && !room.limited, "{section}");
        }
    }

    #[test]
    fn a_room_that_is_listed_twice_is_read_twice() {
        let join = |events: &str| format!(r#""!r:hs":{{"timeline":{{"events":[{events}]}}}}"#);
        let batch =
            batch(&format!(r#"{{"next_batch":"s","rooms":{{"join":{{{},{}}}}}}}"#, join(EVENT), join("")));
        let counts: Vec<_> = batch.rooms.iter().map(|room| room.timeline.events.len()).collect();
        assert_eq!(counts, [1, 0]);
    }

    #[test]
    fn what_stands_is_set_aside_once() {
        let own = |raw: &str| Malformed::part(raw, "no list").own_sha256;
        assert_eq!(own("7"), own(r#""later""#));
        assert_eq!(own(r#"{"a":[{"unsigned":{"age":1},"b":1}]}"#), own(r#"{"a":[{"b":1,"age":2}]}"#));
        assert_ne!(own(r#"{"a":1}"#), own(r#"{"a":2}"#));
    }
}
