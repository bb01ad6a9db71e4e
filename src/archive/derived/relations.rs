//! The links between events that readers need in the rows themselves: the latest edit of a message, and the thread that
//! it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::{
    archive::{Error, room::Room},
    matrix::{Event, redact},
};

/// The rooms in which links may have changed.
#[derive(Debug, Default)]
pub(super) struct Relations(BTreeMap<String, InRoom>);

#[derive(Debug, Default)]
struct InRoom {
    /// New edits.
    edits: BTreeSet<String>,
    /// Messages whose edits may have changed.
    messages: BTreeSet<String>,
    /// New replies in threads.
    replies: BTreeSet<String>,
    /// New events that relate to others.
    related: BTreeSet<String>,
}

impl Relations {
    pub(super) fn note_new(&mut self, room: &Room, event: &Event, is_awaited: bool) {
        let uncommon = event.uncommon();
        if !is_awaited && uncommon.rel_type.is_none() {
            return;
        }
        let room = self.room(room);
        if is_awaited {
            room.messages.insert(event.event_id.clone());
        }
        if uncommon.rel_type.is_some() {
            room.related.insert(event.event_id.clone());
        }
        if uncommon.rel_type.as_deref() == Some("m.thread") {
            room.replies.insert(event.event_id.clone());
        }
        if let Some(message) = redact::edited(event).filter(|_| uncommon.redacted_by.is_none()) {
            room.edits.insert(event.event_id.clone());
            room.messages.insert(message.to_owned());
        }
    }

    /// Notes an event that has changed. Before, it may have edited another message.
    pub(super) fn note_changed(&mut self, room: &Room, before: &Event, after: &Event) {
        self.note_new(room, after, true);
        if let Some(message) = redact::edited(before) {
            self.room(room).messages.insert(message.to_owned());
        }
    }

    fn room(&mut self, room: &Room) -> &mut InRoom {
        self.0.entry(room.room_id.clone()).or_default()
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), Error> {
        for (room_id, room) in self.0 {
            let ids = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
            sqlx::query!(
                "select archive.settle_relations($1, $2, $3, $4, $5)",
                room_id,
                &ids(room.edits),
                &ids(room.messages),
                &ids(room.replies),
                &ids(room.related)
            )
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}
