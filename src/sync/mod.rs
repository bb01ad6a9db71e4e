//! The forward loop: stores each `/sync` response and the `since` token of the next one in the same transaction.
//!
//! [`follow`] runs until shutdown, [`once`] for a single response (`run --once`). Both call `Follower::step`, which
//! retries until one response is stored. Each try first checks for a `rollback` of the homeserver, then sends one
//! request (`Follower::sync_once`). Two tasks run beside the loop: `state_check` and `removed_rooms`.

pub(crate) mod own_device;
mod past_membership;
mod removed_rooms;
mod rollback;
mod state_check;
mod store_response;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use self::{rollback::RollbackCheck, store_response::take_in};
use crate::{
    Error,
    archive::{Account, SyncOutcome},
    backoff::{Backoff, Retry},
    config::Rooms,
    context::Context,
    fetch::throttle::{Brought, Pace},
    matrix::{self, SyncRequest},
};

/// How often the current state of every room is compared with the server's. It is also compared at start.
const COMPARE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The most responses of a single run.
const MOST_RESPONSES: usize = 1000;
/// A response that took at least this long ended a long poll, even if the requested timeout was longer.
const UNHURRIED: Duration = Duration::from_secs(1);

/// Follows the account's rooms until shutdown.
///
/// # Errors
/// An error that a retry cannot fix.
pub(crate) async fn follow(context: &Context, account: Account) -> Result<(), Error> {
    let follow = async {
        let timeout = context.config.homeserver.sync_timeout;
        let mut follower = Follower::new(context, account, timeout);
        let mut compared: Option<Instant> = None;
        while !context.shutdown.is_cancelled() {
            if compared.is_none_or(|at| at.elapsed() >= COMPARE_AFTER) {
                follower.mark_states_stale().await?;
                compared = Some(Instant::now());
            }
            follower.step(timeout).await?;
        }
        Ok(())
    };
    // These requests run beside the loop: the server may answer them slowly or never, and `/sync` must not wait.
    let check_states = context.health.watch("comparing states", state_check::run(context));
    let check_rooms = context.health.watch("looking for removed rooms", removed_rooms::watch(context));
    let stop = |result: Result<(), Error>| result.inspect_err(|_| context.shutdown.cancel());
    let (followed, checked, ()) =
        tokio::join!(async { stop(follow.await) }, async { stop(check_states.await) }, check_rooms);
    followed.and(checked)
}

/// Stores one `/sync` response, then compares the states that are stale.
///
/// # Errors
/// An error that a retry cannot fix.
pub(crate) async fn once(context: &Context, account: Account) -> Result<(), Error> {
    let mut follower = Follower::new(context, account, Duration::ZERO);
    follower.mark_states_stale().await?;
    follower.sync_and_check_rooms().await?;
    follower.receive_remaining_keys().await?;
    state_check::run(context).await
}

/// Makes the current state of these rooms the homeserver's, where that gives it.
///
/// # Errors
/// An error that a retry cannot fix.
pub(crate) async fn repair_states(context: &Context, room_ids: &[&str]) -> Result<(), Error> {
    for room_id in room_ids {
        context.writer.mark_state_stale(room_id).await?;
    }
    if room_ids.is_empty() { Ok(()) } else { state_check::run(context).await }
}

/// The state of the forward loop.
struct Follower<'c> {
    context: &'c Context,
    /// The account's row as last read or written. It can be out of date after a write whose result is unknown.
    account: Account,
    /// How long the server may hold a request open while nothing is new (the `timeout` of `/sync`).
    timeout: Duration,
    rollback_check: RollbackCheck,
    pace: Pace,
    /// Whether the last response had to-device events for the archive's own device.
    has_brought_keys: bool,
    /// How often in a row the server has refused `since`.
    refusals: Backoff,
}

impl<'c> Follower<'c> {
    fn new(context: &'c Context, account: Account, timeout: Duration) -> Self {
        let (rollback_check, pace) = (RollbackCheck::due(), Pace::default());
        let refusals = Backoff::default();
        Self { context, account, timeout, rollback_check, pace, has_brought_keys: false, refusals }
    }

