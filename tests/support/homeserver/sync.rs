//! `/sync`: what arrived since a token, in order of arrival, with Synapse's limits and lies.

use super::ARCHIVER;
use super::event::Shape;
use super::http::{Reply, Request};
use super::json::{Json, object, quote};
use super::messages::Token;
use super::room::{Access, Place, Room, State, member_event};
use super::world::{World, readable_state};

/// Under which name the server sends the state after the timeline, if it can and is asked to (P87).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum StateAfter {
    /// Not at all: `state` and `timeline` only, with which a client goes wrong at forks (P86).
    #[default]
    Never,
    /// `state_after`, asked for as `use_state_after`.
    Stable,
    /// The `org.matrix.msc4222.` names of both, all that Synapse 1.163 knows.
    Unstable,
}

/// A /sync request, understood.
#[derive(Debug)]
struct Asked {
    since: Option<i64>,
    limit: usize,
    full_state: bool,
    include_leave: bool,
    /// The key to send instead of `state`.
    state_after: Option<&'static str>,
    rooms: Option<Vec<String>>,
    not_rooms: Vec<String>,
}

/// What happened in one room.
struct News {
    timeline: Vec<usize>,
    limited: bool,
    prev_batch: i64,
    state: Vec<usize>,
}

impl World {
    /// `GET /sync`; nothing as long as there is no news, unless this is the `last` moment to answer.
    pub(super) fn sync(&mut self, request: &Request, last: bool) -> Option<Reply> {
        let asked = match self.understand(request) {
            Ok(asked) => asked,
            Err(reply) => return Some(reply),
        };
        let sections = self.sections(&asked);
        let is_news = sections.iter().any(|section| !section.is_empty());
        if !is_news && asked.since.is_some() && !asked.full_state && !last {
            return None;
        }
        let mut fields = vec![("next_batch", quote(&Token::live(self.stream).to_string()))];
        if is_news {
            let named =
                ["join", "leave", "invite"].into_iter().zip(&sections).filter(|(_, rooms)| !rooms.is_empty());
            let rooms: Vec<_> =
                named.map(|(name, rooms)| (name, format!("{{{}}}", rooms.join(",")))).collect();
            fields.push(("rooms", object(&rooms)));
        }
        Some(Reply::ok(object(&fields)))
    }

    fn understand(&self, request: &Request) -> Result<Asked, Reply> {
        let since = match request.query("since") {
            None => None,
            Some(text) if text.starts_with('t') => {
                return Err(Reply::error(500, "M_UNKNOWN", "Internal server error"));
            }
            Some(text) => match Token::parse(text).map(|token| token.place) {
                Some(Place::Stream(stream)) => Some(stream),
                _ => return Err(Reply::error(400, "M_UNKNOWN", "Invalid stream token")),
            },
        };
        let filter = self.filter(request.query("filter"))?;
        let limit = filter.at(&["room", "timeline", "limit"]).and_then(Json::integer).unwrap_or(10);
        let names =
            |key| Some(filter.at(&["room", key])?.items().iter().filter_map(Json::text).collect::<Vec<_>>());
        let wants = |name| request.query(name) == Some("true");
        Ok(Asked {
            since,
            limit: usize::try_from(limit).unwrap_or(10).clamp(1, self.habits.timeline_cap),
            full_state: wants("full_state"),
            include_leave: filter.at(&["room", "include_leave"]).is_some_and(Json::is_true),
            state_after: match self.habits.state_after {
                StateAfter::Stable if wants("use_state_after") => Some("state_after"),
                StateAfter::Unstable if wants("org.matrix.msc4222.use_state_after") => {
                    Some("org.matrix.msc4222.state_after")
                }
                _ => None,
            },
            rooms: names("rooms"),
            not_rooms: names("not_rooms").unwrap_or_default(),
        })
    }

    /// The filter itself, or the one uploaded under this id (P40).
    fn filter(&self, given: Option<&str>) -> Result<Json, Reply> {
        let inline =
            |text: &str| Json::parse(text).ok_or_else(|| Reply::error(400, "M_NOT_JSON", "Invalid filter"));
        match given {
            None => Ok(Json::Object(Vec::new())),
            Some(text) if text.starts_with('{') => inline(text),
            Some(id) => {
                let filter = id.parse::<usize>().ok().and_then(|id| self.filters.get(id));
                inline(filter.ok_or_else(|| Reply::error(400, "M_INVALID_PARAM", "No such filter"))?)
            }
        }
    }

