//! Backwards: takes open walks from the database and walks them, one a room, several rooms at once.

mod ahead;
pub mod operator;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use ruma::OwnedRoomId;
use tokio::task::JoinSet;

use ahead::Ahead;
pub use ahead::SparePages;

use crate::{
    Error, Retry,
    archive::{self, Kind, Walk, WalkState},
    backoff::Backoff,
    daemon::Context,
    health, matrix, metrics,
    page_size::PageSize,
    telemetry::Reached,
};

/// How often a room is asked again that the server refuses although the account is in it (P11).
const REFUSALS: u32 = 6;
/// How soon a walk must be due for `--once` to wait for it: longer than the pauses within a walk.
const SOON: Duration = Duration::from_secs(10);

/// How often in a row a room's requests may fail before it waits without keeping others from their turn.
const TRIES: u32 = 6;

/// How a room is asked.
struct Manner {
    backoff: Backoff,
    /// The same for what is refused.
    refusals: Backoff,
    page_size: PageSize,
    /// Whether the walk was left for others to have their turn: then it is gone on with in this manner.
    put_off: bool,
}

impl Manner {
    fn new(context: &Context) -> Self {
        let page_size = PageSize::new(context.config.backfill.page_size.into());
        Self { backoff: Backoff::default(), refusals: Backoff::default(), page_size, put_off: false }
    }
}

/// Walks until shutdown; or, once nobody opens walks any more, until none is left that is due.
///
/// # Errors
/// One that no retry helps against; with `--once` also the first of a room that was given up.
///
/// # Panics
/// If a walk does.
pub async fn run(context: &Arc<Context>, all_opened: impl Future<Output = ()>) -> Result<(), Error> {
    let mut all_opened = pin!(all_opened);
    let mut to_end = false;
    let mut backoff = Backoff::default();
    let mut tasks = JoinSet::new();
    let mut active = HashSet::new();
    let mut put_off: HashMap<i32, Manner> = HashMap::new();
    let mut given_up = HashSet::new();
    let mut failure = Ok(());
    while !context.shutdown.is_cancelled() {
        health::within(Duration::ZERO);
        let walks = match context.writer.archive().open_walks(context.is_abreast()).await {
            Ok(walks) => walks,
            Err(error) => {
                context.recover(error.into(), &mut backoff).await?;
                continue;
            }
        };
        backoff.reset();
        let mut next_due = None;
        for walk in walks {
            let due_in = Duration::try_from_secs_f64(walk.due_in_s).unwrap_or_default();
            if active.contains(&walk.room_key)
                || given_up.contains(&walk.room_key)
                || tasks.len() >= context.config.backfill.concurrency
            {
                continue;
            }
            if due_in.is_zero() {
                active.insert(walk.room_key);
                let mut manner = put_off.remove(&walk.room_key).unwrap_or_else(|| Manner::new(context));
                let context = Arc::clone(context);
                tasks.spawn(async move {
                    let (health, room_key) = (Arc::clone(&context.health), walk.room_key);
                    manner.put_off = false;
                    let walked = health.watch("a walk", walk_room(&context, walk, &mut manner)).await;
                    (room_key, manner, walked)
                });
            } else if !context.once || waits_for(&walk, due_in) {
                next_due = next_due.min(Some(due_in)).or(Some(due_in));
            }
        }
        if to_end && tasks.is_empty() && next_due.is_none() {
            return failure;
        }
        health::resting();
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            // What was opened last is read before this ends.
            () = &mut all_opened, if !to_end => to_end = true,
            () = context.walks_opened.notified() => {}
            () = tokio::time::sleep(next_due.unwrap_or_default()), if next_due.is_some() => {}
            Some(ended) = tasks.join_next() => {
                let (room_key, manner, walked) = ended.expect("a walk neither panics nor is aborted");
                active.remove(&room_key);
                if manner.put_off {
                    put_off.insert(room_key, manner);
                }
                match walked {
                    Err(error) if context.once && is_of_one_room(context, &error).await => {
                        given_up.insert(room_key);
                        failure = failure.and(Err(error));
                    }
                    walked => walked?,
                }
            }
        }
    }
    health::resting();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a walk neither panics nor is aborted").2?;
    }
    failure
}

