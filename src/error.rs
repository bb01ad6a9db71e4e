//! The sum of what can go wrong, and its verdict.

use std::time::Duration;

use crate::{archive, matrix};

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After a pause of the loop's own choice, see [`crate::backoff`].
    Backoff,
    /// After the pause that the other side asked for.
    After(Duration),
    /// Not before a person has done something.
    Never,
}

/// An error of a loop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the homeserver.
    #[error("failed to {0}")]
    Matrix(#[from] matrix::Error),
    /// Of the database.
    #[error("failed to {0}")]
    Archive(#[from] archive::Error),
}

impl Error {
    /// Whether another try may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Matrix(error) => error.retry(),
            Self::Archive(error) => error.retry(),
        }
    }

    /// Every [`class`](Self::class).
    pub const CLASSES: [&str; 10] = [
        "network",
        "timeout",
        "too_large",
        "rate_limited",
        "server",
        "refused",
        "logged_out",
        "malformed",
        "setup",
        "database",
    ];

    /// The kind of error in one word, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Matrix(error) => error.class(),
            Self::Archive(_) => "database",
        }
    }

    /// The process's exit code if this ends it (sysexits).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Matrix(error @ matrix::Error::Api { .. }) if error.retry() == Retry::Never => 77,
            Self::Matrix(matrix::Error::LoggedOut { .. }) => 77,
            Self::Matrix(matrix::Error::Url(_) | matrix::Error::Credentials(_)) => 78,
            Self::Matrix(_) => 69,
            Self::Archive(error) => error.exit_code(),
        }
    }
}