    /// Stores a response, then looks for rooms that it should have reported and did not.
    async fn sync_and_check_rooms(&mut self) -> Result<(), Error> {
        let candidates = removed_rooms::candidates(self.context).await;
        let timeout = if candidates.is_empty() { self.timeout } else { Duration::ZERO };
        self.step(timeout).await?;
        removed_rooms::confirm(self.context, &candidates).await;
        Ok(())
    }

    /// Requests again while responses bring keys: a homeserver gives at most 100 to-device events at once.
    async fn receive_remaining_keys(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_RESPONSES {
            if !std::mem::take(&mut self.has_brought_keys) || self.context.shutdown.is_cancelled() {
                break;
            }
            self.step(Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Marks every room's state as stale, so that [`state_check`] compares it with the server's. `/sync` does not
    /// report everything: a state reset sends no event, and only the whole state shows that a key has no event any
    /// more (P93). Not needed before the first response, because that contains the whole state.
    async fn mark_states_stale(&self) -> Result<(), Error> {
        if self.account.since.is_some() {
            self.context.retry(async || Ok(self.context.writer.mark_states_stale().await?)).await?;
        }
        self.context.states_marked_stale.notify_one();
        Ok(())
    }

    /// Stores one `/sync` response. Retries until it succeeds. Returns early on shutdown.
    ///
    /// # Errors
    /// An error that a retry cannot fix.
    async fn step(&mut self, timeout: Duration) -> Result<(), Error> {
        let context = self.context;
        let mut backoff = Backoff::default();
        let mut full_state = false;
        while !context.shutdown.is_cancelled() {
            let start = Instant::now();
            let since = self.account.since.clone();
            match self.attempt(full_state, timeout).await {
                Ok(SyncStep::Interrupted | SyncStep::SinceDropped) => {}
                Ok(SyncStep::NeedFullState) => {
                    // This happens twice in a row only if rooms were chosen in between.
                    context.pause(self.pace.pause(Brought::Nothing, start.elapsed())).await;
                    full_state = true;
                }
                Ok(SyncStep::Stored(outcome)) => {
                    let took = start.elapsed();
                    if !timeout.is_zero() && took >= timeout.min(UNHURRIED) {
                        self.pace.reset();
                    }
                    let is_same = self.account.since == since;
                    context.pause(self.pace.pause(brought(&outcome, is_same), took)).await;
                    return Ok(());
                }
                Err(error) => {
                    context.sync_is_current.store(false, Ordering::Relaxed);
                    let unsure = matches!(error, Error::Archive(_));
                    if let Error::Matrix(error) = &error {
                        context.note_failing(error, backoff.failures() + 1).await;
                    }
                    context.recover(error, &mut backoff).await?;
                    // The commit may have succeeded although its result got lost: read what is stored.
                    if unsure && let Ok(Some(stored)) = context.writer.archive().account().await {
                        self.account = stored;
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks whether the server was rolled back, then makes one request. Drops `since` if the server keeps refusing
    /// it.
    async fn attempt(&mut self, full_state: bool, timeout: Duration) -> Result<SyncStep, Error> {
        self.rollback_check.run(self.context, &mut self.account).await?;
        let taken = self.sync_once(full_state, timeout).await;
        match taken.inspect_err(|error| self.rollback_check.failed(error)) {
            Err(Error::Matrix(error)) if error.is_bad_token() && self.account.since.is_some() => {
                if !self.is_dead(&error).await? {
                    return Err(error.into());
                }
                tracing::warn!(
                    %error,
                    "the homeserver refuses the sync token; starting over, with a gap in every room"
                );
                self.account = self.context.writer.forget_since(&self.account).await?;
                self.refusals.reset();
                Ok(SyncStep::SinceDropped)
            }
            Ok(step @ (SyncStep::Stored(_) | SyncStep::NeedFullState)) => {
                self.refusals.reset();
                Ok(step)
            }
            other => other,
        }
    }

    /// Whether `since` is dead. Dropping it opens a gap in every room, so one refusal is not enough: the server must
    /// have refused it several times over a period, and must accept the same request without it.
    async fn is_dead(&mut self, refusal: &matrix::Error) -> Result<bool, Error> {
        if matches!(refusal, matrix::Error::UnusableToken) {
            return Ok(true);
        }
        self.refusals.fail();
        if !self.context.retries.is_believed(&self.refusals) {
            return Ok(false);
        }
        match self.context.unless_stopped(self.context.client.sync_is_answered()).await {
            Some(Ok(())) => Ok(true),
            Some(Err(error)) if error.is_logged_out() => Err(error.into()),
            // The question is asked again. The refusal of `since` alone would end a single run.
            Some(Err(error)) if matches!(error.retry(), Retry::After(_) | Retry::Backoff) => {
                Err(error.into())
            }
            Some(Err(_)) | None => Ok(false),
        }
    }

    /// Makes one request and stores the response with the new `since`.
    async fn sync_once(&mut self, full_state: bool, timeout: Duration) -> Result<SyncStep, Error> {
        let Self { context, account, has_brought_keys, .. } = &mut *self;
        let rooms = wanted_rooms(context, account).await?;
        let full_state = full_state || wants_full_state(account, &rooms);
        if full_state && account.since.is_some() {
            context.writer.mark_left_rooms_stale(&rooms).await?;
        }
        // Another task waits for a response: ask the server to answer at once.
        let hurried =
            context.hurries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let timeout = if hurried.is_ok() { Duration::ZERO } else { timeout };
        let request = SyncRequest { since: account.since.as_deref(), full_state, timeout };
        context.writer.state_order().await_response();
        let Some((outcome, stored)) = take_in(context, account, &rooms, &request).await? else {
            return Ok(SyncStep::Interrupted);
        };
        if outcome.needs_full_state {
            return Ok(SyncStep::NeedFullState);
        }
        *account = stored;
        if outcome.room_count > 0 {
            let room_count = context.writer.archive().followed_rooms().await?;
            let before = context.live_events.fetch_add(outcome.event_count as u64, Ordering::Relaxed);
            context.progress.following(room_count, before + outcome.event_count as u64);
        }
        *has_brought_keys = outcome.has_to_device_events;
        own_device::keep_up(context, outcome.published_keys).await?;
        context.sync_is_current.store(true, Ordering::Relaxed);
        // The backward loop reads new walks from the database. This only wakes it.
        context.walks_opened.notify_one();
        context.responses.send_modify(|stored| *stored += 1);
        context.states_marked_stale.notify_one();
        Ok(SyncStep::Stored(outcome))
    }
}

/// The result of one request to `/sync`.
enum SyncStep {
    /// The response is stored, and `since` has moved.
    Stored(SyncOutcome),
    /// Nothing is stored. The response lacks the state that decides whether a room is wanted, or that a new room needs;
    /// or the choice of rooms has changed since the request. The next request asks for the whole state.
    NeedFullState,
    /// Nothing is stored: the daemon shuts down, rooms were chosen while the response was awaited, or another task
    /// asked for an immediate response.
    Interrupted,
    /// The server kept refusing `since`, so it was dropped. The next response is an initial one, with a gap in every
    /// room.
    SinceDropped,
}

/// What a response has brought. One that only repeats known events, or only concerns rooms that are not archived,
/// brings no news.
fn brought(outcome: &SyncOutcome, is_same_token: bool) -> Brought {
    if outcome.event_count > 0 {
        Brought::News
    } else if is_same_token {
        Brought::Nothing
    } else {
        Brought::Onward
    }
}

/// Whether the next response must contain the state of every room: at the first request, and after the choice of rooms
/// has changed, because a response since a token does not report rooms that were unwanted until then (P41).
fn wants_full_state(account: &Account, rooms: &Rooms) -> bool {
    account.since.is_none() || account.rooms_filter != Some(rooms.fingerprint())
}

/// The rooms that are wanted now. Any process may change the choice and so reset `rooms_filter`: that is read again
/// too.
async fn wanted_rooms(context: &Context, account: &mut Account) -> Result<Rooms, Error> {
    let (choices, rooms_filter) = context.writer.archive().choices(account.account_key).await?;
    account.rooms_filter = rooms_filter;
    Ok(context.config.rooms.with_choices(choices))
}

/// Returns as soon as the choice of rooms has changed since `account` was read, even if it was changed back.
async fn room_choice_changed(context: &Context, account: &Account) {
    loop {
        context.rooms_chosen.notified().await;
        // If this fails, the choice is read before the next request anyway.
        let chosen = context.writer.archive().choices(account.account_key).await;
        if chosen.is_ok_and(|(_, rooms_filter)| rooms_filter != account.rooms_filter) {
            return;
        }
    }
}
