//! Sends a request and reads the response, with a size limit and a deadline. Converts failures to [`Error`]s.

use std::time::{Duration, Instant, SystemTime};

use hyper::body::Bytes;
use reqwest::{Response, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;

use super::Error;
use crate::{
    telemetry::{metrics, pulse},
    text::escape,
};

/// The size limit of a response that is always small.
pub(super) const SMALL_CAP: usize = 4 << 20;
/// The longest pause that a server can request.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// How long a server may send nothing within a response.
const SILENCE: Duration = Duration::from_secs(60);
/// The lowest rate, in bytes a second, at which a long response may exceed its deadline.
const SLOWEST: usize = 64 << 10;

#[derive(Deserialize)]
struct StandardError {
    errcode: String,
    // Any type is accepted, because only the code matters.
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    soft_logout: serde_json::Value,
    retry_after_ms: Option<serde_json::Value>,
}

/// Sends one request and reads the whole response, of at most `cap` bytes, before the deadline.
pub(super) async fn send(
    what: &'static str,
    request: reqwest::RequestBuilder,
    deadline: Duration,
    cap: usize,
) -> Result<Vec<u8>, Error> {
    let exchange = async { body(accepted(request).await?, cap).await };
    pulse::within(deadline);
    let start = Instant::now();
    let answer = tokio::time::timeout(deadline, exchange)
        .await
        .unwrap_or(Err(Error::Timeout { path: what, limit_s: deadline.as_secs() }));
    metrics::request(what, answer.as_ref().map_or_else(Error::class, |_| "ok"), start.elapsed());
    pulse::within(Duration::ZERO);
    answer
}

/// Sends one request. Returns the response before its body is read, unless it is an error.
async fn accepted(request: reqwest::RequestBuilder) -> Result<Response, Error> {
    let response = request.send().await.map_err(network)?;
    let (status, wait) = (response.status(), retry_after(&response));
    if status.is_success() {
        return Ok(response);
    }
    // The body of an error is small. Of a larger one only the status is used.
    let body = body(response, SMALL_CAP).await.unwrap_or_default();
    Err(refusal(status, wait, &body))
}

/// A response whose body is read piece by piece. The reader may take any time in between.
#[derive(Debug)]
pub(super) struct Pieces {
    what: &'static str,
    response: Response,
    /// How long the server may take in total, besides the time that is granted for each piece.
    deadline: Duration,
    /// How long the reader has waited so far.
    waited: Duration,
    bytes: usize,
}

impl Pieces {
    /// Sends the request. The server must begin its response within `deadline`, and may then take as long as
    /// [`SLOWEST`] allows.
    pub(super) async fn ask(
        what: &'static str,
        request: reqwest::RequestBuilder,
        deadline: Duration,
    ) -> Result<Self, Error> {
        pulse::within(deadline);
        let start = Instant::now();
        let response = tokio::time::timeout(deadline, accepted(request))
            .await
            .unwrap_or(Err(Error::Timeout { path: what, limit_s: deadline.as_secs() }))
            .inspect_err(|error| metrics::request(what, error.class(), start.elapsed()))?;
        Ok(Self { what, response, deadline, waited: start.elapsed(), bytes: 0 })
    }

    /// The next piece. `None`: the response has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let seconds = u64::try_from(self.bytes / SLOWEST).unwrap_or(u64::MAX);
        let patience = self.deadline.saturating_add(Duration::from_secs(seconds)).saturating_sub(self.waited);
        pulse::within(patience.min(SILENCE));
        let start = Instant::now();
        let piece = tokio::time::timeout(patience.min(SILENCE), self.response.chunk()).await;
        self.waited += start.elapsed();
        let piece = match piece {
            Ok(piece) => piece.map_err(network),
            Err(_) => Err(Error::Timeout { path: self.what, limit_s: self.waited.as_secs() }),
        };
        if !matches!(piece, Ok(Some(_))) {
            metrics::request(self.what, piece.as_ref().map_or_else(Error::class, |_| "ok"), self.waited);
        }
        pulse::within(Duration::ZERO);
        self.bytes += piece.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
        piece
    }
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
    // The URL is not logged: it contains pagination tokens, ids and a filter.
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

/// The error for a status that is not a success. The error code takes precedence over the status, which proxies may
/// set (P125).
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
    let is_refusal = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    match error {
        Some(error) if is_refusal && matches!(&*error.errcode, "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => {
            Error::LoggedOut { soft: error.soft_logout == true }
        }
        Some(error) if is_refusal && error.errcode == "M_USER_DEACTIVATED" => Error::Deactivated,
        Some(error) if !status.is_server_error() => Error::Api {
            status,
            errcode: escape(&error.errcode).chars().take(100).collect(),
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
    fn refusals_are_distinguished() {
        let error_of = |status: u16, wait: Option<u64>, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            refusal(status, wait.map(Duration::from_secs), body.as_bytes())
        };
        let wait = |error: Error| match error {
            Error::RateLimited { after } => after,
            other => panic!("{other:?}"),
        };
        let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":1500}"#;
        assert_eq!(wait(error_of(429, Some(3), limited)), Some(Duration::from_secs(3)));
        assert_eq!(wait(error_of(429, None, limited)), Some(Duration::from_millis(1500)));
        assert_eq!(wait(error_of(429, None, "<html>")), None);
        assert_eq!(wait(error_of(429, None, r#"{"errcode":"X","retry_after_ms":-1}"#)), None);
        assert_eq!(wait(error_of(429, None, r#"{"errcode":"X","retry_after_ms":1e12}"#)), Some(LONGEST_WAIT));
        assert_eq!(
            wait(error_of(429, None, r#"{"errcode":"X","retry_after_ms":"20"}"#)),
            Some(Duration::from_millis(20))
        );
        assert!(matches!(error_of(503, Some(3), "<html>"), Error::Unavailable { .. }));
        assert!(matches!(error_of(502, None, "<html>"), Error::Server { .. }));
        assert!(matches!(error_of(403, None, "<html>"), Error::Server { .. }));
        assert!(matches!(error_of(500, None, r#"{"errcode":"M_UNKNOWN"}"#), Error::Server { .. }));
        assert!(error_of(403, None, r#"{"errcode":"M_FORBIDDEN"}"#).is_forbidden());
        assert!(error_of(400, None, r#"{"errcode":"M_UNKNOWN"}"#).is_bad_token());
        let out = error_of(401, None, r#"{"errcode":"M_UNKNOWN_TOKEN","soft_logout":true}"#);
        assert!(matches!(out, Error::LoggedOut { soft: true }));
        let out = error_of(401, None, r#"{"errcode":"M_UNKNOWN_TOKEN","error":null,"soft_logout":"true"}"#);
        assert!(matches!(out, Error::LoggedOut { soft: false }));
        assert!(error_of(403, None, r#"{"errcode":"M_FORBIDDEN","error":{"text":"no"}}"#).is_forbidden());
    }
}
