//! What was erased, as the writer sees it: nothing of it comes back, whichever answer of the server holds it.
//!
//! Invariant: every event and every quarantined text passes [`Tombstones`] on its way into a table.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::{Error, redaction, room::Room};
use crate::matrix::{
    Event,
    json::{Json, Text},
};

/// The users who were erased.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    users: HashSet<String>,
}

impl Tombstones {
    pub(super) async fn load(connection: &mut PgConnection) -> Result<Self, Error> {
        let users = sqlx::query_scalar!(
            r#"select user_id as "user_id!" from archive.erasures where user_id is not null"#
        )
        .fetch_all(connection)
        .await?;
        Ok(Self { users: users.into_iter().collect() })
    }

    /// The tombstone of one user.
    pub(super) fn of(user_id: &str) -> Self {
        Self { users: HashSet::from([user_id.to_owned()]) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The event as it may be stored.
    pub(super) fn cover<'e>(&self, room: &Room, event: &'e Event) -> Cow<'e, Event> {
        if self.is_empty() {
            return Cow::Borrowed(event);
        }
        let mut covered = Cow::Borrowed(event);
        if self.covers(&event.event_type, &event.sender, event.state_key.as_deref()) {
            covered = Cow::Owned(redaction::pruned(room, event));
        }
        if event.prev_content.is_some() && self.repeats(event) {
            covered.to_mut().prev_content = None;
        }
        covered
    }

    /// Whether an event is the user's: sent by them, or their membership, which holds their name and avatar whoever
    /// sent it.
    fn covers(&self, event_type: &str, sender: &str, state_key: Option<&str>) -> bool {
        let member = state_key.filter(|_| event_type == "m.room.member");
        self.users.contains(sender) || member.is_some_and(|user_id| self.users.contains(user_id))
    }

    /// Whether `prev_content` is or may be the user's. Where the server does not say whose it is, it goes: the view
    /// `state_history` then finds the value before in the archive.
    fn repeats(&self, event: &Event) -> bool {
        let own = event.event_type == "m.room.member"
            && event.state_key.as_ref().is_some_and(|user_id| self.users.contains(user_id));
        own || event.prev_sender.as_ref().is_none_or(|sender| self.users.contains(sender))
    }

    /// Whether text that is no event concerns an erased user: names them anywhere. Whose it is, such a text cannot be
    /// trusted to say.
    pub(super) fn mentioned(&self, raw: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let value = serde_json::from_str::<&RawValue>(raw).ok();
        let named = |user: &String| {
            raw.contains(user.as_str())
                || value.is_some_and(|value| json_mentions(&Json::parse(value.get()), user))
        };
        self.users.iter().any(named)
    }

    /// Whether the state of an invite is the user's.
    pub(super) fn covers_stripped(&self, event_type: &str, sender: &str, state_key: &str) -> bool {
        self.covers(event_type, sender, Some(state_key))
    }
}

/// Looks behind JSON's escapes.
fn json_mentions(value: &Json<'_>, user_id: &str) -> bool {
    let within = |text: &Text<'_>| text.to_column().0.contains(user_id);
    match value {
        Json::String(text) => within(text),
        Json::Array(items) => items.iter().any(|item| json_mentions(item, user_id)),
        Json::Object(members) => {
            members.iter().any(|(name, value)| within(name) || json_mentions(value, user_id))
        }
        Json::Deep(_) | Json::Literal(_) | Json::Number(_) => false,
    }
}

/// Whether the room was erased.
pub(super) async fn is_erased(connection: &mut PgConnection, room_id: &str) -> Result<bool, Error> {
    Ok(!erased_rooms(connection, &[room_id.to_owned()]).await?.is_empty())
}

/// Which of these rooms were erased: they are not archived.
pub(super) async fn erased_rooms(
    connection: &mut PgConnection,
    room_ids: &[String],
) -> Result<HashSet<String>, Error> {
    let rooms = sqlx::query_scalar!(
        r#"select room_id as "room_id!" from archive.erasures where room_id = any($1)"#,
        room_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rooms.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_mentions_a_user_however_it_is_written() {
        let tombstones = Tombstones::of("@a:hs");
        assert!(tombstones.mentioned(r#"{"sender":"@a:hs"}"#));
        assert!(tombstones.mentioned(r#"{"sender":["\u0040a:hs"]}"#));
        assert!(tombstones.mentioned("not JSON @a:hs"));
        assert!(!tombstones.mentioned(r#"{"sender":"@b:hs"}"#));
        assert!(!Tombstones::default().mentioned("@a:hs"));
    }
}