/// Whether the server that fails to give this room's history answers otherwise: then the others have theirs.
async fn is_of_one_room(context: &Context, error: &Error) -> bool {
    let passes = matches!(error, Error::Matrix(error) if error.retry() == Retry::Backoff);
    passes && matches!(context.unless_stopped(context.client.joined_rooms()).await, Some(Ok(_)))
}

/// Whether `--once` waits for a walk that is due later.
fn waits_for(walk: &Walk, due_in: Duration) -> bool {
    match walk.kind {
        Kind::GapRecheck => due_in <= SOON,
        Kind::Rewalk => walk.pages > 0,
        _ => true,
    }
}

/// Walks one room until its walk is not open any more, or is to give way to others.
async fn walk_room(context: &Context, walk: Walk, manner: &mut Manner) -> Result<(), Error> {
    let room_id = OwnedRoomId::try_from(walk.room_id.as_str())
        .map_err(|_| archive::Error::NoSuchRoom(walk.room_id.clone()))?;
    let mut ahead = Ahead::new(context, &room_id);
    let walked = Box::pin(walk_pages(context, &room_id, walk, manner, &mut ahead)).await;
    ahead.rest().await;
    walked
}

/// Page n+1 is fetched while page n is stored.
async fn walk_pages(
    context: &Context,
    room_id: &OwnedRoomId,
    mut walk: Walk,
    manner: &mut Manner,
    ahead: &mut Ahead<'_>,
) -> Result<(), Error> {
    let progress = context.progress.room(walk.name.as_deref().unwrap_or(&walk.room_id));
    progress.update(reached(&walk));
    if walk.begins_at_since() {
        if !context.is_abreast() {
            return Ok(());
        }
        match context.writer.begin_at_since(&walk).await {
            Ok(walk_now) => walk = walk_now,
            Err(error) => return store_failed(context, &walk, error, &mut manner.backoff).await,
        }
    }
    while walk.state == WalkState::Open {
        // Without one, what was said of the time that a request under way may take is still to hold.
        if walk.due_in_s > 0.0 {
            context.pause(Duration::try_from_secs_f64(walk.due_in_s).unwrap_or_default()).await;
        }
        if context.shutdown.is_cancelled() || (walk.kind.gives_way() && !context.is_abreast()) {
            return Ok(());
        }
        let Some(fetched) = ahead.next(&walk, &mut manner.page_size).await else { return Ok(()) };
        let page = match fetched.page {
            Ok(page) => page,
            Err(Error::Archive(error)) => {
                return store_failed(context, &walk, error, &mut manner.backoff).await;
            }
            Err(Error::Matrix(error)) => {
                if manner.page_size.after_error(&error) {
                    continue;
                }
                match failed(context, room_id, &walk, error, manner).await {
                    Ok(Some(walk_now)) => walk = walk_now,
                    Ok(None) => return Ok(()),
                    Err(Error::Archive(error)) => {
                        return store_failed(context, &walk, error, &mut manner.backoff).await;
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
        };
        manner.backoff.reset();
        manner.refusals.reset();
        let store = Box::pin(context.turns.page(context.lively.is_anywhere(), async {
            let start = Instant::now();
            let stored = context.writer.apply_page(&walk, &page, fetched.took, &context.config.backfill);
            stored.await.map(|walk| (walk, start.elapsed()))
        }));
        let stored = ahead.during(store, &walk, &page, &mut manner.page_size).await;
        let event_count = page.chunk.events.len();
        // On a thread of its own: to free some ten thousand strings takes as long as three exchanges with the database.
        drop(tokio::task::spawn_blocking(move || drop(page)));
        match stored {
            Ok((walk_now, store_time)) => {
                let new = |now: i64, before: i64| u64::try_from(now - before).unwrap_or_default();
                let page_count = new(walk_now.pages, walk.pages);
                metrics::stored_pages(page_count, new(walk_now.events, walk.events), store_time);
                walk = walk_now;
                progress.update(reached(&walk));
                tracing::debug!(
                    room.id = %walk.room_id,
                    event_count,
                    page_count = walk.pages,
                    duration_ms = u64::try_from(store_time.as_millis()).unwrap_or(u64::MAX),
                    "stored a page"
                );
            }
            // Nothing is lost: the walk goes on from its checkpoint when the room is resumed.
            Err(archive::Error::Unwatched) => {
                progress.finish("paused");
                return Ok(());
            }
            Err(archive::Error::Overtaken) => return Ok(()),
            Err(error) => return store_failed(context, &walk, error, &mut manner.backoff).await,
        }
    }
    tracing::info!(
        room.id = %walk.room_id,
        kind = walk.kind.as_str(),
        event_count = walk.events,
        page_count = walk.pages,
        "a walk has ended"
    );
    progress.finish(match (walk.state, walk.kind) {
        (WalkState::Done, Kind::Rewalk) => "walked again",
        (WalkState::Done, _) => "done",
        _ => "stalled",
    });
    Ok(())
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

/// What follows from a request that failed: a pause, or another walk; `None` if this one has ended, for now at least. The
/// database may be away together with the homeserver: what it refuses is no end of the daemon either, see
/// [`store_failed`].
async fn failed(
    context: &Context,
    room_id: &OwnedRoomId,
    walk: &Walk,
    error: matrix::Error,
    manner: &mut Manner,
) -> Result<Option<Walk>, Error> {
    let backoff = &mut manner.backoff;
    let reason = format!("failed to {error}");
    // For who looks at the walk: nothing depends on it, so the server is still given the pause that it asked for.
    if let Err(error) = context.writer.note_failure(walk, &reason).await {
        tracing::debug!(room.id = %room_id, %error, "why a walk does not go on could not be noted");
    }
    let mut walk = walk.clone();
    walk.due_in_s = 0.0;
    if error.is_forbidden() {
        // Another server's refusal can come through, so one is no proof; and a smaller page may get past it (P11).
        let Some(joined) = context.unless_stopped(context.client.joined_rooms()).await else {
            return Ok(None);
        };
        let patient = manner.refusals.failures() < REFUSALS;
        if !patient || joined.is_ok_and(|rooms| !rooms.contains(room_id)) {
            let intervals = &context.config.backfill.rewalk_after;
            let Some(told) = context.writer.refuse_walk(&walk, &reason, intervals, !patient).await? else {
                tracing::warn!(room.id = %room_id, error = reason, "the homeserver refuses the room's history");
                return Ok(None);
            };
            walk = told;
        }
        context.pause(manner.refusals.pause()).await;
        return Ok(Some(walk));
    }
    if error.is_bad_token() && (walk.cursor.is_some() || walk.to_token.is_some()) && !walk.restarted {
        tracing::warn!(room.id = %room_id, error = reason, "the homeserver refuses a walk's token; beginning anew");
        context.writer.restart_walk(&walk).await?;
        return Ok(None);
    }
    let error = Error::from(error);
    let gives_way = backoff.failures() >= TRIES && !context.once;
    if gives_way && let Some(pause) = context.retry_in(&error, backoff) {
        context.writer.put_off(&walk, pause).await?;
        manner.put_off = true;
        return Ok(None);
    }
    match context.recover(error, backoff).await {
        Ok(()) => Ok(Some(walk)),
        Err(Error::Matrix(error @ matrix::Error::Api { .. })) if error.retry() == Retry::Never => {
            context.writer.stall_walk(&walk, &format!("failed to {error}")).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What follows from a page, or a walk's end, that could not be stored. The walk ends here; it is taken up again from the
/// database.
async fn store_failed(
    context: &Context,
    walk: &Walk,
    error: archive::Error,
    backoff: &mut Backoff,
) -> Result<(), Error> {
    let reason = format!("failed to {error}");
    match context.recover(error.into(), backoff).await {
        Ok(()) => Ok(()),
        // Something about this page: the other rooms go on.
        Err(Error::Archive(archive::Error::Database(_))) => {
            if let Err(error) = context.writer.stall_walk(walk, &reason).await {
                return context.recover(error.into(), backoff).await;
            }
            tracing::error!(room.id = %walk.room_id, error = reason, "a page cannot be stored; the walk has stalled");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
