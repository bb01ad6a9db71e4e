//! The requests to the homeserver. Each has a deadline and a limit for the size of the response.

use std::{collections::HashSet, sync::RwLock, time::Duration};

use reqwest::{Method, StatusCode, Url};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    Error, Event, SyncStream, object,
    page::{Events, Page, parse_state},
    parse_event,
    response::{Pieces, SMALL_CAP, send},
    sync_response::SyncBatch,
    token,
};
use crate::config::is_loopback;

const CONNECT: Duration = Duration::from_secs(10);
/// For a request that the server answers from memory.
const SHORT: Duration = Duration::from_secs(60);
/// For `/messages`: the server may fetch from other servers for minutes (P10).
pub(super) const LONG: Duration = Duration::from_secs(180);
/// For a `/sync` with the state of all rooms, which takes a large server minutes (P32, P43).
const FULL_SYNC: Duration = Duration::from_secs(600);
/// How much longer than its requested timeout a `/sync` may take (P42).
const SYNC_GRACE: Duration = Duration::from_secs(30);
pub(super) const STATE_CAP: usize = 512 << 20;

/// A homeserver and an account on it. Each method makes one request and never retries.
#[derive(Debug)]
pub struct Client {
    pub(super) http: reqwest::Client,
    base: Url,
    token: RwLock<Option<SecretString>>,
}

/// The parameters of `/messages` (specification, `GET /rooms/{roomId}/messages`).
#[derive(Clone, Copy, Debug)]
pub struct MessagesRequest<'a> {
    /// The room.
    pub room_id: &'a RoomId,
    /// The token to begin at. `None`: the newest event.
    pub from: Option<&'a str>,
    /// The token at which the server should stop. Not all servers do (P48).
    pub to: Option<&'a str>,
    /// The largest number of events.
    pub limit: u32,
    /// The largest response to read, in bytes.
    pub most_bytes: usize,
    /// A filter as JSON. Walks use none, because a page that is empty after filtering would look like the end (P12).
    pub filter: Option<&'a str>,
}

/// The parameters of `/sync` that vary.
#[derive(Clone, Copy, Debug)]
pub struct SyncRequest<'a> {
    /// `next_batch` of the last response. `None`: an initial sync.
    pub since: Option<&'a str>,
    /// Whether the server should respond at once with the whole state of every room.
    pub full_state: bool,
    /// How long the server may hold the request open while nothing is new.
    pub timeout: Duration,
}

/// The account and the device of an access token.
#[derive(Clone, Debug, Deserialize)]
pub struct Whoami {
    /// The account.
    pub(crate) user_id: OwnedUserId,
    /// The device, if the token belongs to one.
    #[serde(default, deserialize_with = "text_or_none")]
    pub(crate) device_id: Option<String>,
}

/// A string. `None` for any other value.
fn text_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Box::<RawValue>::deserialize(deserializer)?;
    Ok(object::string(value.get()))
}

