//! Queues the sessions of new encrypted events, decrypts live ones, and removes what redacted events said.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::{
    archive::{Error, encryption::decrypt, room::Room},
    encryption::session_id_of,
    matrix::Event,
};

const ENCRYPTED: &str = "m.room.encrypted";

/// The rooms with encrypted events that are new or have changed. Empty where no room is encrypted.
#[derive(Debug, Default)]
pub(super) struct Encrypted(BTreeMap<String, InRoom>);

#[derive(Debug, Default)]
struct InRoom {
    /// The sessions of new events.
    sessions: BTreeSet<String>,
    is_live: bool,
    /// Redacted events.
    redacted: BTreeSet<String>,
    /// Events that have other content now.
    changed: BTreeSet<String>,
}

impl Encrypted {
    pub(super) fn note_new(&mut self, room: &Room, event: &Event) {
        if event.event_type != ENCRYPTED
            || event.state_key.is_some()
            || event.uncommon().redacted_by.is_some()
        {
            return;
        }
        if let Some(session_id) = session_id_of(&event.content) {
            self.0.entry(room.room_id.clone()).or_default().sessions.insert(session_id);
        }
    }

    /// Notes that `/sync` has reported new events of the room.
    pub(super) fn note_live(&mut self, room: &Room) {
        if let Some(room) = self.0.get_mut(&room.room_id) {
            room.is_live = true;
        }
    }

    pub(super) fn note_changed(&mut self, room: &Room, before: &Event, after: &Event) {
        if before.event_type == ENCRYPTED {
            let room = self.0.entry(room.room_id.clone()).or_default();
            let is_redacted = after.uncommon().redacted_by.is_some();
            let events = if is_redacted { &mut room.redacted } else { &mut room.changed };
            events.insert(after.event_id.clone());
        }
        self.note_new(room, after);
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), Error> {
        for (room_id, room) in self.0 {
            let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
            if !room.redacted.is_empty() {
                decrypt::forget(connection, &room_id, &list(room.redacted)).await?;
            }
            if !room.changed.is_empty() {
                decrypt::reset(connection, &room_id, &list(room.changed)).await?;
            }
            if room.sessions.is_empty() {
                continue;
            }
            let sessions = list(room.sessions);
            let queued = decrypt::queue(connection, &room_id, &sessions).await?;
            if room.is_live && queued > 0 {
                // Boxed because the future is large, and few responses have encrypted messages.
                Box::pin(decrypt::decrypt_live(connection, &room_id, &sessions)).await?;
            }
        }
        Ok(())
    }
}
