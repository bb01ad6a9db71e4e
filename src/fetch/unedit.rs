//! Events that a server of before specification v1.7 serves with the content of their newest edit: they are asked for
//! one by one, for `/event` gives them as they were sent (P60).

use std::{collections::HashSet, time::Duration};

use ruma::RoomId;
use tokio::time::{Instant, timeout_at};

use crate::{
    Error,
    backoff::Backoff,
    context::Context,
    matrix::{self, Event, Events, RoomBatch},
};

/// How often an event is asked for that the server fails to give, before it stays as it was served.
const TRIES: u32 = 3;
/// How long what is live may be held up by that.
const LIVE: Duration = Duration::from_secs(5);
/// The shortest pause where the server limits the rate, whatever it says.
const SHORTEST: Duration = Duration::from_millis(100);

/// Puts the events' own content in place of an edit's, where the archive does not have them yet. What the server gives
/// in a page and not on its own stays as served.
///
/// # Errors
/// One of the homeserver or the database; `events` must then not be stored.
pub(crate) async fn undo(context: &Context, room_id: &RoomId, events: &mut Events) -> Result<(), Error> {
    let candidates: Vec<String> = events
        .events
        .iter()
        .filter(|event| event.maybe_edited_in_place)
        .map(|event| event.event_id.clone())
        .collect();
    if candidates.is_empty() {
        return Ok(());
    }
    let lacking: HashSet<String> =
        context.writer.archive().lacking(room_id.as_str(), &candidates).await?.into_iter().collect();
    for event in events.events.iter_mut().filter(|event| lacking.contains(&event.event_id)) {
        if let Some(unedited) = fetch(context, room_id, &event.event_id).await? {
            *event = unedited;
        }
    }
    Ok(())
}

/// As [`undo`], for what `/sync` reported.
///
/// # Errors
/// As [`undo`].
pub(crate) async fn undo_in_rooms(context: &Context, rooms: &mut [RoomBatch]) -> Result<(), Error> {
    let deadline = Instant::now() + LIVE;
    for room in rooms {
        match timeout_at(deadline, undo(context, &room.room_id, &mut room.timeline)).await {
            Ok(undone) => undone?,
            // Who waits for what others say is not to wait for that. The walk through the gap does.
            Err(_) => room.leave_to_a_gap(|event| event.maybe_edited_in_place),
        }
    }
    Ok(())
}

/// An event on its own; `None`: the server does not give it.
async fn fetch(context: &Context, room_id: &RoomId, event_id: &str) -> Result<Option<Event>, Error> {
    let mut backoff = Backoff::default();
    loop {
        let error = match context.client.event(room_id, event_id).await {
            Ok(event) => return Ok(event.filter(|event| event.event_id == event_id)),
            Err(error) => error,
        };
        match error {
            // Begun anew each time, a page with many edits would never be done.
            matrix::Error::RateLimited { after } => {
                context.pause(after.unwrap_or_else(|| backoff.pause()).max(SHORTEST)).await;
            }
            matrix::Error::Unavailable { after } => context.pause(after.max(SHORTEST)).await,
            matrix::Error::Network(_) => return Err(error.into()),
            error if error.is_logged_out() => return Err(error.into()),
            // A single refusal may be a proxy's, or pass.
            _ if backoff.failures() < TRIES && !context.shutdown.is_cancelled() => {
                context.pause(backoff.pause()).await;
            }
            error => {
                tracing::debug!(room.id = %room_id, event.id = event_id, %error, "an edited event stays as it was served");
                return Ok(None);
            }
        }
    }
}
