//! Rooms that were removed on the homeserver: if an administrator deletes a room, `/sync` never reports that the
//! account is no longer in it (P106).
//!
//! [`candidates`] are the rooms that the archive has as joined and the server does not. Some have just been left,
//! which the next `/sync` response reports. [`confirm`] records the others as removed, if the server also refuses
//! their state.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use ruma::{OwnedRoomId, RoomId};

use crate::{Error, context::Context};

/// How often the server must refuse a room's state before the room counts as removed.
const REPEATS: u32 = 3;
/// How often the account's rooms are compared with the server's list. They are also compared at start.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// Looks for removed rooms until shutdown, beside `/sync`.
pub(super) async fn watch(context: &Context) {
    while !context.shutdown.is_cancelled() {
        let candidates = candidates(context).await;
        if !candidates.is_empty() {
            context.await_fresh_response().await;
            confirm(context, &candidates).await;
        }
        context.pause(LOOK_AFTER).await;
    }
}

/// Rooms that the account has joined according to the archive, but not according to the server. A room that it has just
/// left is among them until `/sync` reports the leave; see [`confirm`].
pub(super) async fn candidates(context: &Context) -> Vec<OwnedRoomId> {
    match context.unless_stopped(missing(context)).await {
        Some(Ok(rooms)) => rooms,
        Some(Err(error)) => {
            tracing::debug!(%error, "failed to compare the account's rooms with the homeserver's; retrying later");
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

/// Records the removed rooms among `candidates`: those that the last `/sync` response did not mention, and whose
/// state the server refuses. Call it after a response that was requested later than the candidates were read. What is
/// archived stays.
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
                "the room was removed on the homeserver; what is archived of it stays"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(room.id = %room_id, %error, "failed to record that a room was removed");
            }
        }
    }
}

/// Whether the server repeatedly refuses the room's state and does not list the room as joined. A single response may
/// come from a proxy or from an overloaded server.
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
