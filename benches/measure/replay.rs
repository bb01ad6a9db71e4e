//! A homeserver that replays [`data`](crate::data): its rooms from memory, as fast as it can, and nothing else. It is a
//! process of its own, so that its processor time can be distinguished from the archiver's.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Write as _,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch};

use crate::data::Room;

/// As many as Synapse gives.
const MOST: u64 = 1000;
/// How many rooms go on when asked to.
pub(crate) const RETURNING: u64 = 4;

/// What is replayed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    /// Rooms in it.
    pub(crate) rooms: u64,
    /// The first room's number.
    pub(crate) first_room: u64,
    /// Events a room.
    pub(crate) events: u64,
    /// Of each message's body, at least.
    pub(crate) body_bytes: usize,
    /// Keep built pages: the next run then costs next to nothing here.
    pub(crate) keep: bool,
    /// Milliseconds that each page takes, as from a server that computes it.
    pub(crate) delay_ms: u64,
    /// Members of each room whose joins are part of its state; they are among its events.
    pub(crate) members: u64,
    /// Of each room's events, so many are in the timeline of the first answer.
    pub(crate) timeline: u64,
}

/// How much of it there is to see, which grows; a sync token is `s` and these numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// Live messages in the first room.
    live: u64,
    /// Rooms that the account has joined.
    rooms: u64,
    /// Events that each of the first [`RETURNING`] rooms has beyond [`Replay::events`].
    more: u64,
}

impl Seen {
    fn of(token: &str) -> Option<Self> {
        let mut numbers = token.strip_prefix('s')?.split('.').map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(Self { live: number()?, rooms: number()?, more: number()? })
    }

    fn token(self) -> String {
        let Self { live, rooms, more } = self;
        format!("s{live}.{rooms}.{more}")
    }
}

struct Server {
    replay: Replay,
    pages: Mutex<HashMap<(u64, u64, u64), Bytes>>,
    now: watch::Sender<Seen>,
    /// When the first request since the last question for it came, in microseconds since 1970.
    first: Mutex<Option<u128>>,
    /// When each live message was handed to the wire, in microseconds since 1970.
    handed: Mutex<Vec<(String, u128)>>,
}

