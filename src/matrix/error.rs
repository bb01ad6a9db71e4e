//! What can go wrong between us and the homeserver, and whether it is worth another try.

use std::time::Duration;

use reqwest::StatusCode;

use crate::backoff::Retry;

/// 403 to every request: the administrator has closed the server for a while, or it has too many users.
const CLOSED: &str = "M_RESOURCE_LIMIT_EXCEEDED";
/// A locked account is unlocked by hand, with its sessions kept (P129).
const LOCKED: &str = "M_USER_LOCKED";

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
    /// 401 or 403 `M_USER_DEACTIVATED`: the account is no more.
    #[error(
        "use the account: it is deactivated on the homeserver; archive as another one, into another database"
    )]
    Deactivated,
    /// 403 to a login with the password.
    #[error("log in with the password: the homeserver refuses user or password: {message}")]
    LoginRefused {
        /// The server's words, escaped.
        message: String,
    },
    /// A pagination token that is too long for a URL. An earlier version of Backscroll may have stored it.
    #[error("ask the homeserver: the pagination token is too long to be sent back to it")]
    UnusableToken,
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
        // serde's message may quote the offending value, so only the place is reported.
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
            Self::LoggedOut { .. } | Self::Deactivated | Self::LoginRefused { .. } => "logged_out",
            Self::Malformed(_) | Self::UnusableToken => "malformed",
            Self::Url(_) | Self::Credentials(_) => "setup",
        }
    }

    /// Whether another try may help. This is the one place that decides it. Nothing but the codes for a token or an account
    /// that is no more proves that the account is out: any other refusal may be that of a proxy, or pass.
    pub fn retry(&self) -> Retry {
        match self {
            Self::RateLimited { after: Some(after) } | Self::Unavailable { after } => Retry::After(*after),
            Self::Api { errcode, .. } if errcode == LOCKED || errcode == CLOSED => Retry::Backoff,
            _ if self.is_too_long() => Retry::Refused,
            Self::RateLimited { after: None }
            | Self::Network(_)
            | Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::Server { .. }
            | Self::Malformed(_) => Retry::Backoff,
            Self::Api { .. } | Self::LoginRefused { .. } | Self::UnusableToken | Self::Credentials(_) => {
                Retry::Refused
            }
            Self::LoggedOut { .. } | Self::Deactivated | Self::Url(_) => Retry::Never,
        }
    }

    /// Whether the daemon cannot go on if this lasts: there is no token to ask with.
    pub fn leaves_no_token(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::Credentials(_))
    }

    /// Whether another token, or another login, may help.
    pub fn is_logged_out(&self) -> bool {
        matches!(self, Self::LoggedOut { .. } | Self::Deactivated)
    }

    /// Whether it is about who asks, and not about what is asked for.
    pub fn is_of_the_account(&self) -> bool {
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        match self {
            Self::Api { status, errcode, .. } => refused.contains(status) && errcode != CLOSED,
            Self::LoginRefused { .. } => true,
            _ => self.is_logged_out(),
        }
    }

    /// Whether a smaller page may help (P9, P10, P11).
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Server { .. } | Self::Network(_) => true,
            Self::Api { status, .. } => {
                [StatusCode::FORBIDDEN, StatusCode::PAYLOAD_TOO_LARGE].contains(status)
            }
            _ => false,
        }
    }

    /// Whether the server may refuse the pagination token that was sent along: Synapse says 400 `M_UNKNOWN`, others
    /// `M_INVALID_PARAM` or `M_UNKNOWN_POS` (P13, P134); a proxy says of a long one that the URL is too long. A single such
    /// answer is no proof.
    pub fn is_bad_token(&self) -> bool {
        self.is_too_long()
            || matches!(self, Self::UnusableToken)
            || matches!(self, Self::Api { status, .. } if *status == StatusCode::BAD_REQUEST)
    }

    /// Whether the request's head was too long for the server or a proxy before it.
    fn is_too_long(&self) -> bool {
        let too_long = [StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
        matches!(self, Self::Api { status, .. } | Self::Server { status } if too_long.contains(status))
    }

    /// Whether the server refuses access to what was asked for.
    pub fn is_forbidden(&self) -> bool {
        let Self::Api { status, errcode, .. } = self else { return false };
        *status == StatusCode::FORBIDDEN && errcode != CLOSED
    }

    /// Whether the server has no such thing, or does not know the endpoint.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}
