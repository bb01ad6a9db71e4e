//! The errors of the configuration.

use std::fmt;
use std::path::PathBuf;

use super::Origin;
use crate::{Exit, text::Printable};

/// A configuration that cannot be used. Every text names the place and, if there is one, the remedy. No text contains
/// the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that `--config` or `BACKSCROLL_CONFIG` names does not exist.
    #[error("configuration file {} does not exist ({named_by})", .path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
        /// What names it.
        named_by: &'static str,
    },
    /// A configuration file exists but cannot be read.
    #[error("configuration file {} cannot be read: {source}{}", .path.display(), super::file::remedy(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A configuration file is not TOML. The offending line is not quoted: it may hold a secret.
    #[error("{}, line {line}, column {column}: not valid TOML: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The parser's message.
        message: String,
    },
    /// Settings that do not exist, one on each line.
    #[error("{}", Lines(.0))]
    Unknown(Vec<Unknown>),
    /// A value of the wrong type.
    #[error("{origin}: `{}`: found {found}, expected {expected}", Printable(.key))]
    WrongType {
        /// Where the value stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What was found: the value itself only if it cannot be a secret.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A value of the right type that is not allowed.
    #[error("{origin}: `{}` {problem}", Printable(.key))]
    Invalid {
        /// Where the value stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A setting that the command needs is not set.
    #[error("`{key}` is not set: {remedy}")]
    Missing {
        /// The setting.
        key: &'static str,
        /// How to set it.
        remedy: &'static str,
    },
    /// A secret cannot be read from its source.
    #[error("the {what} in {origin} {problem}")]
    Secret {
        /// `access token`, `password` or `database URL`.
        what: &'static str,
        /// File, credential or variable.
        origin: Origin,
        /// What is wrong with it, never its value.
        problem: String,
    },
}

impl Error {
    /// The exit code of all these errors.
    pub const fn exit_code(&self) -> Exit {
        Exit::Configuration
    }

    pub(super) fn invalid(key: &str, origin: Origin, problem: impl Into<String>) -> Self {
        Self::Invalid { origin, key: key.to_owned(), problem: problem.into() }
    }
}

/// A setting that does not exist.
#[derive(Debug)]
pub struct Unknown {
    /// Where it stands.
    pub origin: Origin,
    /// As it was written.
    pub name: String,
    /// The most similar setting, as it would be written there.
    pub nearest: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unknown setting", self.origin)?;
        if !matches!(self.origin, Origin::Environment(_)) {
            write!(f, " `{}`", Printable(&self.name))?;
        }
        match &self.nearest {
            Some(nearest) => write!(f, ", did you mean `{nearest}`?"),
            None => write!(f, "; `backscroll config example` lists them all"),
        }
    }
}

struct Lines<'a>(&'a [Unknown]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, unknown) in self.0.iter().enumerate() {
            write!(f, "{}{unknown}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
