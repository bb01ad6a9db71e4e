//! Requests of a check, for whose answers a person waits.

use std::time::Duration;

use crate::{backoff::Backoff, matrix};

/// How long one request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often a failed request is tried.
const TRIES: u32 = 3;

/// Sends a request. Retries if the homeserver refuses it or fails, because a single failure proves little.
pub(super) async fn patiently<T>(
    path: &'static str,
    request: impl AsyncFn() -> Result<T, matrix::Error>,
) -> Result<T, matrix::Error> {
    let mut backoff = Backoff::default();
    loop {
        let late = matrix::Error::Timeout { path, limit_s: PATIENCE.as_secs() };
        let answer = tokio::time::timeout(PATIENCE, request()).await.unwrap_or(Err(late));
        let may_pass = matches!(
            answer,
            Err(matrix::Error::Api { .. } | matrix::Error::Server { .. } | matrix::Error::Malformed(_))
        );
        let pause = backoff.pause();
        if !may_pass || backoff.failures() >= TRIES {
            return answer;
        }
        tokio::time::sleep(pause).await;
    }
}
