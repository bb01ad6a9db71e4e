//! The backward loop: reads open walks from the database and fetches their pages, one walk per room and several rooms
//! at once.
//!
//! [`run`] starts a task for each due walk. The task fetches and stores page after page (`walk::walk_pages`) until the
//! walk has ended or must wait. All progress is in the database, so a walk can resume at any time.

pub mod operator;
mod prefetch;
pub(crate) mod resequence;
mod walk;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use self::walk::{WalkPolicy, walk_room};
use crate::{
    Error,
    archive::{self, Walk, WalkChoice},
    backoff::{Backoff, Retry},
    context::Context,
    telemetry::pulse,
};

/// `--once` waits for a later pass through a gap if it is due within this time, which is longer than the pauses
/// within a walk.
const SOON: Duration = Duration::from_secs(10);
/// How many walks are read at once. Reading them takes longer the more rooms have open walks.
const PORTION: usize = 1_000;
/// How long after the end of a walk the stalled walks are checked. That reads all walks, and in an account with ten
/// thousand small rooms hundreds of walks end every second.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Walks that were read but have not begun.
#[derive(Default)]
struct Queue {
    due: VecDeque<Walk>,
    /// When the first of the other walks is due.
    next_due: Option<Instant>,
    /// Whether walks were opened since the queue was read.
    is_outdated: bool,
}

impl Queue {
    /// Reads the queue again if it may lack a walk for one of the free `places`. `except`: the keys of rooms in which
    /// no walk may begin.
    async fn read(
        &mut self,
        context: &Context,
        places: usize,
        except: &[String],
    ) -> Result<(), archive::Error> {
        if places == 0 || (!self.is_outdated && self.due.len() >= places) {
            return Ok(());
        }
        let choice = WalkChoice {
            sync_is_current: context.sync_is_current(),
            except,
            only_within: context.once.then_some(SOON),
        };
        let walks = context.writer.archive().open_walks(&choice, PORTION.max(places)).await?;
        let (due, later): (Vec<_>, Vec<_>) = walks.into_iter().partition(|walk| walk.due_in_s <= 0.0);
        let due_in =
            later.first().map(|walk| Duration::try_from_secs_f64(walk.due_in_s).unwrap_or(Duration::MAX));
        self.next_due = due_in.and_then(|due_in| Instant::now().checked_add(due_in));
        self.due = due.into();
        self.is_outdated = false;
        Ok(())
    }
}

/// Runs walks until shutdown; or, after `all_opened`, until none is due.
///
/// # Errors
/// An error that a retry cannot fix; with `--once` also the first error of a room that was given up.
///
/// # Panics
/// If a walk panics.
pub(crate) async fn run(context: &Arc<Context>, all_opened: impl Future<Output = ()>) -> Result<(), Error> {
    let mut all_opened = pin!(all_opened);
    let mut to_end = false;
    let mut backoff = Backoff::default();
    let mut tasks = JoinSet::new();
    let mut queue = Queue::default();
    let mut active = HashSet::new();
    let mut put_off: HashMap<String, WalkPolicy> = HashMap::new();
    let mut given_up = HashSet::new();
    let mut failure = Ok(());
    // A single run does not reopen a walk that stalls.
    let mut reopen_at = Some(Instant::now()).filter(|_| !context.once);
    while !context.shutdown.is_cancelled() {
        pulse::within(Duration::ZERO);
        if reopen_at.is_some_and(|at| at <= Instant::now()) {
            reopen_at = match context.writer.reopen_due().await {
                Ok(next) => next.and_then(|due_in| Instant::now().checked_add(due_in)),
                Err(error) => {
                    context.recover(error.into(), &mut backoff).await?;
                    continue;
                }
            };
        }
        let places = context.config.backfill.concurrency.saturating_sub(tasks.len());
        let except: Vec<String> = active.iter().chain(&given_up).cloned().collect();
        if let Err(error) = queue.read(context, places, &except).await {
            context.recover(error.into(), &mut backoff).await?;
            continue;
        }
        backoff.reset();
        while tasks.len() < context.config.backfill.concurrency
            && let Some(walk) = queue.due.pop_front()
        {
            active.insert(walk.room_id.clone());
            let mut policy = put_off.remove(&walk.room_id).unwrap_or_else(|| WalkPolicy::new(context));
            let context = Arc::clone(context);
            tasks.spawn(async move {
                let (health, room_id) = (Arc::clone(&context.health), walk.room_id.clone());
                policy.put_off = false;
                let walked = health.watch("a walk", walk_room(&context, walk, &mut policy)).await;
                (room_id, policy, walked)
            });
        }
        // Without a free place, no walk can begin when it is due.
        let has_place = tasks.len() < context.config.backfill.concurrency;
        let next_due = queue.next_due.filter(|_| has_place);
        if to_end && tasks.is_empty() && next_due.is_none() {
            return failure;
        }
        let next_due = next_due.into_iter().chain(reopen_at).min();
        let next_due = next_due.map(|at| at.saturating_duration_since(Instant::now()));
        pulse::resting();
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            // The last opened walks are read before this ends.
            () = &mut all_opened, if !to_end => to_end = true,
            () = context.walks_opened.notified() => queue.is_outdated = true,
            () = tokio::time::sleep(next_due.unwrap_or_default()), if next_due.is_some() => {}
            Some(ended) = tasks.join_next() => {
                let (room_id, policy, walked) = ended.expect("a walk neither panics nor is aborted");
                active.remove(&room_id);
                if policy.put_off {
                    put_off.insert(room_id.clone(), policy);
                }
                // The walk may have stalled.
                let look_at = Some(Instant::now() + REOPEN_AFTER).filter(|_| !context.once);
                reopen_at = reopen_at.into_iter().chain(look_at).min();
                match walked {
                    Err(error) if context.once && is_of_one_room(context, &error).await => {
                        given_up.insert(room_id);
                        failure = failure.and(Err(error));
                    }
                    walked => walked?,
                }
            }
        }
    }
    pulse::resting();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a walk neither panics nor is aborted").2?;
    }
    failure
}

/// Whether the server fails only for this room's history, so that the other rooms can continue.
async fn is_of_one_room(context: &Context, error: &Error) -> bool {
    let passes = matches!(error, Error::Matrix(error) if error.retry() == Retry::Backoff);
    passes && matches!(context.unless_stopped(context.client.joined_rooms()).await, Some(Ok(_)))
}
