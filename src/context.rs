//! What the loops share: configuration, clients, notifications between loops, and how they retry after an error.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    archive::{OwnDevice, Writer},
    backoff::{Backoff, Patience, Retry, jitter},
    config::Config,
    matrix::{self, Identity},
    schedule::{active_rooms::ActiveRooms, spare_pages::SparePages, write_slots::WriteSlots},
    service::health::Health,
    telemetry::{
        Progress, metrics,
        pulse::{self, Homeserver},
    },
};

/// With `--once`: failures in a row after which the homeserver or the database counts as unreachable.
const ONCE_FAILURES: u32 = 8;

/// The longest pause before a retry of the database.
const DATABASE_AGAIN: Duration = Duration::from_secs(5);

/// Which errors are retried, how soon, and when they become final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    once: bool,
    patience: Patience,
}

impl RetryPolicy {
    /// A daemon never gives up on an error that may be temporary. A single run or a command (`once`) does.
    pub(crate) fn new(patience: Duration, once: bool) -> Self {
        let patience = Patience::new(patience);
        Self { once, patience: if once { patience.brief() } else { patience } }
    }

    /// Whether this is the policy of a single run or a command.
    pub(crate) fn is_for_once(&self) -> bool {
        self.once
    }

    /// Whether there were so many `refusals`, over so long a time, that they count as final.
    pub(crate) fn is_believed(&self, refusals: &Backoff) -> bool {
        refusals.is_lasting(self.patience)
    }

    /// The same with a shorter time, for a refusal that delays everything else.
    pub(crate) fn is_believed_soon(&self, refusals: &Backoff) -> bool {
        refusals.is_lasting(self.patience.brief())
    }

    /// Runs `work`. Retries while its errors may be temporary.
    ///
    /// # Errors
    /// An error that a retry cannot fix.
    pub(crate) async fn retry<T, E: Into<Error>>(
        self,
        work: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::default();
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error.into(),
            };
            match self.pause(&error, &mut backoff) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// The pause before the next try. `None`: the error is final, because no retry helps or there were enough tries.
    /// Repeated failures are logged at 1, 2, 4, 8, … in a row.
    pub(crate) fn pause(&self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        let mut pause = match error.retry() {
            Retry::Never => return None,
            // The database is usually close, and its failures are short.
            Retry::Backoff if matches!(error, Error::Archive(_)) => backoff.pause().min(DATABASE_AGAIN),
            Retry::Backoff | Retry::Refused => backoff.pause(),
            // At least the pause that the server has requested, and never none at all.
            Retry::After(pause) => pause.max(backoff.pause().min(Duration::from_secs(1))),
        };
        let failures = backoff.failures();
        match error.retry() {
            Retry::Backoff if self.once && failures >= ONCE_FAILURES => return None,
            Retry::Refused if self.is_believed(backoff) => {
                let leaves_no_token = matches!(error, Error::Matrix(error) if error.leaves_no_token());
                if self.once || leaves_no_token {
                    return None;
                }
                pause = pause.max(jitter(self.patience.time()));
            }
            _ => {}
        }
        if failures.is_power_of_two() {
            tracing::warn!(%error, failures, retry_in_s = pause.as_secs_f32(), "trying again");
        }
        metrics::retry(error.class());
        Some(pause)
    }
}

/// What the loops share.
#[derive(Debug)]
pub struct Context {
    /// The configuration.
    pub(crate) config: Config,
    /// The homeserver.
    pub(crate) client: Identity,
    /// The database.
    pub(crate) writer: Writer,
    /// The device of the access token, where `encryption.device` is set.
    pub(crate) own_device: Option<OwnDevice>,
    /// The order of writes to the database.
    pub(crate) write_slots: WriteSlots,
    /// Rooms with recent live events.
    pub(crate) active_rooms: ActiveRooms,
    /// Permits for pages that are fetched ahead.
    pub(crate) spare_pages: SparePages,
    /// What the terminal and the log show of the work.
    pub(crate) progress: Progress,
    /// Whether the loops are alive.
    pub(crate) health: Arc<Health>,
    /// Events that `/sync` has brought in this run.
    pub(crate) live_events: AtomicU64,
    /// Whether the last `/sync` request succeeded. False before the first one of this run.
    pub(crate) sync_is_current: AtomicBool,
    /// Wakes the backward loop: there may be new walks.
    pub(crate) walks_opened: Notify,
    /// Wakes the comparison of states: there may be stale rooms.
    pub(crate) states_marked_stale: Notify,
    /// A `/sync` response was stored, whose messages the search does not know yet.
    pub(crate) messages_stored: Notify,
    /// Messages were decrypted, whose text the search does not know yet.
    pub(crate) messages_decrypted: Notify,
    /// Keys came of messages that were stored before.
    pub(crate) sessions_queued: Notify,
    /// How many `/sync` responses were stored in this run.
    pub(crate) responses: watch::Sender<u64>,
    /// How many of the next `/sync` requests ask for an immediate response.
    pub(crate) hurries: AtomicU8,
    /// Cancels the `/sync` request that is under way, so that the next one follows at once.
    pub(crate) hurried: Notify,
    /// Wakes the forward loop: the choice of rooms may have changed, see [`crate::archive::Change`].
    pub(crate) rooms_chosen: Notify,
    /// Cancelled at shutdown.
    pub(crate) shutdown: CancellationToken,
    /// Whether this is a single run, which ends when nothing more is due.
    pub(crate) once: bool,
    /// Which errors are retried, and when they become final.
    pub(crate) retries: RetryPolicy,
}

