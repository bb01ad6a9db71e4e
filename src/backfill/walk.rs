//! Runs one walk: fetches its pages and has them stored until it ends or must wait, and handles failures.

use std::time::{Duration, Instant};

use ruma::OwnedRoomId;

use super::prefetch::Ahead;
use crate::{
    Error,
    archive::{self, Walk, WalkKind, WalkState},
    backoff::{Backoff, Retry},
    context::Context,
    fetch::{
        page_size::PageSize,
        throttle::{Brought, Pace},
    },
    matrix,
    telemetry::{Reached, RoomProgress, metrics},
};

/// How often in a row the server must refuse a room that the account is not in, before the walk ends.
const REFUSALS: u32 = 3;
/// After this many failures in a row, a walk is put off so that others can use its place.
const TRIES: u32 = 6;

/// The retries, pauses and page size of one walk.
pub(super) struct WalkPolicy {
    backoff: Backoff,
    /// The same for refusals.
    refusals: Backoff,
    pace: Pace,
    page_size: PageSize,
    /// Whether the walk was put off so that others can run. It resumes with this policy.
    pub(super) put_off: bool,
}

impl WalkPolicy {
    pub(super) fn new(context: &Context) -> Self {
        let page_size = PageSize::new(context.config.backfill.page_size.into());
        let (backoff, refusals, pace) = (Backoff::default(), Backoff::default(), Pace::default());
        Self { backoff, refusals, pace, page_size, put_off: false }
    }
}

/// Runs the walk of one room until it has ended or must wait.
pub(super) async fn walk_room(context: &Context, walk: Walk, policy: &mut WalkPolicy) -> Result<(), Error> {
    let room_id = OwnedRoomId::try_from(walk.room_id.as_str())
        .map_err(|_| archive::Error::NoSuchRoom(walk.room_id.clone()))?;
    let progress = context.progress.room(walk.name.as_deref().unwrap_or(&walk.room_id));
    progress.update(reached(&walk));
    let mut ahead = Ahead::new(context, &room_id);
    let walked = Box::pin(walk_pages(context, &room_id, walk, policy, &mut ahead, &progress)).await;
    ahead.finish_request().await;
    match walked? {
        WalkEnd::Ended(walk) => {
            tracing::info!(
                room.id = %walk.room_id,
                kind = walk.kind.as_str(),
                event_count = walk.events,
                page_count = walk.pages,
                "a walk has ended"
            );
            progress.finish(match (walk.state, walk.kind) {
                (WalkState::Done, WalkKind::Rewalk) => "walked again",
                (WalkState::Done, _) => "done",
                _ => "stalled",
            });
        }
        WalkEnd::Paused => progress.finish("paused"),
        WalkEnd::StaysOpen => {}
    }
    Ok(())
}

/// Why the fetching of a walk's pages has stopped.
enum WalkEnd {
    /// The walk is done or has stalled. The database has its state.
    Ended(Box<Walk>),
    /// The room is paused or no longer wanted. The walk stays open and resumes with the room.
    Paused,
    /// The walk stays open, and is read from the database again when it is due. The reason is one of these: the
    /// daemon shuts down, `/sync` must be current first, a newer gap must be walked first, the walk begins anew, or
    /// it waits after a failure.
    StaysOpen,
}

