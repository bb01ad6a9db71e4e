//! Rooms that the homeserver takes from the account without a word: an administrator who deletes a room leaves nothing of
//! it that `/sync` could tell (P106).

use std::{collections::HashSet, convert::Infallible, time::Duration};

use ruma::{OwnedRoomId, RoomId};

use crate::{Error, context::Context};

/// How often a room must be refused that the server has left out of the account's rooms and of `/sync`.
const REPEATS: u32 = 3;
/// How often the rooms that the account is in are compared with the server's; and when it starts.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// Looks for such rooms until shutdown, beside `/sync`.
pub(super) async fn watch(context: &Context) {
    while !context.shutdown.is_cancelled() {
        let candidates = candidates(context).await;
        if !candidates.is_empty() {
            context.hear_news().await;
            confirm(context, &candidates).await;
        }
        context.pause(LOOK_AFTER).await;
    }
}

/// Rooms that the archive takes the account to be in and the server does not. Whoever has just left is among them:
/// `/sync` reports that, and only what it leaves out has [vanished](confirm).
pub(super) async fn candidates(context: &Context) -> Vec<OwnedRoomId> {
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

/// To be called with the [`candidates`] of before the last `/sync` response, which had its chance to tell: notes that the
/// account is not in those any more that it did not mention and of which the server refuses the state. Their rows stay.
pub(super) async fn confirm(context: &Context, candidates: &[OwnedRoomId]) {
    for room_id in candidates {
        let request = context.writer.state_order().ask(room_id.as_str());
        if !is_refused(context, room_id).await {
            continue;
        }
        let Ok(Some(account)) = context.writer.archive().account().await else { return };
        match context.writer.lose_room(room_id.as_str(), &request, account.since.as_deref()).await {
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

/// Whether the server refuses the room's state, and leaves the room out of the account's, again and again: a single answer may be
/// a proxy's, or one of a server in trouble.
async fn is_refused(context: &Context, room_id: &OwnedRoomId) -> bool {
    let refused = async || {
        let state = context.client.state(room_id).await;
        let is_refused = state.is_err_and(|error| error.is_forbidden() || error.is_not_found());
        is_refused && context.client.joined_rooms().await.is_ok_and(|rooms| !rooms.contains(room_id))
    };
    let refused = async || Ok::<_, Infallible>(context.unless_stopped(refused()).await == Some(true));
    let Ok(is_refused) = context.is_repeated(refused, |refusals| refusals.failures() >= REPEATS).await;
    is_refused
}