/// Serves until the process ends. Prints its URL.
pub(crate) async fn serve(replay: Replay) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let address = listener.local_addr().expect("an address");
    let _ = writeln!(std::io::stdout(), "http://{address}");
    let (now, _) = watch::channel(Seen { live: 0, rooms: replay.rooms, more: 0 });
    let server = Arc::new(Server {
        replay,
        pages: Mutex::default(),
        now,
        first: Mutex::default(),
        handed: Mutex::default(),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let server = Arc::clone(&server);
        let connection = async move {
            let service = service_fn(|request| answer(Arc::clone(&server), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        };
        #[expect(clippy::disallowed_methods, reason = "the connections end with the process")]
        tokio::spawn(connection);
    }
}

async fn answer(
    server: Arc<Server>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let query: HashMap<String, String> = reqwest::Url::parse(&format!("http://x{}", request.uri()))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default();
    let path = request.uri().path().replace("%21", "!").replace("%3A", ":");
    let parts: Vec<&str> = path.trim_start_matches("/_matrix/client/").split('/').collect();
    if !matches!(parts.as_slice(), ["bench", ..]) {
        lock(&server.first).get_or_insert_with(crate::process::now_us);
    }
    let (status, body) = match parts.as_slice() {
        ["versions"] => ok(r#"{"versions":["v1.11"]}"#),
        [_, "account", "whoami"] => ok(r#"{"user_id":"@archive:bench.test","device_id":"D"}"#),
        [_, "joined_rooms"] => ok(format!(
            r#"{{"joined_rooms":[{}]}}"#,
            server.rooms().map(|room| format!(r#""{}""#, room.room_id())).collect::<Vec<_>>().join(",")
        )),
        [_, "sync"] => ok(server.sync(&query).await),
        [_, "rooms", room_id, "messages"] => match server.room(room_id) {
            Some(room) => {
                if server.replay.delay_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(server.replay.delay_ms)).await;
                }
                (StatusCode::OK, server.messages(&room, &query))
            }
            None => not_found(),
        },
        [_, "rooms", room_id, "state"] => match server.room(room_id) {
            Some(room) => ok(room.state()),
            None => not_found(),
        },
        [_, "rooms", _, "joined_members"] => ok(r#"{"joined":{}}"#),
        [_, "user", _, "filter"] => ok(r#"{"filter_id":"1"}"#),
        [_, "keys", "upload"] => ok(r#"{"one_time_key_counts":{"signed_curve25519":50}}"#),
        [_, "keys", _] => ok("{}"),
        ["bench", what @ ..] => server.conduct(what),
        _ => not_found(),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(body)).expect("a response"))
}

/// A `/sync` answer.
fn answer_of(next: Seen, rooms: impl Iterator<Item = String>) -> String {
    let rooms = rooms.collect::<Vec<_>>().join(",");
    format!(r#"{{"next_batch":"{}","rooms":{{"join":{{{rooms}}}}}}}"#, next.token())
}

/// A room in it, with the events from `below` on and a hole before them.
pub(crate) fn entry(room: &Room, below: u64) -> String {
    let mut events = String::new();
    for index in below..room.events {
        if index > below {
            events.push(',');
        }
        room.write_event(index, &mut events);
    }
    format!(
        r#""{}":{{"timeline":{{"events":[{events}],"limited":true,"prev_batch":"t{below}"}},"state":{{"events":{}}}}}"#,
        room.room_id(),
        room.state()
    )
}

fn ok(body: impl Into<Bytes>) -> (StatusCode, Bytes) {
    (StatusCode::OK, body.into())
}

fn not_found() -> (StatusCode, Bytes) {
    (StatusCode::NOT_FOUND, Bytes::from_static(br#"{"errcode":"M_NOT_FOUND","error":"not here"}"#))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Not Matrix: what a benchmark asks for.
    fn conduct(&self, what: &[&str]) -> (StatusCode, Bytes) {
        let number = |text: &&str| text.parse::<u64>().unwrap_or_default();
        match what {
            // A live message is sent.
            ["live"] => self.now.send_modify(|now| now.live += 1),
            // The account joins more rooms, so that it is in so many.
            ["rooms", rooms] => self.now.send_modify(|now| now.rooms = number(rooms)),
            // The first rooms go on, unseen.
            ["more", more] => self.now.send_modify(|now| now.more += number(more)),
            ["first"] => return ok(lock(&self.first).take().unwrap_or_default().to_string()),
            // What was handed out when.
            ["handed"] => {
                let handed = lock(&self.handed);
                let lines = handed.iter().map(|(id, at)| format!(r#"["{id}",{at}]"#));
                return ok(format!("[{}]", lines.collect::<Vec<_>>().join(",")));
            }
            _ => return not_found(),
        }
        ok("{}")
    }

    fn rooms(&self) -> impl Iterator<Item = Room> {
        let Seen { rooms, more, .. } = *self.now.borrow();
        let Replay { first_room, events, body_bytes, members, .. } = self.replay;
        (0..rooms).map(move |index| {
            let events = if index < RETURNING { events + more } else { events };
            Room { number: first_room + index, events, body_bytes, members }
        })
    }

    fn room(&self, room_id: &str) -> Option<Room> {
        let index = Room::number_of(room_id)?.checked_sub(self.replay.first_room)?;
        self.rooms().nth(usize::try_from(index).ok()?)
    }

    /// How many events a room had at a sync token.
    fn events_at(&self, room: &Room, seen: Seen) -> u64 {
        match room.number - self.replay.first_room {
            index if index >= seen.rooms => 0,
            index if index < RETURNING => self.replay.events + seen.more,
            _ => self.replay.events,
        }
    }

    /// A page of history, newest first. Tokens: `t` and the number of events below. The last page is empty, as from older
    /// homeservers: matrix-commander would begin anew after one without an end.
    fn messages(&self, room: &Room, query: &HashMap<String, String>) -> Bytes {
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10).clamp(1, MOST);
        let from = query.get("from").map_or("", String::as_str);
        let below = from.strip_prefix('t').and_then(|below| below.parse().ok()).unwrap_or(room.events);
        if query.get("dir").is_some_and(|direction| direction == "f") {
            return Bytes::from(format!(r#"{{"start":"{from}","chunk":[]}}"#));
        }
        let to =
            query.get("to").and_then(|to| Seen::of(to)).map_or(0, |to| self.events_at(room, to)).min(below);
        let lowest = below.saturating_sub(limit).max(to);
        let key = (room.number, below, lowest);
        let mut pages = lock(&self.pages);
        if let Some(page) = pages.get(&key) {
            return page.clone();
        }
        let mut page = format!(r#"{{"start":"t{below}","chunk":["#);
        for index in (lowest..below).rev() {
            if index + 1 < below {
                page.push(',');
            }
            room.write_event(index, &mut page);
        }
        page.push(']');
        if below > to {
            let _ = write!(page, r#","end":"t{lowest}""#);
        }
        page.push('}');
        let page = Bytes::from(page);
        if self.replay.keep {
            pages.insert(key, page.clone());
        }
        page
    }

    /// First every room's state; then whatever is new: rooms, rooms that went on, or a live message, one an answer.
    async fn sync(&self, query: &HashMap<String, String>) -> String {
        let since = query.get("since").and_then(|since| Seen::of(since));
        let full = query.get("full_state").is_some_and(|full| full == "true");
        let now = *self.now.borrow();
        let Some(seen) = since.filter(|_| !full) else {
            let rooms = self.rooms().map(|room| entry(&room, room.events - self.replay.timeline));
            return answer_of(now, rooms);
        };
        if (seen.rooms, seen.more) != (now.rooms, now.more) {
            let news = self.rooms().enumerate().filter_map(|(index, room)| {
                let index = u64::try_from(index).unwrap_or_default();
                if index >= seen.rooms {
                    return Some(entry(&room, room.events));
                }
                (index < RETURNING && seen.more != now.more).then(|| entry(&room, room.events - 1))
            });
            return answer_of(Seen { live: seen.live, ..now }, news);
        }
        let wait = query.get("timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0);
        let mut news = self.now.subscribe();
        let news =
            tokio::time::timeout(Duration::from_millis(wait), news.wait_for(|now| now.live > seen.live))
                .await;
        if !matches!(news, Ok(Ok(_))) {
            return answer_of(seen, std::iter::empty());
        }
        let number = seen.live + 1;
        let (next_batch, prev_batch) = (Seen { live: number, ..seen }.token(), seen.token());
        let room_id = self.rooms().next().map(|room| room.room_id()).unwrap_or_default();
        let event_id = format!("$live{number}");
        let body = format!(
            r#"{{"next_batch":"{next_batch}","rooms":{{"join":{{"{room_id}":{{"timeline":{{"limited":false,"prev_batch":"{prev_batch}","events":[{{"type":"m.room.message","sender":"@user0000:server00.test","content":{{"msgtype":"m.text","body":"live {number}"}},"origin_server_ts":1760000000000,"event_id":"{event_id}","unsigned":{{"age":5}}}}]}},"state":{{"events":[]}}}}}}}}}}"#
        );
        lock(&self.handed).push((event_id, crate::process::now_us()));
        body
    }
}
