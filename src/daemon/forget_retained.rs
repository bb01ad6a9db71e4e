//! Forgets, while the daemon does its work, what `redactions.policy = "retain"` has kept of redacted events in quarantine.

use std::time::Instant;

use crate::{Error, context::Context};

/// Returns when nothing is left of it, which is at once where the policy is not honour, or has always been.
///
/// # Errors
/// One of the database that no retry helps against.
pub(super) async fn forget(context: &Context) -> Result<(), Error> {
    let mut forgotten = 0;
    loop {
        let mut begun = Instant::now();
        let forget = context.retry(async || {
            begun = Instant::now();
            Ok(context.unless_stopped(context.writer.forget_retained()).await.transpose()?.flatten())
        });
        let Some(rows) = forget.await?.flatten() else { break };
        forgotten += rows;
        // As long as it took: the archiving goes on beside it.
        let rest = tokio::time::sleep(begun.elapsed());
        if context.unless_stopped(rest).await.is_none() {
            return Ok(());
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