/// Fetches and stores page after page. Page n+1 is fetched while page n is stored.
async fn walk_pages(
    context: &Context,
    room_id: &OwnedRoomId,
    mut walk: Walk,
    policy: &mut WalkPolicy,
    ahead: &mut Ahead<'_>,
    progress: &RoomProgress,
) -> Result<WalkEnd, Error> {
    if walk.begins_at_since() {
        if !context.sync_is_current() {
            return Ok(WalkEnd::StaysOpen);
        }
        match context.writer.begin_at_since(&walk).await {
            Ok(walk_now) => walk = walk_now,
            Err(error) => return store_failed(context, &walk, error, &mut policy.backoff).await,
        }
    }
    while walk.state == WalkState::Open {
        // Without a pause, keep the limit that the watchdog has for the request under way.
        if walk.due_in_s > 0.0 {
            context.pause(Duration::try_from_secs_f64(walk.due_in_s).unwrap_or_default()).await;
        }
        if context.shutdown.is_cancelled() || (walk.kind.gives_way() && !context.sync_is_current()) {
            return Ok(WalkEnd::StaysOpen);
        }
        let Some(fetched) = ahead.next(&walk, &mut policy.page_size).await else {
            return Ok(WalkEnd::StaysOpen);
        };
        let page = match fetched.page {
            Ok(page) => page,
            Err(error) => match not_fetched(context, room_id, &walk, error, policy).await? {
                Some(walk_now) => {
                    walk = walk_now;
                    continue;
                }
                None => return Ok(WalkEnd::StaysOpen),
            },
        };
        policy.backoff.reset();
        policy.refusals.reset();
        match store(context, &walk, page, fetched.took, policy, ahead).await {
            Ok(walk_now) => {
                // The next page is being fetched meanwhile.
                let pause = policy.pace.pause(brought(&walk, &walk_now), Duration::ZERO);
                walk = walk_now;
                progress.update(reached(&walk));
                if walk.state == WalkState::Open {
                    context.pause(pause).await;
                }
            }
            Err(archive::Error::Unwatched) => return Ok(WalkEnd::Paused),
            Err(archive::Error::YieldToNewerGap) => return Ok(WalkEnd::StaysOpen),
            Err(error) => return store_failed(context, &walk, error, &mut policy.backoff).await,
        }
    }
    Ok(WalkEnd::Ended(Box::new(walk)))
}

/// Stores a page while the next one is fetched. Returns the walk with its new checkpoint.
async fn store(
    context: &Context,
    walk: &Walk,
    page: matrix::Page,
    took: Duration,
    policy: &mut WalkPolicy,
    ahead: &mut Ahead<'_>,
) -> Result<Walk, archive::Error> {
    let store = Box::pin(context.write_slots.page(context.active_rooms.is_anywhere(), async {
        let start = Instant::now();
        let stored = context.writer.apply_page(walk, &page, took, &context.config.backfill);
        stored.await.map(|walk| (walk, start.elapsed()))
    }));
    let stored = ahead.during(store, walk, &page, &mut policy.page_size).await;
    let event_count = page.chunk.events.len();
    // Dropped on another thread: freeing ten thousand strings takes as long as three round trips to the database.
    drop(tokio::task::spawn_blocking(move || drop(page)));
    let (walk_now, store_time) = stored?;
    let new = |now: i64, before: i64| u64::try_from(now - before).unwrap_or_default();
    let page_count = new(walk_now.pages, walk.pages);
    metrics::stored_pages(page_count, new(walk_now.events, walk.events), store_time);
    tracing::debug!(
        room.id = %walk.room_id,
        event_count,
        page_count = walk_now.pages,
        duration_ms = u64::try_from(store_time.as_millis()).unwrap_or(u64::MAX),
        "stored a page"
    );
    Ok(walk_now)
}

/// What a page has brought to its walk. Known events count as progress too, as long as each page goes further down
/// than the one before.
fn brought(before: &Walk, now: &Walk) -> Brought {
    let is_lower = match (before.upper_position, now.upper_position) {
        (Some(before), Some(now)) => now < before,
        (None, now) => now.is_some(),
        (Some(_), None) => false,
    };
    if now.events > before.events || is_lower {
        Brought::News
    } else if now.cursor != before.cursor {
        Brought::Onward
    } else {
        Brought::Nothing
    }
}

fn reached(walk: &Walk) -> Reached {
    Reached {
        event_count: u64::try_from(walk.events).unwrap_or_default(),
        page_count: u64::try_from(walk.pages).unwrap_or_default(),
        oldest_ts: walk.oldest_ts,
        newest_ts: walk.newest_ts,
        created_ts: walk.created_ts,
    }
}

/// Handles a page that could not be fetched. Returns the walk to retry with, or `None` if it must wait or has ended.
/// If the database fails at the same time, that does not end the daemon either, see [`store_failed`].
async fn not_fetched(
    context: &Context,
    room_id: &OwnedRoomId,
    walk: &Walk,
    error: Error,
    policy: &mut WalkPolicy,
) -> Result<Option<Walk>, Error> {
    let failed = match error {
        Error::Archive(error) => Err(error.into()),
        Error::Matrix(error) if policy.page_size.after_error(&error) => return Ok(Some(walk.clone())),
        Error::Matrix(error) => failed(context, room_id, walk, error, policy).await,
    };
    match failed {
        Err(Error::Archive(error)) => {
            store_failed(context, walk, error, &mut policy.backoff).await.map(|_| None)
        }
        failed => failed,
    }
}

