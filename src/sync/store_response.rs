//! Reads one `/sync` response and stores it, batch by batch as it arrives.

use std::time::{Duration, Instant};

use ruma::OwnedRoomId;

use super::room_choice_changed;
use crate::{
    Error,
    archive::{Account, SyncOutcome},
    config::Rooms,
    context::Context,
    fetch::unedit,
    matrix::{self, SyncBatch, SyncRequest, SyncStream},
    telemetry::{
        Reached, metrics,
        pulse::{self, Homeserver},
    },
};

/// How long it may take to store the state of every room of a large account.
const FULL_STORE: Duration = Duration::from_secs(15 * 60);
/// Bytes of a later response that are read before the first of it is stored.
const READ_AHEAD: usize = 32 << 20;
/// How often the progress of a first response is logged.
const LOG_AFTER: Duration = Duration::from_secs(10);

/// Sends `request` and stores the response. Returns what was stored, and the account with the new `since`. `None`:
/// nothing is stored, because the daemon shuts down, rooms were chosen meanwhile, or another task asked for an
/// immediate response.
pub(super) async fn take_in(
    context: &Context,
    account: &Account,
    rooms: &Rooms,
    request: &SyncRequest<'_>,
) -> Result<Option<(SyncOutcome, Account)>, Error> {
    let full = request.full_state;
    let news = async {
        tokio::select! {
            answer = context.client.sync(request) => answer.map(Some),
            // Another task needs a response now: this request is sent again without a timeout.
            () = context.hurried.notified(), if !full => Ok(None),
        }
    };
    let Some(Some(mut answer)) = unless_outdated(context, account, news).await? else { return Ok(None) };
    if request.since.is_some() {
        // All parts of it are stored in one transaction, which holds the rooms' locks: a slow server must not prolong it.
        let ahead = answer.read_ahead(READ_AHEAD);
        let Some(()) = unless_outdated(context, account, ahead).await? else { return Ok(None) };
    }
    let mut intake = context.writer.take_in(account, rooms, full, context.own_device.as_ref());
    let (mut stored_in, mut active) = (Duration::ZERO, Vec::new());
    let mut first = request.since.is_none().then(|| First::begin(context));
    loop {
        let Some(batch) = unless_outdated(context, account, next(context, &mut answer)).await? else {
            return Ok(None);
        };
        context.health.homeserver_is(Homeserver::Answers);
        if batch.rooms_unreadable && full {
            // Without this response, a room where nothing happens would never be reported.
            return Err(matrix::Error::Malformed("/sync: the rooms are not an object".to_owned()).into());
        }
        // A response with the whole state, and a single run, do not show which rooms are active now.
        if !full && !context.once {
            active.extend(talked_in(&batch));
        }
        let start = Instant::now();
        let next_batch = answer.next_batch().filter(|_| answer.is_done());
        let Some(next_batch) = next_batch else {
            pulse::within(FULL_STORE);
            intake.add(&batch, answer.next_batch()).await?;
            stored_in += start.elapsed();
            if let Some(first) = &mut first {
                first.stored(intake.outcome());
            }
            continue;
        };
        let store = async {
            intake.add(&batch, Some(next_batch)).await?;
            intake.finish(next_batch).await
        };
        let (outcome, account) = if full {
            pulse::within(FULL_STORE);
            store.await?
        } else {
            context.write_slots.live(store).await?
        };
        context.messages_stored.notify_one();
        if outcome.has_queued_sessions {
            context.sessions_queued.notify_one();
        }
        if !outcome.needs_full_state {
            note(&outcome, stored_in + start.elapsed());
            context.active_rooms.mark(active.iter().map(|room_id| &**room_id));
        }
        return Ok(Some((outcome, account)));
    }
}

/// The next rooms of a response. Where the server has put an edit's content into an event, the event's own is restored.
async fn next(context: &Context, answer: &mut SyncStream) -> Result<SyncBatch, Error> {
    let mut batch = answer.next().await?;
    unedit::undo_in_rooms(context, &mut batch.rooms).await?;
    Ok(batch)
}

/// The result of a request. `None`: the daemon shuts down, or rooms were chosen while the request was under way.
async fn unless_outdated<T, E: Into<Error>>(
    context: &Context,
    account: &Account,
    request: impl Future<Output = Result<T, E>>,
) -> Result<Option<T>, Error> {
    tokio::select! {
        answer = context.unless_stopped(request) => answer.transpose().map_err(Into::into),
        () = room_choice_changed(context, account) => Ok(None),
    }
}

fn talked_in(batch: &SyncBatch) -> impl Iterator<Item = OwnedRoomId> {
    let active = batch.rooms.iter().filter(|room| !room.timeline.events.is_empty());
    active.map(|room| room.room_id.clone())
}

fn note(outcome: &SyncOutcome, took: Duration) {
    metrics::stored_sync(outcome.event_count, took);
    if outcome.event_count > 0 {
        tracing::info!(
            room_count = outcome.room_count,
            event_count = outcome.event_count,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "stored a sync response"
        );
    }
}

/// The progress of a first response, shown while it is stored.
struct First {
    progress: crate::telemetry::RoomProgress,
    batches: u64,
    logged_at: Instant,
}

impl First {
    fn begin(context: &Context) -> Self {
        let progress = context.progress.first_sync();
        progress.update(Reached::default());
        Self { progress, batches: 0, logged_at: Instant::now() }
    }

    fn stored(&mut self, outcome: &SyncOutcome) {
        self.batches += 1;
        self.progress.update(Reached {
            event_count: outcome.event_count as u64,
            page_count: self.batches,
            ..Reached::default()
        });
        if self.logged_at.elapsed() >= LOG_AFTER {
            self.logged_at = Instant::now();
            tracing::info!(
                room_count = outcome.room_count,
                event_count = outcome.event_count,
                "storing the first sync response"
            );
        }
    }
}
