//! What the loops share, and what an error means to them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Retry,
    archive::Writer,
    backfill::SparePages,
    backoff::Backoff,
    config::Config,
    health::{self, Health},
    lively::Lively,
    matrix::{self, Identity},
    metrics,
    telemetry::Progress,
    turns::Turns,
};

/// With `--once`: failures in a row after which the other side counts as away.
const ONCE_FAILURES: u32 = 8;

/// The longest pause before the database is tried again.
const DATABASE_AGAIN: Duration = Duration::from_secs(5);

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
    pub turns: Turns,
    /// Where people talk now.
    pub lively: Lively,
    /// Memory for what is fetched ahead.
    pub spare_pages: SparePages,
    /// What is shown of the work.
    pub progress: Progress,
    /// Whether the loops live.
    pub health: Arc<Health>,
    /// Events that `/sync` has brought in this run.
    pub live_events: AtomicU64,
    /// Whether `/sync` was heard last, rather than has failed, or has not answered yet in this run.
    pub abreast: AtomicBool,
    /// Wakes the backward loop: there may be new walks.
    pub walks_opened: Notify,
    /// Wakes the forward loop: rooms may have been chosen otherwise, see [`crate::archive::Change`].
    pub rooms_chosen: Notify,
    /// Cancelled when the daemon is to stop.
    pub shutdown: CancellationToken,
    /// Whether to end when what is due is done.
    pub once: bool,
}

impl Context {
    /// Waits, or returns early on shutdown.
    pub async fn pause(&self, pause: Duration) {
        health::within(pause);
        // Tokio's shortest sleep is a millisecond, which is much where none is due.
        if pause.is_zero() {
            return;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
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
    /// what the server has learnt belongs between events that no response has told yet, and would be placed below them.
    pub fn is_abreast(&self) -> bool {
        self.abreast.load(Ordering::Relaxed)
    }

    /// When to try again what may pass, for who has other things to do until then; `None` if [`Context::recover`] is to see to
    /// it.
    pub fn retry_in(&self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        pause_before_retry(error, self.once, backoff)
    }

    /// What to do about an error: repairs what can be repaired and pauses, or gives the error back if no retry helps.
    /// A failure that lasts is logged when it begins, and then ever more rarely.
    ///
    /// # Errors
    /// The error, if it is final; or what the repair met, if that is.
    pub async fn recover(&self, mut error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        if matches!(error, Error::Matrix(matrix::Error::LoggedOut { .. })) {
            let Some(Err(failure)) = self.unless_stopped(self.client.renew()).await else {
                metrics::retry(error.class());
                self.pause(backoff.pause()).await;
                return Ok(());
            };
            // The token is as dead as before, so the next request leads here again.
            error = failure.into();
        }
        if let Error::Archive(error) = &error {
            self.writer.failed(error);
        }
        let Some(pause) = pause_before_retry(&error, self.once, backoff) else { return Err(error) };
        self.pause(pause).await;
        Ok(())
    }
}

/// The pause that an error asks for; `None` if no retry helps. A failure that lasts is logged when it begins, and then
/// ever more rarely.
pub(super) fn pause_before_retry(error: &Error, once: bool, backoff: &mut Backoff) -> Option<Duration> {
    let pause = match error.retry() {
        Retry::Never => return None,
        // A database is near, and its failures are short.
        Retry::Backoff if matches!(error, Error::Archive(_)) => backoff.pause().min(DATABASE_AGAIN),
        Retry::Backoff => backoff.pause(),
        // Not before it was asked for, and not at once where that is no time at all.
        Retry::After(pause) => pause.max(backoff.pause().min(Duration::from_secs(1))),
    };
    let failures = backoff.failures();
    if once && failures >= ONCE_FAILURES && error.retry() == Retry::Backoff {
        return None;
    }
    if failures.is_power_of_two() {
        tracing::warn!(%error, failures, retry_in_s = pause.as_secs_f32(), "trying again");
    }
    metrics::retry(error.class());
    Some(pause)
}
