//! Makes stored messages searchable, behind the writer. Runs beside the loops.

use std::time::{Duration, Instant};

use crate::archive::{self, SearchRanges};
use crate::{Error, context::Context};

/// How long it waits at most for new messages. Only `/sync` responses wake it, also from its rest, because messages of
/// history need not be found at once.
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
/// wait for it.
const TIMES: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(120)];

/// Runs until shutdown. With `--once`: until `loops_ended` resolves and nothing is queued. An error of the search ends
/// nothing else: what it concerns is put off.
///
/// # Errors
/// Another Backscroll has become the writer.
pub(super) async fn fill(context: &Context, loops_ended: impl Future<Output = ()>) -> Result<(), Error> {
    let mut loops_ended = std::pin::pin!(loops_ended);
    let mut is_last = false;
    let (mut events, mut errors) = (EVENTS[0], 0);
    let mut retry_at = Instant::now();
    let mut rest_until = Instant::now();
    while !context.shutdown.is_cancelled() {
        let begun = Instant::now();
        let with_failed = is_last || begun >= retry_at;
        let next = unless_stopped(context, async || context.writer.next_search_ranges(with_failed).await);
        let pause = match next.await? {
            Some(Some(next)) if is_last || next.is_live || begun >= rest_until => {
                let fill = unless_stopped(context, async || context.writer.fill_search(&next, events).await);
                let mut pause = Duration::ZERO;
                match fill.await {
                    Ok(_) if next.is_live => {}
                    Ok(_) => events = next_portion(events, begun.elapsed()),
                    Err(error @ Error::Archive(archive::Error::LeaseTaken { .. })) => return Err(error),
                    Err(error) => {
                        put_off(context, &next, &error).await;
                        errors += 1;
                        if is_last && errors >= ERRORS_AT_END {
                            return Ok(());
                        }
                        if with_failed {
                            retry_at = Instant::now() + AFTER_ERROR;
                        }
                        pause = BREATH;
                    }
                }
                // History rests as long as the work took, to leave the database to the loops.
                rest_until = rest_until.max(Instant::now() + begun.elapsed());
                pause
            }
            Some(Some(_)) => rest_until.saturating_duration_since(begun),
            Some(None) | None if is_last => return Ok(()),
            Some(None) | None => LOOK_AGAIN,
        };
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = context.messages_stored.notified(), if !pause.is_zero() => {}
            () = &mut loops_ended, if !is_last => is_last = true,
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
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
