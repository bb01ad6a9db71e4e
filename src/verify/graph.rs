//! The graph of a room's events, as the federation format gives it: each event names those before it.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::report::Report;
use crate::{
    Error,
    archive::{
        Archive,
        verification::{Finding, Running, VerifiedRoom},
    },
    matrix::{
        Event,
        proof::{SignedEvent, Unproved},
    },
};

/// An ancestor of an event is not archived.
pub(super) const ANCESTOR_MISSING: &str = "ancestor missing";
/// With more open ancestors than this, they are kept in the database.
const MANY: usize = 50_000;

/// What the events seen so far say about each other. They are seen newest first.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Ancestors that were not met yet: the event that names each, and its position in the archive.
    open: HashMap<String, (String, Option<i64>)>,
    given: u64,
    not_given: u64,
    undecided: u64,
    /// Whether an event has a place before one of its ancestors.
    contradicts_order: bool,
}

impl Graph {
    /// Whether the homeserver gives the graph.
    pub(super) fn is_given(&self) -> bool {
        self.given > 0 && self.not_given == 0
    }

    /// Whether the id and the hash of every event could be computed.
    pub(super) fn is_decided(&self) -> bool {
        self.undecided == 0
    }

    /// Of how many events the id and the hash cannot be computed.
    pub(super) fn undecided(&self) -> u64 {
        self.undecided
    }

    /// Whether the archive's order contradicts the graph.
    pub(super) fn contradicts_order(&self) -> bool {
        self.contradicts_order
    }

    /// Checks the id and the content hash of an event and notes its ancestors. `position`: in the archive. Returns the
    /// event as it was signed.
    pub(super) fn note(
        &mut self,
        room: &VerifiedRoom,
        event: &Event,
        raw: &RawValue,
        position: Option<i64>,
        report: &mut Report,
    ) -> Option<SignedEvent> {
        let version = room.room_version.as_deref().unwrap_or_default();
        let signed = match SignedEvent::read(&room.room_id, version, raw) {
            Ok(signed) => signed,
            Err(Unproved::NoHashes) => {
                self.not_given += 1;
                return None;
            }
            Err(error) if error.is_undecided() => {
                self.undecided += 1;
                return None;
            }
            Err(error) => {
                let detail = Some(error.to_string());
                report.find(Finding::new("event is not what its id says", &event.event_id, detail));
                return None;
            }
        };
        self.given += 1;
        // A redacted event has lost what the hash is about. The id still fits it.
        let is_redacted = event.uncommon().redacted_by.is_some();
        if !is_redacted && !signed.content_hash_fits() && !signed.is_pruned() {
            if names_its_target_twice(event) {
                self.undecided += 1;
            } else {
                report.find(Finding::new("content hash does not fit", &event.event_id, None));
            }
        }
        if let Some((_, Some(above))) = self.open.remove(&event.event_id)
            && position.is_some_and(|position| position > above)
        {
            self.contradicts_order = true;
        }
        for ancestor in signed.prev_events.iter().chain(&signed.auth_events) {
            let lowest =
                self.open.entry(ancestor.clone()).or_insert_with(|| (event.event_id.clone(), position));
            lowest.1 = lowest.1.min(position).or(position);
        }
        Some(signed)
    }

    /// Keeps the open ancestors in the database if they are too many for memory.
    pub(super) async fn spill(&mut self, archive: &Archive, running: &Running) -> Result<(), Error> {
        if self.open.len() > MANY {
            self.flush(archive, running).await?;
            self.open.clear();
        }
        Ok(())
    }

    /// Writes the open ancestors to the database.
    pub(super) async fn flush(&self, archive: &Archive, running: &Running) -> Result<(), Error> {
        Ok(archive.note_ancestors(running, &self.open).await?)
    }
}

/// Whether it is a redaction with a target in its content, too. Up to room version 10, Synapse overwrites what the sender
/// has written there.
fn names_its_target_twice(event: &Event) -> bool {
    let uncommon = event.uncommon();
    event.event_type == "m.room.redaction" && uncommon.redacts.is_some() && uncommon.content_redacts.is_some()
}
