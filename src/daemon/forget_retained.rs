//! Deletes from quarantine the redacted events that `redactions.policy = "retain"` had kept, after the policy was set
//! back to `honour`. Runs beside the loops.

use std::time::Instant;

use crate::{Error, context::Context};

/// Returns when none is left. Returns at once if the policy is not `honour`, or has always been.
///
/// # Errors
/// An error of the database that a retry cannot fix.
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
        // Pause as long as the deletion took, to leave the database to the loops.
        let rest = tokio::time::sleep(begun.elapsed());
        if context.unless_stopped(rest).await.is_none() {
            return Ok(());
        }
    }
    if forgotten > 0 {
        tracing::info!(
            row_count = forgotten,
            "deleted redacted events from quarantine that an earlier redactions.policy had kept"
        );
    }
    Ok(())
}