    /// The rooms joined, left and invited to, each written as a member of its section.
    fn sections(&mut self, asked: &Asked) -> [Vec<String>; 3] {
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        let wanted = |id: &String| {
            asked.rooms.as_ref().is_none_or(|rooms| rooms.contains(id)) && !asked.not_rooms.contains(id)
        };
        let ids: Vec<_> = self.rooms.keys().filter(|id| wanted(id)).cloned().collect();
        for id in ids {
            let room = &self.rooms[&id];
            let membership = room.membership(ARCHIVER, &room.state);
            let (section, text) = match membership.as_deref() {
                _ if room.forgotten => continue,
                Some("join") => (0, self.joined(&id, asked)),
                Some("leave" | "ban") => (1, self.left(&id, asked)),
                Some("invite") => (2, self.invited(&id, asked)),
                _ => continue,
            };
            sections[section].extend(text.map(|text| format!("{}:{text}", quote(&id))));
        }
        sections
    }

    fn joined(&mut self, id: &str, asked: &Asked) -> Option<String> {
        let room = &self.rooms[id];
        let news = match asked.since {
            Some(since) if !self.came_back(room, since, self.stream) => {
                self.news(room, since, self.stream, asked)
            }
            Some(_) => News { limited: true, ..self.overview(room, room.graph.len(), self.stream, asked) },
            None => self.overview(room, room.graph.len(), self.stream, asked),
        };
        let moved = asked.since.is_none_or(|since| room.state_moved(since, self.stream));
        let silent = news.timeline.is_empty() && !news.limited && news.state.is_empty() && !moved;
        (!silent || asked.full_state).then(|| self.write_news(id, &news, asked))
    }

    /// A room left is reported once, up to the leave; an initial sync reports it only if asked (P40, P104).
    fn left(&mut self, id: &str, asked: &Asked) -> Option<String> {
        let room = &self.rooms[id];
        let leave = member_event(ARCHIVER, &room.state)?;
        let until = room.events[leave].stream;
        let refused = room.access(ARCHIVER) == Access::Denied && room.membership_is("leave");
        let news = match asked.since {
            None if !asked.include_leave || refused => return None,
            None => self.overview(room, room.position(leave) + 1, self.stream, asked),
            Some(since) if until <= since => return None,
            Some(_) if refused => {
                News { limited: false, prev_batch: until - 1, timeline: vec![leave], state: vec![] }
            }
            Some(since) if self.came_back(room, since, until) => {
                News { limited: true, ..self.overview(room, room.position(leave) + 1, until, asked) }
            }
            Some(since) if asked.state_after.is_some() && self.habits.drops_left_state => {
                News { state: vec![], ..self.news(room, since, until, asked) }
            }
            Some(since) => self.news(room, since, until, asked),
        };
        Some(self.write_news(id, &news, asked))
    }

