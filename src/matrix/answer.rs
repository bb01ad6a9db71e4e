//! What comes back of a request: its body within a cap and a deadline, or what its failure means.

use std::time::{Duration, Instant, SystemTime};

use reqwest::{Response, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;

use super::{Error, client::SMALL_CAP};
use crate::{health, metrics, telemetry::escape};

/// The longest wait that a server can impose.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

#[derive(Deserialize)]
struct StandardError {
    errcode: String,
    // Of any type: the code is what counts.
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    soft_logout: serde_json::Value,
    retry_after_ms: Option<serde_json::Value>,
}

/// Sends one request and reads its whole answer, of at most `cap` bytes, before the deadline.
pub(super) async fn send(
    what: &'static str,
    request: reqwest::RequestBuilder,
    deadline: Duration,
    cap: usize,
) -> Result<Vec<u8>, Error> {
    let exchange = async {
        let response = request.send().await.map_err(network)?;
        let (status, wait) = (response.status(), retry_after(&response));
        if status.is_success() {
            return body(response, cap).await;
        }
        // An error's body is small; one that is not says no more than its status.
        let body = body(response, SMALL_CAP).await.unwrap_or_default();
        Err(refusal(status, wait, &body))
    };
    health::within(deadline);
    let start = Instant::now();
    let answer = tokio::time::timeout(deadline, exchange)
        .await
        .unwrap_or(Err(Error::Timeout { path: what, limit_s: deadline.as_secs() }));
    metrics::request(what, answer.as_ref().map_or_else(Error::class, |_| "ok"), start.elapsed());
    health::within(Duration::ZERO);
    answer
}

async fn body(mut response: Response, cap: usize) -> Result<Vec<u8>, Error> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if announced > cap {
        return Err(Error::TooLarge { limit_bytes: cap });
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(chunk) = response.chunk().await.map_err(network)? {
        if body.len() + chunk.len() > cap {
            return Err(Error::TooLarge { limit_bytes: cap });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn network(error: reqwest::Error) -> Error {
    // The URL holds tokens of pagination, ids and a filter: nothing that a log needs.
    Error::Network(error.without_url())
}

/// `Retry-After` in either of its forms (P124).
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    #[expect(clippy::disallowed_methods, reason = "the header names a wall-clock time")]
    let now = SystemTime::now();
    Some(date.duration_since(now).unwrap_or_default())
}

/// What a status that is no success means. The error code counts more than the status, which proxies invent (P125).
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Error {
    let error: Option<StandardError> = serde_json::from_slice(body).ok();
    let errcode = error.as_ref().map_or("", |error| error.errcode.as_str());
    if status == StatusCode::TOO_MANY_REQUESTS || errcode == "M_LIMIT_EXCEEDED" {
        let asked = error.as_ref().and_then(|error| error.retry_after_ms.as_ref()).and_then(milliseconds);
        let after = retry_after.or(asked).map(|after| after.min(LONGEST_WAIT));
        return Error::RateLimited { after };
    }
    if let Some(after) = retry_after.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE) {
        return Error::Unavailable { after: after.min(LONGEST_WAIT) };
    }
    match error {
        Some(error) if matches!(error.errcode.as_str(), "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => {
            Error::LoggedOut { soft: error.soft_logout == true }
        }
        Some(error) if !status.is_server_error() => Error::Api {
            status,
            errcode: escape(&error.errcode).into_owned(),
            message: escape(error.error.as_str().unwrap_or_default()).chars().take(300).collect(),
        },
        _ => Error::Server { status },
    }
}

fn milliseconds(value: &serde_json::Value) -> Option<Duration> {
    let millis = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let told = |status: u16, wait: Option<u64>, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            refusal(status, wait.map(Duration::from_secs), body.as_bytes())
        };
        let wait = |error: Error| match error {
            Error::RateLimited { after } => after,
            other => panic!("{other:?}"),
        };
        let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#;
        assert_eq!(wait(told(429, Some(3), limited)), Some(Duration::from_secs(3)));
        assert_eq!(wait(told(429, None, limited)), Some(Duration::from_millis(1500)));
        assert_eq!(wait(told(429, None, "<html>")), None);
        assert_eq!(wait(told(429, None, r#"{"errcode":"X","retry_after_ms":-1}"#)), None);
        assert_eq!(wait(told(429, None, r#"{"errcode":"X","retry_after_ms":1e12}"#)), Some(LONGEST_WAIT));
        assert_eq!(
            wait(told(429, None, r#"{"errcode":"X","retry_after_ms":"20"}"#)),
            Some(Duration::from_millis(20))
        );
        assert!(matches!(told(503, Some(3), "<html>"), Error::Unavailable { .. }));
        assert!(matches!(told(502, None, "<html>"), Error::Server { .. }));
        assert!(matches!(told(403, None, "<html>"), Error::Server { .. }));
        assert!(matches!(told(500, None, r#"{"errcode":"M_UNKNOWN"}"#), Error::Server { .. }));
        assert!(told(403, None, r#"{"errcode":"M_FORBIDDEN"}"#).is_forbidden());
        assert!(told(400, None, r#"{"errcode":"M_UNKNOWN"}"#).is_bad_token());
        let out = told(401, None, r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":true}"#);
        assert!(matches!(out, Error::LoggedOut { soft: true }));
        let out = told(401, None, r#"{"errcode":"M_UNKNOWN_TOKEN","error":null,"soft_logout":"true"}"#);
        assert!(matches!(out, Error::LoggedOut { soft: false }));
        assert!(told(403, None, r#"{"errcode":"M_FORBIDDEN","error":{"text":"no"}}"#).is_forbidden());
    }
}
