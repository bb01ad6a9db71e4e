//! Resolves a room alias, and joins a room.

use ruma::{OwnedRoomId, RoomAliasId, RoomOrAliasId};
use serde::Deserialize;

use super::{Client, Error};

#[derive(Deserialize)]
struct Answer {
    room_id: OwnedRoomId,
}

impl Client {
    /// The room id of an alias.
    pub(crate) async fn resolve(&self, alias: &RoomAliasId) -> Result<OwnedRoomId, Error> {
        let path = ["v3", "directory", "room", alias.as_str()];
        let answer: Answer = self.get_json("/directory/room", &path, &[]).await?;
        Ok(answer.room_id)
    }

    /// Joins a room, given by its id or an alias, and returns its id.
    pub(crate) async fn join(&self, room: &RoomOrAliasId) -> Result<OwnedRoomId, Error> {
        let answer: Answer =
            self.post_as_user("/join", &["v3", "join", room.as_str()], &serde_json::json!({})).await?;
        Ok(answer.room_id)
    }
}
