//! Keeps `archive.members`: the member event in force of each user, with the name that a client shows. The rows follow
//! `archive.current_state`, and the profiles in older member events of those who have left.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::Room;
use crate::{
    archive::Error,
    matrix::{Event, Membership},
};

/// How many members of a room are brought up to date at once.
const AT_ONCE: usize = 5_000;

/// Brings the rows of these users up to date, after their current member event or its content has changed.
pub(in crate::archive) async fn refresh(
    connection: &mut PgConnection,
    room_id: &str,
    user_ids: &[&str],
) -> Result<(), Error> {
    for user_ids in user_ids.chunks(AT_ONCE) {
        sqlx::query!("select archive.refresh_members($1, $2)", room_id, user_ids as &[&str])
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Users whose names may have changed although the current state has not.
#[derive(Debug, Default)]
pub(in crate::archive) struct Members(BTreeMap<String, InRoom>);

#[derive(Debug, Default)]
struct InRoom {
    /// Users of whom a member event was stored. The last profile of a user who has left may be in it.
    left: BTreeSet<String>,
    /// Users of whom a stored member event has changed.
    changed: BTreeSet<String>,
}

impl Members {
    pub(in crate::archive) fn note_new(&mut self, room: &Room, event: &Event) {
        let has_profile = |(_, membership): &(&str, Membership)| !membership.is_out();
        if let Some((user_id, _)) = event.membership().filter(has_profile) {
            self.room(room).left.insert(user_id.to_owned());
        }
    }

    pub(in crate::archive) fn note_changed(
        &mut self,
        room: &Room,
        event_type: &str,
        state_key: Option<&str>,
    ) {
        if let Some(user_id) = state_key.filter(|_| event_type == "m.room.member") {
            self.room(room).changed.insert(user_id.to_owned());
        }
    }

    fn room(&mut self, room: &Room) -> &mut InRoom {
        self.0.entry(room.room_id.clone()).or_default()
    }

    pub(in crate::archive) async fn write(self, connection: &mut PgConnection) -> Result<(), Error> {
        for (room_id, InRoom { left, changed }) in self.0 {
            let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
            refresh(connection, &room_id, &changed).await?;
            if !left.is_empty() {
                let left: Vec<&str> = left.iter().map(String::as_str).collect();
                sqlx::query!("select archive.refresh_left_members($1, $2)", room_id, &left as &[&str])
                    .execute(&mut *connection)
                    .await?;
            }
        }
        Ok(())
    }
}
