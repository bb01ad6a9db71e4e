//! Requests for what proves events: events in the federation format, and the keys of the servers that signed
//! them.

use reqwest::StatusCode;
use ruma::RoomId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Client, Error, Event, MessagesRequest, Token,
    client::{LONG, STATE_CAP},
    page::FederationPage,
    parse_event,
    proof::{BadKeys, KeyResponse},
};

/// Asks Synapse for events as they were signed. No event is left out by it, so the end of the room is not in
/// doubt (P12).
const FEDERATION_FORMAT: &str = r#"{"event_format":"federation"}"#;

/// A notary's answer (specification, `GET /_matrix/key/v2/query/{serverName}`).
#[derive(Deserialize)]
struct Notary {
    server_keys: Vec<Box<RawValue>>,
}

impl Client {
    /// One page of a room's history like [`Client::messages`], with the events in the federation format where
    /// the server gives it. `filter` of the request is not used.
    pub async fn federation_messages(&self, request: &MessagesRequest<'_>) -> Result<FederationPage, Error> {
        let request = MessagesRequest { filter: Some(FEDERATION_FORMAT), ..*request };
        let body = self.messages_body(&request).await?;
        let room_id = request.room_id.as_str().to_owned();
        let page = tokio::task::spawn_blocking(move || FederationPage::parse(&room_id, &body));
        page.await.map_err(|_| Error::Malformed("/messages: reading it failed".to_owned()))?
    }

    /// The pagination token behind an event: the page from there begins with what follows it at once, or with
    /// itself. `None`: the account may not see the event, or the homeserver does not have it.
    pub(crate) async fn token_behind(
        &self,
        room_id: &RoomId,
        event_id: &str,
    ) -> Result<Option<Token>, Error> {
        #[derive(Deserialize)]
        struct Surroundings {
            #[serde(default)]
            end: Option<String>,
        }
        let path = ["v3", "rooms", room_id.as_str(), "context", event_id];
        let query = [("limit", "1"), ("filter", r#"{"lazy_load_members":true}"#)];
        let body = match self.get("/context", &path, &query, LONG, STATE_CAP).await {
            Err(error) if error.is_not_found() || error.is_forbidden() => return Ok(None),
            body => body?,
        };
        let found: Surroundings =
            serde_json::from_slice(&body).map_err(|error| Error::malformed("/context", &error))?;
        Token::served("/context: `end`", found.end.unwrap_or_default())
    }

    /// An event and those around it in the room, a hundred at most. Events that are not valid are left out.
    pub(crate) async fn surroundings(&self, room_id: &RoomId, event_id: &str) -> Result<Vec<Event>, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Surroundings {
            events_before: Vec<Box<RawValue>>,
            event: Option<Box<RawValue>>,
            events_after: Vec<Box<RawValue>>,
        }
        let path = ["v3", "rooms", room_id.as_str(), "context", event_id];
        let query = [("limit", "100"), ("filter", r#"{"lazy_load_members":true}"#)];
        let body = self.get("/context", &path, &query, LONG, STATE_CAP).await?;
        let found: Surroundings =
            serde_json::from_slice(&body).map_err(|error| Error::malformed("/context", &error))?;
        let all = found.events_before.iter().chain(&found.event).chain(&found.events_after);
        Ok(all.filter_map(|raw| parse_event(room_id.as_str(), raw).ok()).collect())
    }

    /// The last event that was sent at this time or before, in milliseconds since 1970 (specification,
    /// `GET /rooms/{roomId}/timestamp_to_event`).
    pub(crate) async fn event_at(&self, room_id: &RoomId, time: i64) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Found {
            event_id: String,
        }
        let path = ["v1", "rooms", room_id.as_str(), "timestamp_to_event"];
        let time = time.to_string();
        let found: Found =
            self.get_json("/timestamp_to_event", &path, &[("ts", &time), ("dir", "b")]).await?;
        Ok(found.event_id)
    }

    /// The version of a room, from its create event.
    pub(crate) async fn room_version(&self, room_id: &RoomId) -> Result<String, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Create {
            room_version: Option<String>,
            content: Option<Box<Create>>,
        }
        let answer = self.state_key(room_id, "m.room.create", "").await?;
        let create: Create =
            serde_json::from_str(answer.get()).map_err(|error| Error::malformed("/state", &error))?;
        let version = create.content.map_or(create.room_version, |content| content.room_version);
        // Room version 1 had no name yet.
        Ok(version.unwrap_or_else(|| "1".to_owned()))
    }

    /// What the homeserver knows of the keys of a server: lists that the server itself signed. Lists that it
    /// did not sign are left out, because the homeserver's word alone proves nothing. If they lack one of
    /// `key_ids`, or one that is valid at `valid_at` (in milliseconds since 1970), the homeserver is asked to
    /// fetch it.
    pub async fn server_keys(
        &self,
        server_name: &str,
        key_ids: &[&str],
        valid_at: i64,
    ) -> Result<Vec<KeyResponse>, Error> {
        // Of its own keys the homeserver is no notary: it may try to fetch them from itself, and wait.
        if let Some(own) = self.own_keys().await?.filter(|list| list.server_name == server_name) {
            return Ok(vec![own]);
        }
        let mut known = self.known_keys(&["v2", "query", server_name], None, server_name).await?;
        let lacking = |known: &[KeyResponse]| {
            let lacks = |id: &&&str| !known.iter().any(|list| list.has_valid(id, valid_at));
            key_ids.iter().filter(lacks).map(|id| (*id).to_owned()).collect::<Vec<_>>()
        };
        // Not every notary fetches keys unless it is asked for them by their ids.
        let missing = lacking(&known);
        if !missing.is_empty() {
            let wanted = missing.into_iter().map(|id| {
                let valid = serde_json::json!({ "minimum_valid_until_ts": valid_at });
                (id, valid)
            });
            let wanted: serde_json::Map<_, _> = wanted.collect();
            let body = serde_json::json!({ "server_keys": { server_name: wanted } });
            known.extend(self.known_keys(&["v2", "query"], Some(&body), server_name).await?);
        }
        Ok(known)
    }

    async fn known_keys(
        &self,
        path: &[&str],
        body: Option<&serde_json::Value>,
        server_name: &str,
    ) -> Result<Vec<KeyResponse>, Error> {
        let answer: Notary = match self.keys_json(path, body).await {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            answer => answer?,
        };
        let lists = answer.server_keys.iter().filter_map(|list| usable(KeyResponse::read(list.get())));
        Ok(lists.filter(|list| list.server_name == server_name).collect())
    }

    async fn own_keys(&self) -> Result<Option<KeyResponse>, Error> {
        let answer: Box<RawValue> = match self.keys_json(&["v2", "server"], None).await {
            Err(error) if is_absent(&error) => return Ok(None),
            answer => answer?,
        };
        Ok(usable(KeyResponse::read(answer.get())))
    }
}

/// Whether there is no such endpoint: the homeserver's keys may be at another address than its client API.
fn is_absent(error: &Error) -> bool {
    let is_page = matches!(error, Error::Server { status } if *status == StatusCode::NOT_FOUND);
    is_page || error.is_not_found()
}

fn usable(list: Result<KeyResponse, BadKeys>) -> Option<KeyResponse> {
    list.inspect_err(|error| tracing::warn!(%error, "not using a list of keys that the homeserver returned"))
        .ok()
}