/// The same for an error of the homeserver.
async fn failed(
    context: &Context,
    room_id: &OwnedRoomId,
    walk: &Walk,
    error: matrix::Error,
    policy: &mut WalkPolicy,
) -> Result<Option<Walk>, Error> {
    let reason = format!("failed to {error}");
    // Only shown to the operator. If this fails, the pause that the server has requested still applies.
    if let Err(error) = context.writer.note_failure(walk, &reason).await {
        tracing::debug!(room.id = %room_id, %error, "failed to record why a walk's request failed");
    }
    let walk = Walk { due_in_s: 0.0, ..walk.clone() };
    if error.retry() == Retry::Refused {
        policy.refusals.fail();
        return match refused(context, room_id, &walk, &error, &reason, policy).await? {
            Some(walk) => pause_or_put_off(context, walk, error.into(), policy).await,
            None => Ok(None),
        };
    }
    pause_or_put_off(context, walk, error.into(), policy).await
}

/// Handles a refusal. A single one is no proof: it may be temporary, or come from a proxy or from another server
/// (P11). Returns `None` if the walk has ended or begins anew.
async fn refused(
    context: &Context,
    room_id: &OwnedRoomId,
    walk: &Walk,
    error: &matrix::Error,
    reason: &str,
    policy: &mut WalkPolicy,
) -> Result<Option<Walk>, Error> {
    let settings = &context.config.backfill;
    let is_believed = context.retries.is_believed(&policy.refusals);
    if error.is_forbidden() {
        // The account has left the room if the list of its rooms does not contain it either.
        let Some(joined) = context.unless_stopped(context.client.joined_rooms()).await else {
            return Ok(None);
        };
        let is_out =
            policy.refusals.failures() >= REFUSALS && joined.is_ok_and(|rooms| !rooms.contains(room_id));
        if !is_believed && !is_out {
            return Ok(Some(walk.clone()));
        }
        let walk = context.writer.refuse_walk(walk, reason, settings, is_believed).await?;
        if walk.is_none() {
            tracing::warn!(room.id = %room_id, error = reason, "the homeserver refuses the room's history");
        }
        return Ok(walk);
    }
    let has_token = walk.cursor.is_some() || walk.to_token.is_some();
    let is_dead = error.is_bad_token() && (is_believed || matches!(error, matrix::Error::UnusableToken));
    if is_dead && has_token && !walk.restarted {
        tracing::warn!(room.id = %room_id, error = reason, "the homeserver refuses a walk's token; beginning anew");
        context.writer.restart_walk(walk).await?;
        policy.refusals.reset();
        return Ok(None);
    }
    if is_believed {
        context.writer.stall_walk(walk, reason, settings).await?;
        tracing::warn!(room.id = %room_id, error = reason, "a walk has stalled");
        return Ok(None);
    }
    Ok(Some(walk.clone()))
}

/// Pauses before the next try. After many failures puts the walk off instead, so that others can run, and returns
/// `None`.
async fn pause_or_put_off(
    context: &Context,
    walk: Walk,
    error: Error,
    policy: &mut WalkPolicy,
) -> Result<Option<Walk>, Error> {
    let gives_way = policy.backoff.failures() >= TRIES && !context.once;
    if gives_way && let Some(pause) = context.retries.pause(&error, &mut policy.backoff) {
        context.writer.put_off(&walk, pause).await?;
        policy.put_off = true;
        return Ok(None);
    }
    context.recover(error, &mut policy.backoff).await?;
    Ok(Some(walk))
}

/// Handles a page, or the end of a walk, that could not be stored. The task ends here, and the walk is read from the
/// database again.
async fn store_failed(
    context: &Context,
    walk: &Walk,
    error: archive::Error,
    backoff: &mut Backoff,
) -> Result<WalkEnd, Error> {
    let reason = format!("failed to {error}");
    match context.recover(error.into(), backoff).await {
        Ok(()) => Ok(WalkEnd::StaysOpen),
        // The error concerns this page, so the other rooms continue.
        Err(Error::Archive(archive::Error::Database(_))) => {
            let stalled = context.writer.stall_walk(walk, &reason, &context.config.backfill);
            if let Err(error) = stalled.await {
                return context.recover(error.into(), backoff).await.map(|()| WalkEnd::StaysOpen);
            }
            tracing::error!(room.id = %walk.room_id, error = reason, "a page cannot be stored; the walk has stalled");
            Ok(WalkEnd::StaysOpen)
        }
        Err(error) => Err(error),
    }
}
