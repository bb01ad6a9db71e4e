//! Keeps erased content out of the archive, whichever response contains it.
//!
//! Invariant: every event and every quarantined text passes [`Tombstones`] before it is written to a table.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;
use sqlx::PgConnection;

use crate::{
    archive::{Error, room::Room},
    matrix::{
        Event,
        json::{Json, Text},
        redact,
    },
};

/// The erased users.
#[derive(Debug, Default)]
pub(in crate::archive) struct Tombstones<'u> {
    users: HashSet<&'u str>,
}

impl<'u> Tombstones<'u> {
    pub(in crate::archive) fn of(erased_users: &'u [impl AsRef<str>]) -> Self {
        Self { users: erased_users.iter().map(AsRef::as_ref).collect() }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The event without erased content.
    pub(in crate::archive) fn cover<'e>(&self, room: &Room, event: &'e Event) -> Cow<'e, Event> {
        if self.is_empty() {
            return Cow::Borrowed(event);
        }
        let mut covered = Cow::Borrowed(event);
        if self.covers(&event.event_type, &event.sender, event.state_key.as_deref()) {
            let version = room.room_version.as_deref();
            covered = Cow::Owned(redact::pruned_but_relation_of_edit(&room.room_id, version, event));
        }
        if event.prev_content.is_some() && self.repeats(event) {
            covered.to_mut().prev_content = None;
        }
        if event.uncommon().unnamed_prev.is_some() {
            // It is unknown whose content this is.
            return Cow::Owned(covered.into_owned().with_uncommon(|it| it.unnamed_prev = None));
        }
        covered
    }

    /// Whether an event concerns the user: they sent it, or it is their membership. A membership contains their name
    /// and avatar, whoever sent it.
    fn covers(&self, event_type: &str, sender: &str, state_key: Option<&str>) -> bool {
        let member = state_key.filter(|_| event_type == "m.room.member");
        self.users.contains(sender) || member.is_some_and(|user_id| self.users.contains(user_id))
    }

    /// Whether `prev_content` is or may be the user's. If the server does not name its sender, it is removed. The
    /// view `state_history` then finds the earlier value in the archive.
    fn repeats(&self, event: &Event) -> bool {
        let own = event.event_type == "m.room.member"
            && event.state_key.as_ref().is_some_and(|user_id| self.users.contains(user_id.as_str()));
        own || event.prev_sender.as_ref().is_none_or(|sender| self.users.contains(sender.as_str()))
    }

    /// Whether a text that is not a valid event concerns an erased user, because it names them anywhere. The sender
    /// in such a text cannot be trusted.
    pub(in crate::archive) fn mentioned(&self, raw: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let value = serde_json::from_str::<&RawValue>(raw).ok();
        let named = |user: &&str| {
            raw.contains(user) || value.is_some_and(|value| json_mentions(&Json::parse(value.get()), user))
        };
        self.users.iter().any(named)
    }

    /// Whether the state of an invite is the user's.
    pub(in crate::archive) fn covers_stripped(
        &self,
        event_type: &str,
        sender: &str,
        state_key: &str,
    ) -> bool {
        self.covers(event_type, sender, Some(state_key))
    }
}

/// Also finds the name behind JSON escapes.
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
pub(in crate::archive) async fn is_erased(
    connection: &mut PgConnection,
    room_id: &str,
) -> Result<bool, Error> {
    let is_erased = sqlx::query_scalar!(
        r#"select exists (select from archive.erasures where room_id = $1) as "is_erased!""#,
        room_id
    )
    .fetch_one(connection)
    .await?;
    Ok(is_erased)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_mentions_a_user_however_it_is_written() {
        let tombstones = Tombstones::of(&["@a:hs"]);
        assert!(tombstones.mentioned(r#"{"sender":"@a:hs"}"#));
        assert!(tombstones.mentioned(r#"{"sender":["\u0040a:hs"]}"#));
        assert!(tombstones.mentioned("not JSON @a:hs"));
        assert!(!tombstones.mentioned(r#"{"sender":"@b:hs"}"#));
        assert!(!Tombstones::default().mentioned("@a:hs"));
    }
}
