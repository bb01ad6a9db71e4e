//! What can go wrong between us and the homeserver, and whether it is worth another try.

use std::time::Duration;

use reqwest::StatusCode;

use crate::error::Retry;

/// 403 to every request: the administrator has closed the server for a while, or it has too many users.
const CLOSED: &str = "M_RESOURCE_LIMIT_EXCEEDED";

/// A request that did not bring what it asked for. The texts hold no token, no URL and no event content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed or broke.
    #[error("reach the homeserver: {}", with_cause(.0))]
    Network(#[source] reqwest::Error),
    /// No whole answer in time.
    #[error("get an answer to {path} within {limit_s} s")]
    Timeout {
        /// Which endpoint.
        path: &'static str,
        /// The deadline in seconds.
        limit_s: u64,
    },
    /// The answer is larger than we take.
    #[error("take an answer of more than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is read.
        limit_bytes: usize,
    },
    /// 429.
    #[error("ask more: the homeserver limits the rate")]
    RateLimited {
        /// How long it asks us to wait, where it says.
        after: Option<Duration>,
    },
    /// 503 with the time after which to come again.
    #[error("get an answer from the homeserver: it is not available for now")]
    Unavailable {
        /// How long it asks us to wait.
        after: Duration,
    },
    /// 5xx, or an answer that is no Matrix error, such as a proxy's HTML page.
    #[error("get an answer from the homeserver: HTTP status {status}")]
    Server {
        /// The status.
        status: StatusCode,
    },
    /// A Matrix error (specification, "Standard error response").
    #[error("do this on the homeserver: {status} {errcode}: {message}")]
    Api {
        /// The status.
        status: StatusCode,
        /// `M_…`.
        errcode: String,
        /// The server's words, escaped.
        message: String,
    },
    /// 401: the access token is not valid, or not any more.
    #[error(
        "use the access token: the homeserver does not know it (any more); get another one, \
         for instance with `backscroll login`"
    )]
    LoggedOut {
        /// Whether the device is still there, so that a new login may take it up.
        soft: bool,
    },
    /// 200, but not what the specification says.
    #[error("read the homeserver's answer to {0}")]
    Malformed(String),
    /// The homeserver's URL cannot be one.
    #[error("use the homeserver URL: {0}")]
    Url(&'static str),
    /// The file with the token or password cannot be read.
    #[error("log in: {0}")]
    Credentials(String),
}

/// The error and the cause at the bottom of it, which alone says what is wrong: a refused connection, a certificate.
fn with_cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl Error {
    pub(super) fn malformed(what: &str, error: &serde_json::Error) -> Self {
        // serde's message may quote the offending value, so only the place is told.
        Self::Malformed(format!(
            "{what}: not as specified at line {} column {}",
            error.line(),
            error.column()
        ))
    }

    /// The kind of error in one word, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Timeout { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } | Self::Server { .. } => "server",
            Self::Api { .. } => "refused",
            Self::LoggedOut { .. } => "logged_out",
            Self::Malformed(_) => "malformed",
            Self::Url(_) | Self::Credentials(_) => "setup",
        }
    }

    /// Whether another try may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::RateLimited { after: Some(after) } | Self::Unavailable { after } => Retry::After(*after),
            Self::RateLimited { after: None }
            | Self::Network(_)
            | Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::Server { .. }
            | Self::Malformed(_) => Retry::Backoff,
            // A locked account is unlocked by hand, with the session kept (P129); a server that its administrator has closed,
            // or that has too many users, is opened again.
            Self::Api { errcode, .. } if errcode == "M_USER_LOCKED" || errcode == CLOSED => Retry::Backoff,
            Self::Api { .. } | Self::LoggedOut { .. } | Self::Url(_) | Self::Credentials(_) => Retry::Never,
        }
    }

    /// Whether a smaller page may help (P9, P10, P11).
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Server { .. } | Self::Network(_) => true,
            Self::Api { status, .. } => *status == StatusCode::FORBIDDEN,
            _ => false,
        }
    }

    /// Whether the server refuses the token that was sent along: Synapse says 400 `M_UNKNOWN`, others
    /// `M_INVALID_PARAM` or `M_UNKNOWN_POS` (P13, P134).
    pub fn is_bad_token(&self) -> bool {
        matches!(self, Self::Api { status, .. } if *status == StatusCode::BAD_REQUEST)
    }

    /// Whether the server refuses access to what was asked for.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api { status, errcode, .. } if *status == StatusCode::FORBIDDEN && errcode != CLOSED)
    }

    /// Whether the server has no such thing, or does not know the endpoint.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}
