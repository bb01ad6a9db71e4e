//! The errors of requests to the homeserver, and whether to retry them.

use std::time::Duration;

use reqwest::StatusCode;

use crate::backoff::Retry;

/// 403 to every request: the administrator has closed the server temporarily, or it has too many users.
const CLOSED: &str = "M_RESOURCE_LIMIT_EXCEEDED";
/// The account is locked. An administrator can unlock it, and its sessions stay valid (P129).
const LOCKED: &str = "M_USER_LOCKED";

/// A failed request. The texts contain no token, no URL and no event content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed or broke.
    #[error("reach the homeserver: {}", with_cause(.0))]
    Network(#[source] reqwest::Error),
    /// The response was not complete in time.
    #[error("get a response to {path} within {limit_s} s")]
    Timeout {
        /// The endpoint.
        path: &'static str,
        /// The deadline in seconds.
        limit_s: u64,
    },
    /// The response is larger than the limit.
    #[error("read a response of more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// 429.
    #[error("complete the request: the homeserver limits the rate")]
    RateLimited {
        /// The requested pause, if the server names one.
        after: Option<Duration>,
    },
    /// 503 with a `Retry-After`.
    #[error("complete the request: the homeserver is temporarily unavailable")]
    Unavailable {
        /// The requested pause.
        after: Duration,
    },
    /// 5xx, or a response that is not a Matrix error, such as a proxy's HTML page.
    #[error("complete the request: the homeserver returned HTTP status {status}")]
    Server {
        /// The status.
        status: StatusCode,
    },
    /// A Matrix error (specification, "Standard error response").
    #[error("complete the request: the homeserver returned {status} {errcode}: {message}")]
    Api {
        /// The status.
        status: StatusCode,
        /// `M_…`.
        errcode: String,
        /// The server's message, escaped.
        message: String,
    },
    /// 401: the access token is not valid, or is no longer valid.
    #[error(
        "use the access token: the homeserver does not know it, or no longer; get another one, \
         for example with `backscroll login`"
    )]
    LoggedOut {
        /// Whether the device still exists, so that a new login can use it.
        soft: bool,
    },
    /// 401 or 403 `M_USER_DEACTIVATED`: the account was deactivated.
    #[error("use the account: it is deactivated on the homeserver; use another account and another database")]
    Deactivated,
    /// 403 to a login with the password.
    #[error("log in with the password: the homeserver refuses user or password: {message}")]
    LoginRefused {
        /// The server's message, escaped.
        message: String,
    },
    /// A pagination token that is too long for a URL. An earlier version of Backscroll may have stored it.
    #[error("send the request: the pagination token is too long for a URL")]
    UnusableToken,
    /// 200, but the body does not follow the specification.
    #[error("read the homeserver's response to {0}")]
    Malformed(String),
    /// The homeserver's URL is not valid.
    #[error("use the homeserver URL: {0}")]
    Url(&'static str),
    /// The file with the token or password cannot be read.
    #[error("log in: {0}")]
    Credentials(String),
}

/// The error and its innermost cause, which names the problem: a refused connection, a certificate.
fn with_cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl Error {
    pub(super) fn malformed(what: &str, error: &serde_json::Error) -> Self {
        // serde's message may quote the value, so only the position is reported.
        Self::Malformed(format!(
            "{what}: not as specified at line {} column {}",
            error.line(),
            error.column()
        ))
    }

    /// The kind of error in one word, for metrics.
    pub(crate) fn class(&self) -> &'static str {
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

    /// Whether and when to retry; only decided here. Only the codes for an unknown token or a deactivated account
    /// prove that the account cannot be used. Any other refusal may be temporary, or come from a proxy.
    pub(crate) fn retry(&self) -> Retry {
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

    /// Whether the daemon must end if this lasts, because it has no valid token.
    pub(crate) fn leaves_no_token(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::Credentials(_))
    }

    /// Whether another token, or another login, may help.
    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self, Self::LoggedOut { .. } | Self::Deactivated)
    }

    /// Whether it concerns the account or its token, not the request.
    pub(crate) fn is_of_the_account(&self) -> bool {
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        match self {
            Self::Api { status, errcode, .. } => refused.contains(status) && errcode != CLOSED,
            Self::LoginRefused { .. } => true,
            _ => self.is_logged_out(),
        }
    }

    /// Whether a smaller page may help (P9, P10, P11).
    pub(crate) fn wants_smaller_page(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::TooLarge { .. } | Self::Server { .. } | Self::Network(_) => true,
            Self::Api { status, .. } => {
                [StatusCode::FORBIDDEN, StatusCode::PAYLOAD_TOO_LARGE].contains(status)
            }
            _ => false,
        }
    }

    /// Whether the server may have refused the pagination token of the request. Synapse returns 400 `M_UNKNOWN`,
    /// others return `M_INVALID_PARAM` or `M_UNKNOWN_POS` (P13, P134), and a proxy may reject a long URL. A single
    /// such response is no proof.
    pub(crate) fn is_bad_token(&self) -> bool {
        self.is_too_long() || matches!(self, Self::UnusableToken) || self.is_bad_request()
    }

    /// Whether the request's head was too long for the server or a proxy before it.
    fn is_too_long(&self) -> bool {
        let too_long = [StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
        matches!(self, Self::Api { status, .. } | Self::Server { status } if too_long.contains(status))
    }

    /// Whether the server refuses access.
    pub(crate) fn is_forbidden(&self) -> bool {
        let Self::Api { status, errcode, .. } = self else { return false };
        *status == StatusCode::FORBIDDEN && errcode != CLOSED
    }

    /// Whether the server understands the request and refuses it for good.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(self, Self::Api { status, .. } if *status == StatusCode::BAD_REQUEST)
    }

    /// Whether the resource or the endpoint does not exist on the server.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}
