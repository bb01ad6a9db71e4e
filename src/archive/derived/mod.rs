//! Columns and tables that follow from the events, so that readers need not compute them: the latest edit of a message,
//! the thread that it belongs to, the activity of each sender, the members' names, and what live encrypted messages say.
//!
//! The transaction that stores, redacts or erases events also brings these up to date. [`Derived`] collects what its
//! events change, and writes it at the end.

pub(in crate::archive) mod activity;
mod encrypted;
mod relations;
mod search;

use sqlx::PgConnection;

use self::{activity::Activity, encrypted::Encrypted, relations::Relations, search::Search};
use crate::{
    archive::{
        Error,
        room::{Room, members::Members},
    },
    matrix::Event,
};

/// What the events of a transaction change.
#[derive(Debug, Default)]
pub(in crate::archive) struct Derived {
    activity: Activity,
    relations: Relations,
    members: Members,
    encrypted: Encrypted,
    search: Search,
}

impl Derived {
    /// Notes a new event, as it is stored. `is_awaited`: an edit of it is stored already.
    pub(in crate::archive) fn note_new(&mut self, room: &Room, event: &Event, is_awaited: bool) {
        self.activity.add(room, event);
        self.relations.note_new(room, event, is_awaited);
        self.members.note_new(room, event);
        self.encrypted.note_new(room, event);
    }

    /// Notes that a stored event changed from `before` to `after`, because it was redacted or a fuller copy of it came.
    pub(in crate::archive) fn note_changed(&mut self, room: &Room, before: &Event, after: &Event) {
        self.activity.subtract(room, before);
        self.activity.add(room, after);
        self.search.note_changed(room, &after.event_id);
        self.relations.note_changed(room, before, after);
        self.encrypted.note_changed(room, before, after);
        self.note_member(room, &after.event_type, after.state_key.as_deref());
    }

    /// Notes that an event has this position from now on. `is_live`: `/sync` has reported it.
    pub(in crate::archive) fn note_placed(&mut self, room: &Room, position: i64, is_live: bool) {
        self.search.note_placed(room, position, is_live);
        if is_live {
            self.encrypted.note_live(room);
        }
    }

    /// Notes that a state event, or its `prev_content`, has changed. Its user's name may come from it.
    pub(in crate::archive) fn note_member(&mut self, room: &Room, event_type: &str, state_key: Option<&str>) {
        self.members.note_changed(room, event_type, state_key);
    }

    /// Writes everything that was noted. The events must be in their table.
    pub(in crate::archive) async fn write(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        std::mem::take(&mut self.activity).write(connection).await?;
        std::mem::take(&mut self.relations).write(connection).await?;
        std::mem::take(&mut self.members).write(connection).await?;
        std::mem::take(&mut self.encrypted).write(connection).await?;
        // Last, because it tells listeners: they read what stands there then.
        std::mem::take(&mut self.search).write(connection).await
    }
}
