//! What the loops share, and what an error means to them.

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
    archive::Writer,
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

/// With `--once`: failures in a row after which the other side counts as away.
const ONCE_FAILURES: u32 = 8;

/// The longest pause before the database is tried again.
const DATABASE_AGAIN: Duration = Duration::from_secs(5);

/// What is tried again, how soon, and what is given up.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    once: bool,
    patience: Patience,
}

impl RetryPolicy {
    /// For a daemon, which never gives up what may pass; `once`: for a single run or a command, which does.
    pub fn new(patience: Duration, once: bool) -> Self {
        let patience = Patience::new(patience);
        Self { once, patience: if once { patience.brief() } else { patience } }
    }

    /// Whether it is a single run's.
    pub fn is_for_once(&self) -> bool {
        self.once
    }

    /// Whether what `refusals` counts has been refused so often and for so long that it is believed.
    pub fn is_believed(&self, refusals: &Backoff) -> bool {
        refusals.is_lasting(self.patience)
    }

    /// The same for what holds up everything else until it is.
    pub fn is_believed_soon(&self, refusals: &Backoff) -> bool {
        refusals.is_lasting(self.patience.brief())
    }

    /// What `work` gives, whatever number of tries that takes while its errors are such as pass.
    ///
    /// # Errors
    /// One that no retry helps against.
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

    /// The pause before another try; `None` if this is the end: no retry helps, or it was tried often enough. A failure that
    /// lasts is logged when it begins, and then ever more rarely.
    pub fn pause(&self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        let mut pause = match error.retry() {
            Retry::Never => return None,
            // A database is near, and its failures are short.
            Retry::Backoff if matches!(error, Error::Archive(_)) => backoff.pause().min(DATABASE_AGAIN),
            Retry::Backoff | Retry::Refused => backoff.pause(),
            // Not before it was asked for, and not at once where that is no time at all.
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
    pub config: Config,
    /// The homeserver.
    pub client: Identity,
    /// The database.
    pub writer: Writer,
    /// Who writes to it next.
    pub write_slots: WriteSlots,
    /// Where people talk now.
    pub active_rooms: ActiveRooms,
    /// Memory for what is fetched ahead.
    pub spare_pages: SparePages,
    /// What is shown of the work.
    pub progress: Progress,
    /// Whether the loops live.
    pub health: Arc<Health>,
    /// Events that `/sync` has brought in this run.
    pub live_events: AtomicU64,
    /// Whether `/sync` was heard last, rather than has failed, or has not answered yet in this run.
    pub sync_is_current: AtomicBool,
    /// Wakes the backward loop: there may be new walks.
    pub walks_opened: Notify,
    /// Wakes who compares states: there may be new reason to doubt some.
    pub states_marked_stale: Notify,
    /// How many responses were stored in this run.
    pub responses: watch::Sender<u64>,
    /// How many of the next requests for news are to be answered at once.
    pub hurries: AtomicU8,
    /// Ends the request for news that is under way.
    pub hurried: Notify,
    /// Wakes the forward loop: rooms may have been chosen otherwise, see [`crate::archive::Change`].
    pub rooms_chosen: Notify,
    /// Cancelled when the daemon is to stop.
    pub shutdown: CancellationToken,
    /// Whether to end when what is due is done.
    pub once: bool,
    /// What is tried again, and what is given up.
    pub retries: RetryPolicy,
}

impl Context {
    /// Waits, or returns early on shutdown.
    pub async fn pause(&self, pause: Duration) {
        pulse::within(pause);
        // Tokio's shortest sleep is a millisecond, which is much where none is due.
        if pause.is_zero() {
            return;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Waits until the server has answered a request for news that was made after this was called, and that is stored.
    pub async fn hear_news(&self) {
        let mut responses = self.responses.subscribe();
        // The first of them may have been asked for before.
        let wanted = *responses.borrow() + 2;
        self.hurries.store(2, Ordering::Relaxed);
        self.hurried.notify_one();
        pulse::resting();
        let _ = self.unless_stopped(responses.wait_for(|stored| *stored >= wanted)).await;
    }

    /// What comes of a request, or `None` if the daemon is to stop before: a server may leave it without an answer.
    pub async fn unless_stopped<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            answer = request => Some(answer),
        }
    }

    /// Whether `/sync` was heard last. While it may have more to tell, no later pass through a gap is made: it could be led
    /// into a newer gap by a late event, and would place below the older one what lies above. And no walk begins at `since`:
    /// what the server has learnt belongs between events that no response has reported yet, and would be placed below them.
    pub fn sync_is_current(&self) -> bool {
        self.sync_is_current.load(Ordering::Relaxed)
    }

    /// What to do about an error: repairs what can be repaired and pauses, or gives the error back if no retry helps.
    /// A failure that lasts is logged when it begins, and then ever more rarely.
    ///
    /// # Errors
    /// The error, if it is final; or what the repair met, if that is.
    pub async fn recover(&self, mut error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        if matches!(&error, Error::Matrix(error) if error.is_logged_out()) {
            let Some(Err(failure)) = self.unless_stopped(self.client.renew()).await else {
                // There is another token, or the old one works elsewhere.
                let pause = backoff.pause();
                if self.once && backoff.failures() >= ONCE_FAILURES {
                    return Err(error);
                }
                if backoff.failures() > 1 && backoff.failures().is_power_of_two() {
                    tracing::warn!(
                        %error, failures = backoff.failures(), retry_in_s = pause.as_secs_f32(),
                        "the homeserver refuses an access token that it accepts elsewhere; trying again"
                    );
                }
                metrics::retry(error.class());
                self.pause(pause).await;
                return Ok(());
            };
            // The token is as dead as before, so the next request leads here again.
            error = failure.into();
        }
        if let Error::Archive(error) = &error {
            self.writer.failed(error);
        }
        let Some(pause) = self.retries.pause(&error, backoff) else { return Err(error) };
        self.pause(pause).await;
        Ok(())
    }

    /// What `work` gives, whatever number of tries that takes, with [`recover`](Self::recover) after each error. `None`: the
    /// daemon is to stop.
    ///
    /// # Errors
    /// One that no retry helps against.
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

    /// Whether the server says so again and again, with a pause after each time, until that `is_enough`: a single answer may be
    /// a proxy's, or of a server in trouble.
    ///
    /// # Errors
    /// The first that `says` gives.
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

    /// Notes that the homeserver has failed several times in a row, for `backscroll status`. Nothing depends on it.
    pub async fn note_failing(&self, error: &matrix::Error, failures: u32) {
        self.health.homeserver_is(Homeserver::Fails(format!("failed to {error}")));
        if failures < 2 || !failures.is_power_of_two() {
            return;
        }
        if let Err(problem) = self.writer.note_homeserver_fails(&format!("failed to {error}")).await {
            tracing::debug!(error = %problem, "that the homeserver fails could not be noted");
        }
    }
}
