//! Secrets: where they are stored, and how they are read when they are needed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Error, Origin, file};

/// The largest secret. A larger file is not a token, password or URL.
const LONGEST: u64 = 16 * 1024;

/// In this directory a file may be readable by others, because the container engine protects the directory.
const GUARDED: &str = "/run/secrets";

/// The kind of a secret, which decides which characters it may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Visible ASCII, because it is sent in an HTTP header.
    AccessToken,
    /// Any characters except control characters.
    Password,
    /// Any characters except control characters.
    Passphrase,
    /// A recovery key, which may have spaces, or the passphrase of secret storage.
    RecoveryKey,
    /// A connection string, which is checked further when it is parsed.
    DatabaseUrl,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::AccessToken => "access token",
            Self::Password => "password",
            Self::Passphrase => "passphrase",
            Self::RecoveryKey => "recovery key",
            Self::DatabaseUrl => "database URL",
        }
    }

    fn allows(self, c: char) -> bool {
        match self {
            Self::AccessToken => c.is_ascii_graphic(),
            Self::Password | Self::Passphrase | Self::RecoveryKey | Self::DatabaseUrl => !c.is_control(),
        }
    }
}

/// The source of a secret. It is read only when it is needed, so that a command that does not need it works without
/// it. A token that was changed on disk is used after reading again.
#[derive(Clone)]
pub(crate) struct SecretSource {
    kind: Kind,
    origin: Origin,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// A file with a systemd credential, which systemd protects.
    Credential(PathBuf),
    File(PathBuf, Vec<PathBuf>),
    Value(SecretString),
}

impl SecretSource {
    pub(super) fn credential(kind: Kind, path: PathBuf) -> Self {
        Self { kind, origin: Origin::Credential(path.clone()), place: Place::Credential(path) }
    }

    /// A file that only its owner may read, unless it is in the credentials directory or in `/run/secrets`.
    pub(super) fn file(kind: Kind, path: PathBuf, credentials: Option<PathBuf>) -> Self {
        let origin = Origin::File { path: path.clone(), line: None };
        let guarded = credentials.into_iter().chain([PathBuf::from(GUARDED)]);
        Self { kind, origin, place: Place::File(path, guarded.collect()) }
    }

    /// A file with the passphrase of key files.
    pub(crate) fn passphrase_file(path: PathBuf) -> Self {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::file(Kind::Passphrase, path, credentials)
    }

    /// A value from the environment or from a configuration file. It is checked at once.
    pub(super) fn value(kind: Kind, origin: Origin, value: &str) -> Result<Self, Error> {
        let source = Self { kind, origin, place: Place::Value(value.into()) };
        source.read().map(|_| source)
    }

    /// Where it comes from. Does not contain the secret.
    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the value itself is configured, not a file.
    pub(super) const fn is_value(&self) -> bool {
        matches!(self.place, Place::Value(_))
    }

    /// Reads the secret.
    pub(crate) fn read(&self) -> Result<SecretString, Error> {
        match &self.place {
            Place::Value(value) => self.check(value.expose_secret()),
            Place::Credential(path) => self.open(path, None),
            Place::File(path, guarded) => self.open(path, Some(guarded)),
        }
    }

    fn open(&self, path: &Path, guarded: Option<&[PathBuf]>) -> Result<SecretString, Error> {
        let unreadable =
            |error: io::Error| self.problem(format!("cannot be read: {error}{}", file::remedy(&error)));
        let (file, metadata) = file::open(path).map_err(unreadable)?;
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 && !guarded.is_none_or(|guarded| lies_in(path, guarded)) {
            return Err(self.problem(format!(
                "may be read by others (mode {:04o}): run `chmod 600` on it",
                mode & 0o7777
            )));
        }
        let mut text = String::new();
        let read = file.take(LONGEST + 1).read_to_string(&mut text);
        match read {
            Ok(length) if length as u64 > LONGEST => {
                Err(self.problem("is far too long: check that this is the right file"))
            }
            Ok(_) => self.check(without_newline(&text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(self.problem("is not UTF-8 text: check that this is the right file"))
            }
            Err(error) => Err(unreadable(error)),
        }
    }

    fn check(&self, text: &str) -> Result<SecretString, Error> {
        if text.is_empty() {
            Err(self.problem("is empty: write the secret there"))
        } else if text.starts_with('\u{feff}') {
            Err(self.problem("begins with a byte order mark: save it as UTF-8 without one"))
        } else if text.chars().all(|c| self.kind.allows(c)) {
            Ok(text.into())
        } else {
            Err(self.problem(
                "contains characters that are not allowed (control characters, a second line, or spaces): the secret \
                 must be the only text",
            ))
        }
    }

    pub(super) fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Secret { what: self.kind.name(), origin: self.origin.clone(), problem: problem.into() }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kind.name(), self.origin)
    }
}