    /// Stripped state only, without event ids (P105).
    fn invited(&self, id: &str, asked: &Asked) -> Option<String> {
        let room = &self.rooms[id];
        let invite = member_event(ARCHIVER, &room.state)?;
        if asked.since.is_some_and(|since| room.events[invite].stream <= since) {
            return None;
        }
        let shown = ["m.room.create", "m.room.name", "m.room.join_rules", "m.room.canonical_alias"];
        let reported = room
            .state
            .iter()
            .filter(|((kind, _), index)| shown.contains(&kind.as_str()) || **index == invite);
        let stripped: Vec<_> = reported.map(|(_, &index)| strip(room, index)).collect();
        Some(format!(r#"{{"invite_state":{{"events":[{}]}}}}"#, stripped.join(",")))
    }

    /// Whether the account joined the room in a part of the stream, as a server sees it that retells returns; else, whether it
    /// is in the room and was not before.
    fn came_back(&self, room: &Room, since: i64, until: i64) -> bool {
        let was_in = room.membership(ARCHIVER, &room.state_at(since)).as_deref() == Some("join");
        if !self.habits.repeats_returns {
            return !was_in && room.membership_is("join");
        }
        let own = |index: &usize| {
            let event = &room.events[*index].event;
            event.slot().is_some_and(|(kind, key)| kind == "m.room.member" && key == ARCHIVER)
        };
        let moves = room.arrived(since, until).filter(own);
        let mut joins =
            moves.map(|index| room.events[index].event.content_text("membership").as_deref() == Some("join"));
        if was_in {
            room.membership_is("join") && joins.any(|joins| !joins)
        } else {
            joins.any(|joins| joins)
        }
    }

    /// What arrived in a part of the stream, in order of arrival: history fetched from others never does (P47).
    fn news(&self, room: &Room, since: i64, until: i64, asked: &Asked) -> News {
        let hole = room.gaps.iter().copied().filter(|gap| since < *gap && *gap <= until).max();
        let floor = hole.unwrap_or(since).max(0);
        let all: Vec<_> = room.arrived(floor, until).filter(|&index| room.events[index].is_kept()).collect();
        let recent = &all[all.len().saturating_sub(asked.limit)..];
        let timeline: Vec<_> = recent.iter().copied().filter(|&index| self.shows(room, index)).collect();
        let invisible = self.habits.hides_truncation && timeline.len() < recent.len();
        let limited = (hole.is_some() || recent.len() < all.len()) && !invisible;
        let first = recent.first().map(|&index| room.events[index].stream);
        let state_at_start = room.state_at(first.map_or(until, |first| first - 1));
        let known = if asked.full_state { State::new() } else { room.state_at(since) };
        let mut state = changed(asked, &state_at_start, &room.state_at(until), &known, &timeline);
        let branch = timeline.last().and_then(|&index| room.events[index].branch);
        state.extend(branch.filter(|_| asked.state_after.is_none()));
        News { limited, prev_batch: first.map_or(until, |first| first - 1), state, timeline }
    }

    /// What an initial sync says: the newest events in *graph* order, and yet a `prev_batch` made of the first one's
    /// place in the *stream*. What arrived late but sorts early is in neither (P160).
    fn overview(&self, room: &Room, readable: usize, until: i64, asked: &Asked) -> News {
        let is_there = |index: &usize| room.events[*index].is_kept() && room.events[*index].stream <= until;
        let all: Vec<_> = room.graph[..readable].iter().copied().filter(is_there).collect();
        let recent = &all[all.len().saturating_sub(asked.limit)..];
        let timeline: Vec<_> = recent.iter().copied().filter(|&index| self.shows(room, index)).collect();
        let start = recent.first().map_or(0, |&index| room.position(index));
        let first = recent.first().map_or(self.stream, |&index| room.events[index].stream - 1);
        News {
            limited: recent.len() < all.len(),
            prev_batch: first,
            state: changed(asked, &room.state_below(start), &readable_state(room), &State::new(), &timeline),
            timeline,
        }
    }

    fn write_news(&mut self, id: &str, news: &News, asked: &Asked) -> String {
        let mut events = news.timeline.clone();
        if let Some(first) = news.timeline.first().filter(|_| self.habits.stutters) {
            events.insert(0, *first);
        }
        let timeline = object(&[
            ("events", self.serve(id, &events, Shape::SyncTimeline)),
            ("limited", news.limited.to_string()),
            ("prev_batch", quote(&Token::live(news.prev_batch).to_string())),
        ]);
        // Aliases are left out of every state that /sync reports.
        let room = self.room(id);
        let reported = |index: &usize| room.events[*index].event.kind != "m.room.aliases";
        let reported: Vec<_> = news.state.iter().copied().filter(reported).collect();
        let state = object(&[("events", self.serve(id, &reported, Shape::SyncState))]);
        let nothing = || r#"{"events":[]}"#.to_owned();
        object(&[
            ("timeline", timeline),
            (asked.state_after.unwrap_or("state"), state),
            ("account_data", nothing()),
            ("ephemeral", nothing()),
            ("unread_notifications", "{}".to_owned()),
            ("summary", "{}".to_owned()),
        ])
    }
}

/// The state events to send: as `state_after` all that changed; otherwise Synapse's
/// `(end ∪ start) − known − timeline`, which is wrong for a client when a timeline event lost its fork (P86).
fn changed(asked: &Asked, start: &State, end: &State, known: &State, timeline: &[usize]) -> Vec<usize> {
    if asked.state_after.is_some() {
        return end
            .iter()
            .filter(|(slot, index)| known.get(*slot) != Some(*index))
            .map(|(_, &index)| index)
            .collect();
    }
    let mut state = State::new();
    for (slot, index) in start.iter().chain(end) {
        if known.get(slot) != Some(index) && !timeline.contains(index) {
            state.insert(slot.clone(), *index);
        }
    }
    state.into_values().collect()
}

fn strip(room: &Room, index: usize) -> String {
    let event = &room.events[index].event;
    object(&[
        ("type", quote(&event.kind)),
        ("state_key", quote(event.state_key.as_deref().unwrap_or_default())),
        ("sender", quote(&event.sender)),
        ("content", event.content.clone()),
    ])
}
