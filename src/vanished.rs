//! Rooms that the homeserver takes from the account without a word: an administrator who deletes a room leaves nothing of
//! it that `/sync` could tell (P106).

use std::collections::HashSet;

use ruma::{OwnedRoomId, RoomId};

use crate::{Error, archive::Account, daemon::Context};

/// Rooms that the archive takes the account to be in and the server does not. Whoever has just left is among them:
/// `/sync` tells that, and only what it leaves out has [vanished](confirm).
pub async fn suspects(context: &Context) -> Vec<OwnedRoomId> {
    match context.unless_stopped(missing(context)).await {
        Some(Ok(rooms)) => rooms,
        Some(Err(error)) => {
            tracing::debug!(%error, "the rooms could not be compared with the homeserver's; later again");
            Vec::new()
        }
        None => Vec::new(),
    }
}

async fn missing(context: &Context) -> Result<Vec<OwnedRoomId>, Error> {
    let followed = context.writer.archive().joined_rooms().await?;
    if followed.is_empty() {
        return Ok(Vec::new());
    }
    let joined: HashSet<OwnedRoomId> = context.client.joined_rooms().await?.into_iter().collect();
    let followed = followed.into_iter().filter_map(|room_id| RoomId::parse(room_id).ok());
    Ok(followed.filter(|room_id| !joined.contains(room_id)).collect())
}

/// To be called with the [`suspects`] of before the last `/sync` response, which had its chance to tell: notes that the
/// account is not in those any more that it did not mention and of which the server refuses the state. Their rows stay.
pub async fn confirm(context: &Context, account: &Account, suspects: &[OwnedRoomId]) {
    for room_id in suspects {
        let Some(state) = context.unless_stopped(context.client.state(room_id)).await else { return };
        if !state.is_err_and(|error| error.is_forbidden() || error.is_not_found()) {
            continue;
        }
        match context.writer.lose_room(room_id.as_str(), account.since.as_deref()).await {
            Ok(true) => tracing::warn!(
                room.id = %room_id,
                "the homeserver has taken the room away without saying so; what is archived of it stays"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(room.id = %room_id, %error, "that a room has vanished could not be noted");
            }
        }
    }
}
