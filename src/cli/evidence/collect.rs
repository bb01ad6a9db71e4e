//! Collects an event, its auth chain and the servers' keys: from the archive, and the rest from the
//! homeserver.

use std::collections::{BTreeMap, BTreeSet};

use ruma::RoomId;
use serde_json::value::RawValue;

use crate::{
    Error,
    archive::Archive,
    matrix::{
        Identity, MessagesRequest,
        proof::{KeyResponse, SignedEvent, Unproved, evidence::needed},
    },
};

/// How many events one request returns. The events before one are often in its auth chain.
const PAGE: u32 = 50;
const MOST_BYTES: usize = 64 << 20;

/// The events of one room that were found so far.
pub(super) struct Collection<'c> {
    client: &'c Identity,
    archive: &'c Archive,
    room_id: &'c RoomId,
    room_version: String,
    /// From the homeserver.
    fetched: BTreeMap<String, SignedEvent>,
    /// Why the last event is not in the collection.
    problem: Option<Unproved>,
}

impl<'c> Collection<'c> {
    pub(super) async fn new(
        client: &'c Identity,
        archive: &'c Archive,
        room_id: &'c RoomId,
    ) -> Result<Self, Error> {
        let room_version = match archive.room_version(room_id.as_str()).await? {
            Some(version) => version,
            None => client.room_version(room_id).await?,
        };
        Ok(Self { client, archive, room_id, room_version, fetched: BTreeMap::new(), problem: None })
    }

    pub(super) fn room_version(&self) -> &str {
        &self.room_version
    }

    /// What came from the homeserver.
    pub(super) fn fetched(&self) -> Vec<SignedEvent> {
        self.fetched.values().cloned().collect()
    }

    /// Why the last event that was asked for is missing.
    pub(super) fn why_missing(&self) -> String {
        self.problem
            .as_ref()
            .map_or_else(|| "the homeserver does not show it to this account".to_owned(), ToString::to_string)
    }

    /// The event as signed. A copy in the archive may be older, and whole where the homeserver has redacted
    /// it.
    pub(super) async fn event(&mut self, event_id: &str) -> Result<Option<SignedEvent>, Error> {
        if let Some(event) = self.fetched.get(event_id) {
            return Ok(Some(event.clone()));
        }
        if let Some(event) = self.kept(event_id).await? {
            return Ok(Some(event));
        }
        self.fetch(event_id).await?;
        Ok(self.fetched.get(event_id).cloned())
    }

    async fn kept(&self, event_id: &str) -> Result<Option<SignedEvent>, Error> {
        let signed = self.archive.kept_evidence(self.room_id.as_str(), event_id).await?;
        let raw = signed.and_then(|text| RawValue::from_string(text).ok());
        let event = raw.and_then(|raw| self.read(&raw).ok());
        Ok(event.filter(|event| event.event_id == event_id))
    }

    fn read(&self, raw: &RawValue) -> Result<SignedEvent, Unproved> {
        SignedEvent::read(self.room_id.as_str(), &self.room_version, raw)
    }

    async fn fetch(&mut self, event_id: &str) -> Result<(), Error> {
        self.problem = None;
        let Some(from) = self.client.token_behind(self.room_id, event_id).await? else { return Ok(()) };
        let request = MessagesRequest {
            room_id: self.room_id,
            from: Some(from.as_str()),
            to: None,
            limit: PAGE,
            most_bytes: MOST_BYTES,
            filter: None,
        };
        let page = self.client.federation_messages(&request).await?;
        for (event, raw) in page.page.chunk.events.iter().zip(&page.raws) {
            match self.read(raw) {
                Ok(event) => drop(self.fetched.insert(event.event_id.clone(), event)),
                Err(error) if event.event_id == event_id => self.problem = Some(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The auth chain, nearest first, as far as it can be had.
    pub(super) async fn chain(&mut self, event: &SignedEvent) -> Result<Vec<SignedEvent>, Error> {
        let mut chain = Vec::new();
        let mut seen = BTreeSet::from([event.event_id.clone()]);
        let mut left = needed(self.room_id.as_str(), event);
        while let Some(id) = left.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            if let Some(ancestor) = self.event(&id).await? {
                left.extend(needed(self.room_id.as_str(), &ancestor));
                chain.push(ancestor);
            }
        }
        chain.sort_by(|left, right| (right.depth, &right.event_id).cmp(&(left.depth, &left.event_id)));
        Ok(chain)
    }

    /// The lists of keys with which these events were signed.
    pub(super) async fn keys(
        &self,
        events: impl Iterator<Item = &SignedEvent>,
    ) -> Result<Vec<KeyResponse>, Error> {
        let mut wanted: BTreeMap<String, (BTreeSet<String>, i64)> = BTreeMap::new();
        for event in events {
            for (server, key_id) in event.signing_keys().unwrap_or_default() {
                let (ids, valid_at) = wanted.entry(server).or_default();
                ids.insert(key_id);
                *valid_at = event.origin_server_ts().unwrap_or_default().max(*valid_at);
            }
        }
        let mut lists: BTreeMap<String, KeyResponse> = BTreeMap::new();
        for (server, (ids, valid_at)) in wanted {
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            let kept = self.archive.kept_server_keys(&server).await?;
            let mut known: Vec<_> = kept.iter().filter_map(|list| KeyResponse::read(list).ok()).collect();
            // A dead server's keys can be had nowhere else.
            if !ids.iter().all(|id| known.iter().any(|list| list.has_valid(id, valid_at))) {
                known.extend(self.client.server_keys(&server, &ids, valid_at).await?);
            }
            let useful = known.into_iter().filter(|list| ids.iter().any(|id| list.keys.contains_key(*id)));
            lists.extend(useful.map(|list| (list.canonical_json(), list)));
        }
        Ok(lists.into_values().collect())
    }
}