impl Client {
    /// A client for the homeserver at `url`, without a token yet.
    ///
    /// # Errors
    /// [`Error::Url`] if `url` cannot be that of a homeserver; [`Error::Network`] if TLS cannot be set up.
    pub fn new(url: &str) -> Result<Self, Error> {
        let base = Url::parse(url).map_err(|_| Error::Url("it cannot be read"))?;
        if base.cannot_be_a_base() {
            return Err(Error::Url("it has no host"));
        }
        // The TLS provider of the process. For a second client it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy from the environment can read plain http, including the access token. With https it only sees a
        // tunnel. Requests to this machine never use a proxy.
        let builder = reqwest::Client::builder();
        let may_use_proxy = base.scheme() == "https" && !base.host_str().is_some_and(is_loopback);
        let builder = if may_use_proxy { builder } else { builder.no_proxy() };
        let http = builder
            .user_agent(concat!("backscroll/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()
            .map_err(Error::Network)?;
        Ok(Self { http, base, token: RwLock::new(None) })
    }

    /// Sets the access token for all later requests.
    pub fn set_token(&self, token: SecretString) {
        *self.token.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token);
    }

    /// The versions of the specification that the server supports.
    pub(crate) async fn versions(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Versions {
            versions: Vec<Box<RawValue>>,
        }
        let answer: Versions = self.get_json("/versions", &["versions"], &[]).await?;
        Ok(answer.versions.iter().filter_map(|version| object::string(version.get())).collect())
    }

    /// The account and the device of the access token.
    pub(crate) async fn whoami(&self) -> Result<Whoami, Error> {
        self.get_json("/account/whoami", &["v3", "account", "whoami"], &[]).await
    }

    /// The rooms that the account has joined. Invalid room ids are left out: the archive has no such rooms.
    pub(crate) async fn joined_rooms(&self) -> Result<Vec<OwnedRoomId>, Error> {
        #[derive(Deserialize)]
        struct JoinedRooms {
            joined_rooms: Vec<Box<RawValue>>,
        }
        let answer: JoinedRooms = self.get_json("/joined_rooms", &["v3", "joined_rooms"], &[]).await?;
        let ids = answer.joined_rooms.iter().filter_map(|id| object::string(id.get()));
        Ok(ids.filter_map(|id| id.try_into().ok()).collect())
    }

    /// The users whom the account ignores. The server never returns their messages to it (P103).
    pub(crate) async fn ignored_users(&self, user_id: &UserId) -> Result<HashSet<String>, Error> {
        #[derive(Deserialize, Default)]
        struct Ignored {
            #[serde(default)]
            ignored_users: serde_json::Map<String, serde_json::Value>,
        }
        let path = ["v3", "user", user_id.as_str(), "account_data", "m.ignored_user_list"];
        let answer: Result<Ignored, _> = self.get_json("/account_data", &path, &[]).await;
        match answer {
            Ok(ignored) => Ok(ignored.ignored_users.into_iter().map(|(user_id, _)| user_id).collect()),
            Err(error) if error.is_not_found() => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// One page of a room's history, backwards: forwards, the server fetches nothing from others (P46).
    pub async fn messages(&self, request: &MessagesRequest<'_>) -> Result<Page, Error> {
        let body = self.messages_body(request).await?;
        let room_id = request.room_id.as_str().to_owned();
        // Parsed on another thread: it takes milliseconds, in which this task can store the page before.
        let page = tokio::task::spawn_blocking(move || Page::parse(&room_id, &body));
        page.await.map_err(|_| Error::Malformed("/messages: reading it failed".to_owned()))?
    }

    /// The body of a response to `/messages`.
    pub(super) async fn messages_body(&self, request: &MessagesRequest<'_>) -> Result<Vec<u8>, Error> {
        for token in [request.from, request.to].into_iter().flatten() {
            sendable(token)?;
        }
        let limit = request.limit.to_string();
        let mut query = vec![("dir", "b"), ("limit", limit.as_str())];
        query.extend(request.from.map(|token| ("from", token)));
        query.extend(request.to.map(|token| ("to", token)));
        query.extend(request.filter.map(|filter| ("filter", filter)));
        let room_id = request.room_id.as_str();
        let path = ["v3", "rooms", room_id, "messages"];
        self.get("/messages", &path, &query, LONG, request.most_bytes).await
    }

    /// Requests what is new since a token. The response is read as it arrives.
    pub async fn sync(&self, request: &SyncRequest<'_>) -> Result<SyncStream, Error> {
        request.since.map_or(Ok(()), sendable)?;
        // An initial timeline is not needed, because the history walk reads it. Events of a timeline must not be
        // filtered (P40).
        let filter = serde_json::json!({
            "presence": {"types": []},
            "account_data": {"types": []},
            "room": {
                "include_leave": true,
                "account_data": {"types": []},
                "ephemeral": {"types": []},
                "state": {"lazy_load_members": false},
                "timeline": {"limit": if request.since.is_none() { 1 } else { 100 }},
            },
        })
        .to_string();
        let timeout = request.timeout.as_millis().to_string();
        let mut query = vec![
            ("filter", filter.as_str()),
            ("set_presence", "offline"),
            ("timeout", timeout.as_str()),
            ("full_state", if request.full_state { "true" } else { "false" }),
            ("use_state_after", "true"),
            ("org.matrix.msc4222.use_state_after", "true"),
        ];
        query.extend(request.since.map(|since| ("since", since)));
        let deadline = if request.full_state { FULL_SYNC } else { request.timeout + SYNC_GRACE };
        let asked = self.http.request(Method::GET, self.url(&["v3", "sync"], &query)?);
        let pieces = Pieces::ask("/sync", self.authorized(asked), deadline).await.map_err(|error| {
            // This 404 is not a refusal, because every homeserver has this endpoint. Synapse returns it if an event is
            // purged during the request.
            if error.is_not_found() { Error::Server { status: StatusCode::NOT_FOUND } } else { error }
        })?;
        Ok(SyncStream::new(pieces, request.since.is_none()))
    }

    /// Checks that the server answers a `/sync` without `since` and without any room.
    pub(crate) async fn sync_is_answered(&self) -> Result<(), Error> {
        let filter = serde_json::json!({
            "presence": {"types": []},
            "account_data": {"types": []},
            "room": {"rooms": [], "account_data": {"types": []}, "ephemeral": {"types": []}},
        })
        .to_string();
        let query = [("filter", filter.as_str()), ("set_presence", "offline"), ("timeout", "0")];
        let body = self.get("/sync", &["v3", "sync"], &query, FULL_SYNC, STATE_CAP).await?;
        let next_batch = SyncBatch::read(&body)?.next_batch;
        next_batch.map(drop).ok_or_else(|| Error::Malformed("/sync: no next_batch".to_owned()))
    }

    /// The room's current state. If the account has left the room: the state when it left (P90).
    pub async fn state(&self, room_id: &RoomId) -> Result<Events, Error> {
        let path = ["v3", "rooms", room_id.as_str(), "state"];
        let body = self.get("/state", &path, &[], LONG, STATE_CAP).await?;
        parse_state(room_id.as_str(), &body)
    }

    /// The content of one state key. A server that supports `format=event` (specification v1.16) returns the event.
    pub(crate) async fn state_key(
        &self,
        room_id: &RoomId,
        event_type: &str,
        key: &str,
    ) -> Result<Box<RawValue>, Error> {
        let path = ["v3", "rooms", room_id.as_str(), "state", event_type, key];
        self.get_json("/state/{type}/{key}", &path, &[("format", "event")]).await
    }

    /// One event as it was sent, not with the content of an edit. `None`: the response is not a valid event.
    pub(crate) async fn event(&self, room_id: &RoomId, event_id: &str) -> Result<Option<Event>, Error> {
        let path = ["v3", "rooms", room_id.as_str(), "event", event_id];
        let raw: Box<RawValue> = self.get_json("/event", &path, &[]).await?;
        Ok(parse_event(room_id.as_str(), &raw).ok())
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &[&str],
        body: &serde_json::Value,
    ) -> Result<T, Error> {
        let request = self
            .http
            .request(Method::POST, self.url(path, &[])?)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let body = send(what, request, SHORT, SMALL_CAP).await?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed(what, &error))
    }

    pub(super) async fn post_as_user<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &[&str],
        body: &serde_json::Value,
    ) -> Result<T, Error> {
        let request = self
            .http
            .request(Method::POST, self.url(path, &[])?)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let body = send(what, self.authorized(request), LONG, SMALL_CAP).await?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed(what, &error))
    }

    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        let body = self.get(what, path, query, SHORT, SMALL_CAP).await?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed(what, &error))
    }

    pub(super) async fn get(
        &self,
        what: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        deadline: Duration,
        cap: usize,
    ) -> Result<Vec<u8>, Error> {
        let request = self.http.request(Method::GET, self.url(path, query)?);
        send(what, self.authorized(request), deadline, cap).await
    }

    pub(super) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let token = self.token.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// A request for servers' keys, without the access token: everybody may ask. The server may fetch them from others.
    pub(super) async fn keys_json<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: Option<&serde_json::Value>,
    ) -> Result<T, Error> {
        const WHAT: &str = "/_matrix/key";
        let url = self.url_under("key", path, &[])?;
        let request = match body {
            None => self.http.request(Method::GET, url),
            Some(body) => self
                .http
                .request(Method::POST, url)
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.to_string()),
        };
        let body = send(WHAT, request, LONG, SMALL_CAP).await?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed(WHAT, &error))
    }

    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        self.url_under("client", path, query)
    }

    /// Percent-encodes every segment: ids, types and keys may contain `/`, `#`, `?` and `%` (P53).
    fn url_under(&self, api: &str, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Url("it has no host"))?
            .pop_if_empty()
            .extend(["_matrix", api])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

/// Checks that a token fits into a URL: an earlier version stored tokens of any length.
fn sendable(token: &str) -> Result<(), Error> {
    if token::is_usable(token) { Ok(()) } else { Err(Error::UnusableToken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_and_bases_with_a_path_kept() {
        for base in ["https://hs.test/prefix", "https://hs.test/prefix/"] {
            let client = Client::new(base).expect("a client");
            let url = client.url(&["v3", "rooms", "!a/b#c?d%e:hs"], &[("from", "t1+2&3")]).expect("a URL");
            assert_eq!(
                url.as_str(),
                "https://hs.test/prefix/_matrix/client/v3/rooms/!a%2Fb%23c%3Fd%25e:hs?from=t1%2B2%263"
            );
        }
    }
}
