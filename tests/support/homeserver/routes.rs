//! From a request to its answer: faults first, then the token, then the endpoint.

use super::event::Event;
use super::fault::{Effect, Wire, Wired};
use super::http::{Reply, Request};
use super::json::{Json, object, quote};
use super::world::World;
use super::{ARCHIVER, PASSWORD, Shared};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

impl Shared {
    /// Answers a request, and keeps the books on it.
    pub(super) async fn answer(&self, request: Request) -> Wired {
        let effect = {
            let mut world = self.lock();
            world.journal.push(request.clone());
            world.faults.iter_mut().find_map(|fault| fault.strike(&request))
        };
        let _counted = Counted::new(self, &request);
        self.requested.notify_waiters();
        match effect {
            None => Wired { reply: self.reply(&request).await, wire: Wire::Whole },
            Some(Effect::Instead(reply)) => Wired { reply, wire: Wire::Whole },
            Some(Effect::Stall) => std::future::pending().await,
            Some(Effect::Delay(delay)) => {
                sleep(delay).await;
                Wired { reply: self.reply(&request).await, wire: Wire::Whole }
            }
            Some(Effect::Hold(delay)) => {
                let reply = self.reply(&request).await;
                sleep(delay).await;
                Wired { reply, wire: Wire::Whole }
            }
            Some(Effect::Change(change)) => {
                let mut reply = self.reply(&request).await;
                change(&mut reply);
                Wired { reply, wire: Wire::Whole }
            }
            Some(Effect::Spoil(wire @ (Wire::Close | Wire::Reset))) => Wired { reply: Reply::ok("{}"), wire },
            Some(Effect::Spoil(wire)) => Wired { reply: self.reply(&request).await, wire },
        }
    }

