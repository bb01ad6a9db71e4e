//! Forgets, while the daemon does its work, what `redactions.policy = "retain"` has kept of redacted events in quarantine.

use std::time::Instant;

use crate::{Error, backoff::Backoff, context::Context};

/// Returns when nothing is left of it, which is at once where the policy is not honour, or has always been.
///
/// # Errors
/// One of the database that no retry helps against.
pub(super) async fn forget(context: &Context) -> Result<(), Error> {
    let (mut backoff, mut forgotten) = (Backoff::default(), 0);
    loop {
        let begun = Instant::now();
        match context.unless_stopped(context.writer.forget_retained()).await {
            Some(Ok(Some(rows))) => {
                backoff.reset();
                forgotten += rows;
                // As long as it took: the archiving goes on beside it.
                let rest = tokio::time::sleep(begun.elapsed());
                if context.unless_stopped(rest).await.is_none() {
                    return Ok(());
                }
            }
            Some(Err(error)) => context.recover(error.into(), &mut backoff).await?,
            Some(Ok(None)) | None => break,
        }
    }
    if forgotten > 0 {
        tracing::info!(
            row_count = forgotten,
            "forgot what an earlier redactions.policy had kept in quarantine of redacted events"
        );
    }
    Ok(())
}
