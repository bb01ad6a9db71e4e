//! Restores the original content of edited events. A server older than specification v1.7 serves an edited event with
//! the content of its newest edit. Each such event is requested again by `/event`, which returns it as it was sent
//! (P60).

use std::{collections::HashSet, time::Duration};

use ruma::RoomId;
use tokio::time::{Instant, timeout_at};

use crate::{
    Error,
    backoff::Backoff,
    context::Context,
    matrix::{self, Event, Events, RoomUpdate},
};

/// How often a failed request for an event is retried before the event is stored as it was served.
const TRIES: u32 = 3;
/// How long this may delay a `/sync` response.
const LIVE: Duration = Duration::from_secs(5);
/// The shortest pause after a rate-limited response, even if the server allows a shorter one.
const SHORTEST: Duration = Duration::from_millis(100);

/// Restores the content of edited events that are not archived yet. An event that `/event` does not return stays as
/// it was served.
///
/// # Errors
/// An error of the homeserver or the database. Then `events` must not be stored.
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

/// As [`undo`], for the timelines of a `/sync` response.
///
/// # Errors
/// As [`undo`].
pub(crate) async fn undo_in_rooms(context: &Context, rooms: &mut [RoomUpdate]) -> Result<(), Error> {
    let deadline = Instant::now() + LIVE;
    for room in rooms {
        match timeout_at(deadline, undo(context, &room.room_id, &mut room.timeline)).await {
            Ok(undone) => undone?,
            // Live messages must not wait longer. A gap is opened instead, and its walk restores the content.
            Err(_) => room.leave_to_a_gap(|event| event.maybe_edited_in_place),
        }
    }
    Ok(())
}

/// Requests a single event. `None`: the server does not return it.
async fn fetch(context: &Context, room_id: &RoomId, event_id: &str) -> Result<Option<Event>, Error> {
    let mut backoff = Backoff::default();
    loop {
        let error = match context.client.event(room_id, event_id).await {
            Ok(event) => return Ok(event.filter(|event| event.event_id == event_id)),
            Err(error) => error,
        };
        match error {
            // Wait here: if the whole page were retried, a page with many edits would never finish.
            matrix::Error::RateLimited { after } => {
                context.pause(after.unwrap_or_else(|| backoff.pause()).max(SHORTEST)).await;
            }
            matrix::Error::Unavailable { after } => context.pause(after.max(SHORTEST)).await,
            matrix::Error::Network(_) => return Err(error.into()),
            error if error.is_logged_out() => return Err(error.into()),
            error if !is_final(context, &error, &backoff) && !context.shutdown.is_cancelled() => {
                context.pause(backoff.pause()).await;
            }
            error => {
                tracing::debug!(
                    room.id = %room_id, event.id = event_id, %error,
                    "the original content of an edited event is not available; storing the event as served"
                );
                return Ok(None);
            }
        }
    }
}

/// Whether an error is the last word about an event. A single refusal may come from a proxy, or be temporary. Any other
/// error must last for longer: the event is stored as served after it, and nothing restores its content later.
fn is_final(context: &Context, error: &matrix::Error, failures: &Backoff) -> bool {
    if error.is_forbidden() || error.is_not_found() {
        failures.failures() >= TRIES
    } else {
        context.retries.is_believed(failures)
    }
}