    /// The true answer; /sync waits for news, but not beyond its `timeout`.
    async fn reply(&self, request: &Request) -> Reply {
        let patience = request.query("timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0);
        let deadline = Instant::now() + Duration::from_millis(patience);
        let mut last = patience == 0;
        loop {
            let happened = self.happened.notified();
            tokio::pin!(happened);
            happened.as_mut().enable();
            let answer = self.lock().reply(request, last);
            if request.method == "POST" {
                self.happened.notify_waiters();
            }
            if let Some(reply) = answer {
                return reply;
            }
            last = timeout_at(deadline, happened).await.is_err();
        }
    }
}

/// Counts a /messages request as in flight until its answer is ready to be sent.
struct Counted<'a> {
    shared: &'a Shared,
    room: Option<String>,
}

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared, request: &Request) -> Self {
        let room = request.room().filter(|_| request.is_messages()).map(str::to_owned);
        if let Some(room) = &room {
            let mut world = shared.lock();
            let (now, most) = world.in_flight.entry(room.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        Self { shared, room }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Some(room) = &self.room else { return };
        if let Some((now, _)) = self.shared.lock().in_flight.get_mut(room) {
            *now -= 1;
        }
    }
}

impl World {
    /// The true answer to a request; nothing if it is a /sync without news and not the `last` moment to answer.
    fn reply(&mut self, request: &Request, last: bool) -> Option<Reply> {
        self.tick += 1;
        let reply = self.route(request, last)?;
        let accepts = request.header("accept-encoding").is_some_and(|encodings| encodings.contains("gzip"));
        Some(if self.habits.gzip && accepts { reply.compressed() } else { reply })
    }

    fn route(&mut self, request: &Request, last: bool) -> Option<Reply> {
        let segments: Vec<_> = request.segments.iter().map(String::as_str).collect();
        let ["_matrix", "client", path @ ..] = segments.as_slice() else {
            return Some(unrecognized());
        };
        Some(match (request.method.as_str(), path) {
            ("GET", ["versions"]) => Reply::ok(VERSIONS),
            ("GET", ["v3", "login"]) => Reply::ok(r#"{"flows":[{"type":"m.login.password"}]}"#),
            ("POST", ["v3", "login"]) => self.log_in(&request.body),
            (_, ["v3", ..]) if self.refusal(request).is_some() => self.refusal(request)?,
            ("GET", ["v3", "sync"]) => return self.sync(request, last),
            ("GET", ["v3", "rooms", room, "messages"]) => self.messages(room, request),
            ("GET", ["v3", "rooms", room, "context", event]) => self.context(room, event, request),
            ("GET", ["v3", "rooms", room, "event", event]) => self.event(room, event),
            ("GET", ["v3", "rooms", room, "state"]) => self.full_state(room),
            ("GET", ["v3", "rooms", room, "state", kind]) => self.state_event(room, kind, "", request),
            ("GET", ["v3", "rooms", room, "state", kind, key]) => self.state_event(room, kind, key, request),
            ("GET", ["v3", "account", "whoami"]) => Reply::ok(whoami()),
            ("GET", ["v3", "joined_rooms"]) => self.joined_rooms(),
            ("POST", ["v3", "join", room]) => self.join_by_request(room),
            ("GET", ["v3", "directory", "room", alias]) => self.resolve(alias),
            ("GET", ["v3", "user", _, "account_data", kind]) => self.account_data(kind),
            ("POST", ["v3", "user", _, "filter"]) => self.upload_filter(&request.body),
            _ => unrecognized(),
        })
    }

    /// Why the request may not be answered, if it may not (P126, P130).
    fn refusal(&self, request: &Request) -> Option<Reply> {
        let token = request.header("authorization").and_then(|header| header.strip_prefix("Bearer "));
        match token {
            None => Some(Reply::error(401, "M_MISSING_TOKEN", "Missing access token")),
            Some(token) if self.tokens[self.revoked..].iter().any(|valid| valid == token) => None,
            Some(_) => {
                let body = object(&[
                    ("errcode", quote("M_UNKNOWN_TOKEN")),
                    ("error", quote("Invalid access token passed.")),
                    ("soft_logout", self.soft_logout.to_string()),
                ]);
                Some(Reply { status: 401, ..Reply::ok(body) })
            }
        }
    }

    fn log_in(&mut self, body: &str) -> Reply {
        let body = Json::parse(body).unwrap_or(Json::Object(Vec::new()));
        let text = |path: &[&str]| body.at(path).and_then(Json::text).unwrap_or_default();
        let user = text(&["identifier", "user"]);
        let is_archiver = user == ARCHIVER || ARCHIVER[1..].split(':').next() == Some(user.as_str());
        if text(&["type"]) != "m.login.password" || !is_archiver || text(&["password"]) != PASSWORD {
            return Reply::error(403, "M_FORBIDDEN", "Invalid username or password");
        }
        let token = self.new_token();
        let device =
            Some(text(&["device_id"])).filter(|id| !id.is_empty()).unwrap_or_else(|| "MODEL".to_owned());
        let fields =
            [("user_id", quote(ARCHIVER)), ("access_token", quote(&token)), ("device_id", quote(&device))];
        Reply::ok(object(&fields))
    }

    pub(super) fn new_token(&mut self) -> String {
        let token = format!("model-token-{}", self.mint());
        self.tokens.push(token.clone());
        token
    }

    fn joined_rooms(&self) -> Reply {
        let joined = self.rooms.values().filter(|room| room.membership_is("join"));
        let ids: Vec<_> = joined.map(|room| quote(&room.id)).collect();
        Reply::ok(format!(r#"{{"joined_rooms":[{}]}}"#, ids.join(",")))
    }

    /// Every room may be joined.
    fn join_by_request(&mut self, room: &str) -> Reply {
        if !self.rooms.contains_key(room) {
            return Reply::not_found("No such room");
        }
        self.append(room, Event::member(ARCHIVER, "join"));
        Reply::ok(object(&[("room_id", quote(room))]))
    }

    /// An alias is known here once a room calls it its canonical one.
    fn resolve(&self, alias: &str) -> Reply {
        let slot = ("m.room.canonical_alias".to_owned(), String::new());
        let named = |room: &&super::room::Room| {
            let event = room.state.get(&slot).map(|&index| &room.events[index].event);
            event.and_then(|event| event.content_text("alias")).as_deref() == Some(alias)
        };
        match self.rooms.values().find(named) {
            Some(room) => Reply::ok(object(&[
                ("room_id", quote(&room.id)),
                ("servers", r#"["model.test"]"#.to_owned()),
            ])),
            None => Reply::not_found("Room alias not found"),
        }
    }

    /// Only the list of ignored users, by which events vanish (P103).
    fn account_data(&self, kind: &str) -> Reply {
        if kind != "m.ignored_user_list" || self.ignored.is_empty() {
            return Reply::not_found("Account data not found");
        }
        let users: Vec<_> = self.ignored.iter().map(|user| (user.as_str(), "{}".to_owned())).collect();
        Reply::ok(object(&[("ignored_users", object(&users))]))
    }

    fn upload_filter(&mut self, body: &str) -> Reply {
        self.filters.push(body.to_owned());
        Reply::ok(object(&[("filter_id", quote(&(self.filters.len() - 1).to_string()))]))
    }
}

const VERSIONS: &str = r#"{
    "versions":["r0.6.1","v1.1","v1.2","v1.3","v1.4","v1.5","v1.6","v1.7",
        "v1.8","v1.9","v1.10","v1.11","v1.12"],
    "unstable_features":{"org.matrix.msc4445.initial_sync_timeline_topological_ordering":true}
}"#;

fn whoami() -> String {
    object(&[("user_id", quote(ARCHIVER)), ("device_id", quote("MODEL")), ("is_guest", "false".to_owned())])
}

fn unrecognized() -> Reply {
    Reply::error(404, "M_UNRECOGNIZED", "Unrecognized request")
}
