//! A real Synapse for a test: started on a free port, its data in a temporary directory, gone when dropped.
//!
//! [`Synapse::walk`] reads a room without any of Backscroll's code, for an archive to be held against.

pub(crate) mod server;

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tempfile::TempDir;

use self::server::{
    Process, configure, copy_database, database_files, export_data, fast_directory, federating,
    make_administrator,
};
use super::port::free_port;

const TOKEN: &str = "the-application-service-may-act-as-anyone";

/// A running homeserver.
pub(crate) struct Synapse {
    url: String,
    http: reqwest::Client,
    transaction: AtomicU64,
    /// Dropped first: its end stops the process before its directory goes.
    process: Option<Process>,
    directory: TempDir,
    settings: Value,
    /// Its client API's port, where it must outlast a restart.
    port: Option<u16>,
}

/// A local user of it.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
}

/// One event as [`Synapse::walk`] was served it.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) event_id: String,
    pub(crate) kind: String,
    /// All of it, byte for byte.
    pub(crate) raw: Box<RawValue>,
}

/// An answer that was not 2xx.
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

/// A request body: a tree, or JSON text that is sent byte for byte.
pub(crate) trait Json {
    fn bytes(self) -> Vec<u8>;
}

impl Json for Value {
    fn bytes(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl Json for &str {
    fn bytes(self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Synapse {
    /// Starts one that serves `state_after` under its unstable name, as `msc4222_enabled` does.
    pub(crate) async fn start() -> Self {
        Self::start_with(json!({ "experimental_features": { "msc4222_enabled": true } })).await
    }

    /// Starts one with these settings laid over the usual ones.
    pub(crate) async fn start_with(settings: Value) -> Self {
        let directory =
            tempfile::Builder::new().prefix("synapse-").tempdir_in(fast_directory()).expect("directory");
        // reqwest wants a provider even for http; whoever came first has installed one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(2)).build().expect("client");
        let mut synapse = Self {
            url: String::new(),
            http,
            transaction: AtomicU64::new(0),
            process: None,
            directory,
            settings,
            port: None,
        };
        synapse.restart().await;
        synapse
    }

    /// Starts one that federates with others of its kind over loopback, and keeps its ports over a restart.
    pub(crate) async fn start_federating() -> Self {
        let mut synapse = Self::start_with(federating(free_port())).await;
        synapse.port = Some(port_of(&synapse.url));
        synapse
    }

    /// Its name among homeservers.
    pub(crate) fn name(&self) -> &str {
        self.settings["server_name"].as_str().unwrap_or("localhost")
    }

    /// Starts it, again with the same data if it had run. Its port may change.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        // Another test run may take the port between its choice and its use.
        for _ in 0..3 {
            let port = self.port.unwrap_or_else(free_port);
            self.url = format!("http://127.0.0.1:{port}");
            configure(self.directory.path(), port, &self.settings);
            let process = self.process.insert(Process::spawn(self.directory.path()));
            let deadline = Instant::now() + Duration::from_mins(2);
            while Instant::now() < deadline && !process.ended() {
                if self.http.get(format!("{}/_matrix/client/versions", self.url)).send().await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.stop();
        }
        let log = fs::read_to_string(self.directory.path().join("synapse.log")).unwrap_or_default();
        let end = log.lines().rev().take(20).collect::<Vec<_>>();
        panic!("Synapse did not start: {}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }

    /// Kills it. The data stay until the value is dropped.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Copies its database as it is now, and starts it again; its port stays the same from here on.
    pub(crate) async fn back_up(&mut self) -> TempDir {
        self.stop();
        self.port = Some(port_of(&self.url));
        let backup = tempfile::Builder::new().tempdir_in(fast_directory()).expect("directory");
        copy_database(self.directory.path(), backup.path());
        self.restart().await;
        backup
    }

    /// Brings its database back to what it was, and starts it again.
    pub(crate) async fn restore(&mut self, backup: &TempDir) {
        self.stop();
        for file in database_files(self.directory.path()) {
            fs::remove_file(file).expect("remove");
        }
        copy_database(backup.path(), self.directory.path());
        self.restart().await;
    }

    /// What the admin command `export-data` writes about the user into this directory. The server does not run
    /// meanwhile; its port stays the same from here on.
    pub(crate) async fn export_data(&mut self, user: &User, directory: &Path) {
        self.stop();
        self.port = Some(port_of(&self.url));
        export_data(self.directory.path(), &user.user_id, directory);
        self.restart().await;
    }

    /// Lets the user call [`Synapse::administer`].
    pub(crate) async fn make_administrator(&mut self, user: &User) {
        self.stop();
        make_administrator(self.directory.path(), &user.user_id);
        self.restart().await;
    }

    /// The base URL, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A new user, whose password is its name.
    pub(crate) async fn register(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": name, "auth": { "type": "m.login.dummy" } });
        let answer = self.call(Method::POST, "/register", None, Some(body)).await.expect("register");
        let text = |key: &str| answer[key].as_str().expect("a string").to_owned();
        User { user_id: text("user_id"), access_token: text("access_token") }
    }

    /// A new room of this version; `body` is that of `/createRoom`.
    pub(crate) async fn create_room(&self, user: &User, version: &str, mut body: Value) -> String {
        body["room_version"] = json!(version);
        let answer =
            self.call(Method::POST, "/createRoom", Some(user), Some(body)).await.expect("create_room");
        answer["room_id"].as_str().expect("room_id").to_owned()
    }

    /// Sends an event and returns its id.
    pub(crate) async fn send(&self, user: &User, room: &str, kind: &str, content: impl Json) -> String {
        self.try_send(user, room, kind, content).await.unwrap_or_else(|it| panic!("send {kind:?}: {it:?}"))
    }

    /// Sends an event that the server may refuse.
    pub(crate) async fn try_send(
        &self,
        user: &User,
        room: &str,
        kind: &str,
        content: impl Json,
    ) -> Result<String, Refused> {
        let path = format!("/rooms/{}/send/{}/{}", segment(room), segment(kind), self.next_transaction());
        self.put(&path, user, content).await
    }

    /// Sends a state event and returns its id.
    pub(crate) async fn send_state(
        &self,
        user: &User,
        room: &str,
        kind: &str,
        state_key: &str,
        content: impl Json,
    ) -> String {
        let sent = self.try_send_state(user, room, kind, state_key, content).await;
        sent.unwrap_or_else(|it| panic!("send_state {kind:?} {state_key:?}: {it:?}"))
    }

    /// Sends a state event that the server may refuse.
    pub(crate) async fn try_send_state(
        &self,
        user: &User,
        room: &str,
        kind: &str,
        state_key: &str,
        content: impl Json,
    ) -> Result<String, Refused> {
        let path = format!("/rooms/{}/state/{}/{}", segment(room), segment(kind), segment(state_key));
        self.put(&path, user, content).await
    }

    /// Sends an event dated `origin_server_ts`, through the application service.
    pub(crate) async fn send_at(
        &self,
        user: &User,
        room: &str,
        kind: &str,
        content: impl Json,
        origin_server_ts: i64,
    ) -> String {
        let path = format!(
            "/rooms/{}/send/{}/{}?ts={origin_server_ts}&user_id={}",
            segment(room),
            segment(kind),
            self.next_transaction(),
            segment(&user.user_id)
        );
        let service = User { access_token: TOKEN.to_owned(), ..user.clone() };
        self.put(&path, &service, content).await.expect("send_at")
    }

    /// Redacts an event and returns the redaction's id.
    pub(crate) async fn redact(&self, user: &User, room: &str, event_id: &str, body: impl Json) -> String {
        let path =
            format!("/rooms/{}/redact/{}/{}", segment(room), segment(event_id), self.next_transaction());
        self.put(&path, user, body).await.expect("redact")
    }

    pub(crate) async fn join(&self, user: &User, room: &str) {
        self.membership(user, room, "join", json!({})).await;
    }

    /// Joins a room that `other` knows.
    pub(crate) async fn join_through(&self, user: &User, room: &str, other: &Self) {
        self.try_join_through(user, room, other).await.expect("join");
    }

    /// The same where the server may refuse it.
    pub(crate) async fn try_join_through(
        &self,
        user: &User,
        room: &str,
        other: &Self,
    ) -> Result<Value, Refused> {
        let server = segment(other.name());
        let path = format!("/join/{}?server_name={server}&via={server}", segment(room));
        self.call(Method::POST, &path, Some(user), Some(json!({}))).await
    }

    pub(crate) async fn leave(&self, user: &User, room: &str) {
        self.membership(user, room, "leave", json!({ "reason": "à bientôt" })).await;
    }

    pub(crate) async fn invite(&self, user: &User, room: &str, target: &User) {
        self.membership(user, room, "invite", json!({ "user_id": target.user_id })).await;
    }

    pub(crate) async fn kick(&self, user: &User, room: &str, target: &User) {
        self.membership(user, room, "kick", json!({ "user_id": target.user_id, "reason": "out" })).await;
    }

    pub(crate) async fn ban(&self, user: &User, room: &str, target: &User) {
        self.membership(user, room, "ban", json!({ "user_id": target.user_id, "reason": "a\0b" })).await;
    }

    /// Bans with the wish that all that the user has said be redacted (MSC4293).
    pub(crate) async fn ban_and_redact(&self, user: &User, room: &str, target: &User) {
        let body = json!({ "user_id": target.user_id, "org.matrix.msc4293.redact_events": true });
        self.membership(user, room, "ban", body).await;
    }

    pub(crate) async fn unban(&self, user: &User, room: &str, target: &User) {
        self.membership(user, room, "unban", json!({ "user_id": target.user_id })).await;
    }

    async fn membership(&self, user: &User, room: &str, action: &str, body: Value) {
        let path = format!("/rooms/{}/{action}", segment(room));
        self.call(Method::POST, &path, Some(user), Some(body)).await.expect("a change of membership");
    }

    /// Every event of the room that the user may see, newest first, each once: `/messages` with `dir=b` from
    /// no token to the absent `end`.
    pub(crate) async fn walk(&self, user: &User, room: &str) -> Vec<Served> {
        #[derive(Deserialize)]
        struct Page {
            chunk: Vec<Box<RawValue>>,
            end: Option<String>,
        }
        #[derive(Deserialize)]
        struct Envelope {
            event_id: String,
            #[serde(rename = "type")]
            kind: String,
        }

        let mut events = Vec::new();
        let mut seen = HashSet::new();
        let mut from = String::new();
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=100{from}", segment(room));
            let body = self.bytes(Method::GET, &path, Some(user), None).await.expect("messages");
            let page: Page = serde_json::from_slice(&body).expect("a page");
            for raw in page.chunk {
                let it: Envelope = serde_json::from_str(raw.get()).expect("an event");
                if seen.insert(it.event_id.clone()) {
                    events.push(Served { event_id: it.event_id, kind: it.kind, raw });
                }
            }
            let Some(end) = page.end else { return events };
            from = format!("&from={}", segment(&end));
        }
    }

    /// The room's current state, each event as the server's text.
    pub(crate) async fn state(&self, user: &User, room: &str) -> Vec<Box<RawValue>> {
        let path = format!("/rooms/{}/state", segment(room));
        let body = self.bytes(Method::GET, &path, Some(user), None).await.expect("state");
        serde_json::from_slice(&body).expect("events")
    }

    /// Any request of the admin API; `path` comes after `/_synapse/admin/v1`, its segments encoded.
    pub(crate) async fn administer(
        &self,
        method: Method,
        path: &str,
        user: &User,
        body: Option<Value>,
    ) -> Result<Value, Refused> {
        let path = format!("/_synapse/admin/v1{path}");
        let body = self.request(method, &path, Some(user), body.map(Json::bytes)).await?;
        Ok(serde_json::from_slice(&body).expect("JSON"))
    }

    /// Any request of the client API; `path` comes after `/_matrix/client/v3`, its segments encoded.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        user: Option<&User>,
        body: Option<Value>,
    ) -> Result<Value, Refused> {
        let body = self.bytes(method, path, user, body.map(Json::bytes)).await?;
        Ok(serde_json::from_slice(&body).expect("JSON"))
    }

    async fn put(&self, path: &str, user: &User, content: impl Json) -> Result<String, Refused> {
        let body = self.bytes(Method::PUT, path, Some(user), Some(content.bytes())).await?;
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        Ok(answer["event_id"].as_str().expect("event_id").to_owned())
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        user: Option<&User>,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Refused> {
        self.request(method, &format!("/_matrix/client/v3{path}"), user, body).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        user: Option<&User>,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Refused> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(user) = user {
            request = request.bearer_auth(&user.access_token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let body = answer.bytes().await.expect("a body").to_vec();
        if status.is_success() {
            Ok(body)
        } else {
            Err(Refused { status: status.as_u16(), body: String::from_utf8_lossy(&body).into_owned() })
        }
    }

    fn next_transaction(&self) -> u64 {
        self.transaction.fetch_add(1, Ordering::Relaxed)
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
}

/// A path segment, every byte but the unreserved ones encoded. `.` and `..` cannot be sent: URLs swallow them
/// however they are written.
pub(crate) fn segment(text: &str) -> String {
    assert!(
        text != "." && text != "..",
        "no URL can hold the segment {text}; use initial_state of create_room"
    );
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("a string takes all"),
        }
    }
    encoded
}