impl Context {
    /// Waits, or returns early on shutdown.
    pub(crate) async fn pause(&self, pause: Duration) {
        pulse::within(pause);
        // Tokio sleeps at least a millisecond, which is long where no pause is due.
        if pause.is_zero() {
            return;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Waits until a `/sync` response is stored that was requested after this call.
    pub(crate) async fn await_fresh_response(&self) {
        let mut responses = self.responses.subscribe();
        // The next response may have been requested before this call; the one after it was not.
        let wanted = *responses.borrow() + 2;
        self.hurries.store(2, Ordering::Relaxed);
        self.hurried.notify_one();
        pulse::resting();
        let _ = self.unless_stopped(responses.wait_for(|stored| *stored >= wanted)).await;
    }

    /// The result of a request. `None`: the daemon shuts down. A server may never answer, so shutdown must not wait
    /// for it.
    pub(crate) async fn unless_stopped<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            answer = request => Some(answer),
        }
    }

    /// Whether the last `/sync` request succeeded. If not, the archive may lack newer events, and two things wait:
    ///
    /// * The later passes through a gap. A late event could lead such a pass into a newer gap that has no row yet. It
    ///   would place events below the older gap that belong above it.
    /// * Walks that begin at `since`. They would place late events below events that no response has reported yet.
    pub(crate) fn sync_is_current(&self) -> bool {
        self.sync_is_current.load(Ordering::Relaxed)
    }

    /// Handles an error before a retry: renews a refused access token or lost database sessions, then pauses. Repeated
    /// failures are logged at 1, 2, 4, 8, … in a row.
    ///
    /// # Errors
    /// The error itself, if it is final; or the error of the renewal, if that is.
    pub(crate) async fn recover(&self, mut error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        if matches!(&error, Error::Matrix(error) if error.is_logged_out()) {
            let Some(Err(failure)) = self.unless_stopped(self.client.renew()).await else {
                // The token was renewed, or the server accepts the old one for another request.
                let pause = backoff.pause();
                if self.once && backoff.failures() >= ONCE_FAILURES {
                    return Err(error);
                }
                if backoff.failures() > 1 && backoff.failures().is_power_of_two() {
                    tracing::warn!(
                        %error, failures = backoff.failures(), retry_in_s = pause.as_secs_f32(),
                        "the homeserver refuses an access token that it accepts for other requests; trying again"
                    );
                }
                metrics::retry(error.class());
                self.pause(pause).await;
                return Ok(());
            };
            // The token is still refused, so the next request leads here again.
            error = failure.into();
        }
        if let Error::Archive(error) = &error {
            self.writer.failed(error);
        }
        let Some(pause) = self.retries.pause(&error, backoff) else { return Err(error) };
        self.pause(pause).await;
        Ok(())
    }

    /// Runs `work`, and again after [`recover`](Self::recover) as often as it fails. `None`: the daemon shuts down.
    ///
    /// # Errors
    /// An error that a retry cannot fix.
    pub(crate) async fn retry<T>(
        &self,
        mut work: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut backoff = Backoff::default();
        while !self.shutdown.is_cancelled() {
            match work().await {
                Ok(done) => return Ok(Some(done)),
                Err(error) => self.recover(error, &mut backoff).await?,
            }
        }
        Ok(None)
    }

    /// Calls `says` until it returns false, or until `is_enough` accepts how often it has returned true. Pauses after
    /// each true. Returns whether that was enough. A single response may come from a proxy, or from a server in
    /// trouble.
    ///
    /// # Errors
    /// The first error of `says`.
    pub(crate) async fn is_repeated<E>(
        &self,
        says: impl AsyncFn() -> Result<bool, E>,
        is_enough: impl Fn(&Backoff) -> bool,
    ) -> Result<bool, E> {
        let mut repeats = Backoff::default();
        while says().await? {
            let pause = repeats.pause();
            if is_enough(&repeats) {
                return Ok(true);
            }
            self.pause(pause).await;
        }
        Ok(false)
    }

    /// Records that the homeserver has failed: each time for `/readyz`, and after 2, 4, 8, … failures in a row in the
    /// database, for `backscroll status`.
    pub(crate) async fn note_failing(&self, error: &matrix::Error, failures: u32) {
        self.health.homeserver_is(Homeserver::Fails(format!("failed to {error}")));
        if failures < 2 || !failures.is_power_of_two() {
            return;
        }
        if let Err(problem) = self.writer.note_homeserver_fails(&format!("failed to {error}")).await {
            tracing::debug!(error = %problem, "failed to record that the homeserver fails");
        }
    }
}
