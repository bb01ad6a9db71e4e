//! The error of a loop: an error of the homeserver or of the database, whether to retry, and the exit code.

mod exit;

pub use exit::Exit;

use crate::{archive, backoff::Retry, matrix};

/// An error of a loop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the homeserver.
    #[error("failed to {0}")]
    Matrix(#[from] matrix::Error),
    /// An error of the database.
    #[error("failed to {0}")]
    Archive(#[from] archive::Error),
}

impl Error {
    /// Whether and when to retry.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Matrix(error) => error.retry(),
            Self::Archive(error) => error.retry(),
        }
    }

    /// The kind of error in one word, for metrics.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Matrix(error) => error.class(),
            Self::Archive(_) => "database",
        }
    }

    /// The exit code of a process that ends with this error.
    pub(crate) fn exit_code(&self) -> Exit {
        match self {
            Self::Matrix(error) if error.is_of_the_account() => Exit::Refused,
            Self::Matrix(matrix::Error::Url(_) | matrix::Error::Credentials(_)) => Exit::Configuration,
            Self::Matrix(_) => Exit::Unavailable,
            Self::Archive(error) => error.exit_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the texts of errors that are shown after "failed to" may begin with.
    const VERBS: [&str; 23] = [
        "add", "archive", "ask", "become", "begin", "complete", "do", "find", "get", "hold", "log",
        "migrate", "move", "open", "reach", "read", "remain", "send", "store", "take", "use", "walk",
        "write",
    ];

    /// The text of each variant as it stands in a source file, its fields not filled in.
    fn texts(source: &str) -> Vec<String> {
        let attributes = source.split("#[error(").skip(1);
        attributes
            .map(|attribute| {
                let text = attribute.split_once('"').expect("an error has a text").1;
                text.split_once('"').expect("a text ends").0.to_owned()
            })
            .collect()
    }

    #[test]
    fn every_error_can_follow_failed_to() {
        for source in [include_str!("../archive/error.rs"), include_str!("../matrix/error.rs")] {
            let texts = texts(source);
            assert!(texts.len() > 9, "each variant has one");
            for text in texts {
                let first = text.split(' ').next().unwrap_or_default();
                assert!(VERBS.contains(&first), "failed to {text}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_secret_makes_a_sentence() {
        let problem = "the access token in /etc/token is empty".to_owned();
        let error = Error::from(matrix::Error::Credentials(problem));
        assert_eq!(error.to_string(), "failed to log in: the access token in /etc/token is empty");
        assert_eq!(error.exit_code(), Exit::Configuration);
    }
}