/// Removes the newline that editors and `echo` append.
fn without_newline(text: &str) -> &str {
    let line = text.strip_suffix('\n');
    line.map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Whether a path, after following links, is below one of these directories.
fn lies_in(path: &Path, directories: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    let mut directories = directories.iter().filter_map(|d| d.canonicalize().ok());
    directories.any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: impl AsRef<[u8]>, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn read(text: impl AsRef<[u8]>, mode: u32) -> Result<String, String> {
        let (_directory, path) = file(text, mode);
        let read = SecretSource::file(Kind::AccessToken, path, None).read();
        read.map(|secret| secret.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_newline_is_trimmed_and_no_more() {
        assert_eq!(read("syt_a\n", 0o600).unwrap(), "syt_a");
        assert_eq!(read("syt_a\r\n", 0o600).unwrap(), "syt_a");
        assert_eq!(read("syt_a", 0o400).unwrap(), "syt_a");
        for text in ["syt_a\n\n", "syt_a\r", " syt_a", "a\u{1b}[2Jb", "a\0", "é"] {
            let error = read(text, 0o600).unwrap_err();
            assert!(error.contains("are not allowed"), "{error}");
            assert!(!error.contains("syt_a"), "{error}");
        }
        assert!(read("", 0o600).unwrap_err().ends_with("is empty: write the secret there"));
        assert!(read("\r\n", 0o600).unwrap_err().ends_with("is empty: write the secret there"));
        assert!(read([0xff, 0xfe], 0o600).unwrap_err().contains("is not UTF-8 text"));
        assert!(read("\u{feff}syt_a\n", 0o600).unwrap_err().contains("byte order mark"));
        let long = "a".repeat(20_000);
        assert!(read(long, 0o600).unwrap_err().contains("too long"));
    }

    /// Nobody writes into the pipe: to open it as a file would be to wait for ever.
    #[test]
    fn what_is_no_file_is_called_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&inside("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
        for (path, what) in [
            (inside("pipe"), "it is a pipe"),
            (inside("socket"), "it is a socket"),
            (directory.path().to_owned(), "it is a directory"),
            (PathBuf::from("/dev/zero"), "it is a device"),
            (inside("missing"), "create it, or correct the path"),
        ] {
            for source in [
                SecretSource::file(Kind::Password, path.clone(), None),
                SecretSource::credential(Kind::AccessToken, path),
            ] {
                let error = source.read().unwrap_err().to_string();
                assert!(error.contains("cannot be read: ") && error.contains(what), "{error}");
            }
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_unless_its_directory_is_guarded() {
        for mode in [0o640, 0o604, 0o644, 0o620] {
            let error = read("syt_a", mode).unwrap_err();
            assert!(error.contains("chmod 600") && !error.contains("syt_a"), "{error}");
        }
        let (directory, path) = file("syt_a\n", 0o644);
        let credentials = Some(directory.path().to_owned());
        assert!(SecretSource::file(Kind::AccessToken, path.clone(), credentials).read().is_ok());
        assert!(SecretSource::credential(Kind::AccessToken, path.clone()).read().is_ok());

        let (outside, link) = (path, directory.path().join("d"));
        fs::create_dir(&link).unwrap();
        std::os::unix::fs::symlink(outside, link.join("token")).unwrap();
        let source = SecretSource::file(Kind::AccessToken, link.join("token"), Some(link));
        assert!(source.read().is_err(), "a link out of the guarded directory");
    }

    #[test]
    fn it_is_read_again_each_time() {
        let (_directory, path) = file("old", 0o600);
        let source = SecretSource::file(Kind::AccessToken, path.clone(), None);
        assert_eq!(source.read().unwrap().expose_secret(), "old");
        fs::write(&path, "new").unwrap();
        assert_eq!(source.read().unwrap().expose_secret(), "new");
        fs::remove_file(&path).unwrap();
        assert!(source.read().unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn a_password_may_have_spaces_and_any_letters() {
        let origin = Origin::Environment("P".to_owned());
        let value = |text| SecretSource::value(Kind::Password, origin.clone(), text);
        assert!(value("korrekt hör se").is_ok());
        assert!(value("a\tb").is_err());
        let shown = format!("{:?}", value("hunter2").unwrap());
        assert_eq!(shown, "password in environment variable P");
    }
}
