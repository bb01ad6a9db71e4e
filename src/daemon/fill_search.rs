//! Makes stored messages searchable, behind the writer. Runs beside the loops.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    archive::{self, SearchRanges},
    context::Context,
};

/// How long it waits at most for messages to make searchable.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How long it waits after an error, also if what failed could not be put off.
const BREATH: Duration = Duration::from_millis(100);
/// How long what has failed alone is put off.
const AFTER_ERROR: Duration = Duration::from_secs(600);
/// With `--once`: how many such errors it takes until what is left stays for the next run.
const ERRORS_AT_END: u32 = 10;
/// The fewest and the most events that one transaction reads. Events can be large, so the number follows the time that
/// a transaction takes.
const EVENTS: [i32; 2] = [100, 6_000];
/// A transaction that takes less time may read more events, and one that takes more time must read fewer. New messages
/// of its room wait for it.
const TIMES: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];

/// Runs until shutdown. With `--once`: until `loops_ended` resolves and nothing is queued. An error of the search ends
/// nothing else: what it concerns is put off.
///
/// # Errors
/// Another Backscroll has become the writer.
pub(super) async fn fill(context: &Context, loops_ended: impl Future<Output = ()>) -> Result<(), Error> {
    let [loops, live] = [CancellationToken::new(), CancellationToken::new()];
    let unsorted = AtomicBool::new(false);
    let watch = async {
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = loops_ended => loops.cancel(),
        }
        Ok(())
    };
    // New messages do not wait for a transaction of history in another room.
    let new_messages = async {
        Filler::new(context, true, &unsorted).run(&context.messages_stored, &loops).await?;
        live.cancel();
        Ok(())
    };
    // Ends last, because what is too much for one transaction of the other is queued as history.
    let history = Filler::new(context, false, &unsorted).run(&context.messages_decrypted, &live);
    tokio::try_join!(watch, new_messages, history).map(|_| ())
}

/// Fills the search with new messages, or with those of history.
struct Filler<'a> {
    context: &'a Context,
    is_live: bool,
    /// Whether new messages have left entries that are not sorted into the index.
    unsorted: &'a AtomicBool,
    /// How many events the next transaction reads.
    events: i32,
    /// How many ranges have failed alone.
    errors: u32,
    /// When those are tried again.
    retry_at: Instant,
    /// History rests as long as the work took, to leave the database to the loops.
    rest_until: Instant,
}

impl<'a> Filler<'a> {
    fn new(context: &'a Context, is_live: bool, unsorted: &'a AtomicBool) -> Self {
        let now = Instant::now();
        Self { context, is_live, unsorted, events: EVENTS[0], errors: 0, retry_at: now, rest_until: now }
    }

    async fn run(mut self, wake: &Notify, ended: &CancellationToken) -> Result<(), Error> {
        let context = self.context;
        let mut is_last = false;
        while !context.shutdown.is_cancelled() {
            let with_failed = is_last || Instant::now() >= self.retry_at;
            let next = unless_stopped(context, async || {
                context.writer.next_search_ranges(with_failed, self.is_live).await
            });
            let pause = if let Some(Some(next)) = next.await? {
                let rest = self.rest_until.saturating_duration_since(Instant::now());
                if is_last || rest.is_zero() { self.fill(&next, with_failed).await? } else { rest }
            } else {
                self.sort().await?;
                if is_last {
                    return Ok(());
                }
                LOOK_AGAIN
            };
            if is_last && self.errors >= ERRORS_AT_END {
                return Ok(());
            }
            tokio::select! {
                () = context.shutdown.cancelled() => {}
                () = wake.notified(), if pause == LOOK_AGAIN => {}
                () = ended.cancelled(), if !is_last => is_last = true,
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// History does this where it has nothing else to do.
    async fn sort(&self) -> Result<(), Error> {
        if !self.is_live && self.unsorted.swap(false, Ordering::Relaxed) {
            match unless_stopped(self.context, async || self.context.writer.sort_search().await).await {
                Ok(_) => {}
                Err(error @ Error::Archive(archive::Error::LeaseTaken { .. })) => return Err(error),
                // The database does it, too, later.
                Err(error) => tracing::debug!(%error, "failed to sort the index of the search"),
            }
        }
        Ok(())
    }

    /// Makes one portion searchable. Returns how long to wait before the next.
    async fn fill(&mut self, next: &SearchRanges, with_failed: bool) -> Result<Duration, Error> {
        let context = self.context;
        let begun = Instant::now();
        let filled = unless_stopped(context, async || {
            context.writer.fill_search(next, self.events, self.is_live).await
        })
        .await;
        match filled {
            Ok(_) => {
                self.events = next_portion(self.events, begun.elapsed());
                if self.is_live {
                    self.unsorted.store(true, Ordering::Relaxed);
                } else {
                    self.rest_until = Instant::now() + begun.elapsed();
                }
                Ok(Duration::ZERO)
            }
            Err(error @ Error::Archive(archive::Error::LeaseTaken { .. })) => Err(error),
            Err(error) => {
                put_off(context, next, &error).await;
                self.errors += 1;
                if with_failed {
                    self.retry_at = Instant::now() + AFTER_ERROR;
                }
                Ok(BREATH)
            }
        }
    }
}

/// Retries `work` while the database is away. `None`: the shutdown came first.
async fn unless_stopped<T>(
    context: &Context,
    work: impl AsyncFn() -> Result<T, archive::Error>,
) -> Result<Option<T>, Error> {
    let done = context.retry(async || Ok(context.unless_stopped(work()).await.transpose()?));
    Ok(done.await?.flatten())
}

async fn put_off(context: &Context, failed: &SearchRanges, error: &Error) {
    tracing::error!(%error, "a part of the archive cannot be made searchable now; it is put off");
    if let Err(error) = context.writer.put_off_search(failed).await {
        tracing::debug!(%error, "failed to put off a part of the search");
    }
}

fn next_portion(events: i32, took: Duration) -> i32 {
    let [fewest, most] = EVENTS;
    if took < TIMES[0] {
        (events * 2).min(most)
    } else if took > TIMES[1] {
        (events / 2).max(fewest)
    } else {
        events
    }
}
