//! The configuration. Sources in order of precedence, the lowest first: defaults, TOML file, environment, flags.
//!
//! A [`Config`] is always valid: every setting is known, has the right type and an allowed value, and each secret has
//! at most one source. A secret is read only when it is needed ([`SecretSource::read`]), so a command that needs none
//! works even if the secret cannot be read.
//!
//! * **File**: `--config`, else `BACKSCROLL_CONFIG`, else `./backscroll.toml`, else
//!   `/etc/backscroll/backscroll.toml`. A named file must exist. Paths in it are relative to its directory.
//! * **Environment**: `BACKSCROLL_SECTION__KEY`, and `DATABASE_URL` if nothing else names a database.
//!   An empty variable counts as unset. Lists are `["a", "b"]` or `a,b`.
//! * **Unknown settings** are errors in both; the error suggests a similar name. Exceptions are variables that are not
//!   meant as settings: `BACKSCROLL_DEMO_…`, `_SYNAPSE_…` and `_TEST_…`, which our scripts read, and `_SERVICE_…` and
//!   `_PORT…`, which Kubernetes sets for a service called `backscroll`.
//! * **Secrets**: a systemd credential (`access_token`, `database_url`) takes precedence over everything else, because
//!   systemd passes it to this service only. Otherwise a secret has one source, its file or its value. Setting both is
//!   an error.

mod database;
mod document;
mod environment;
mod error;
mod file;
mod keys;
mod layers;
mod rooms;
mod secret;
mod settings;
mod show;
mod span;
mod validate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

pub(crate) use database::{Database, DatabaseUrl};
pub use environment::Environment;
pub use error::{Error, Unknown};
pub(crate) use layers::Origin;
pub(crate) use rooms::{Choice, Choices, Rooms};
pub(crate) use secret::SecretSource;

/// The documented file that `backscroll config example` prints: every setting with its default.
pub(crate) const EXAMPLE: &str = include_str!("../../deploy/backscroll.example.toml");

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The homeserver, and the account on it.
    pub(crate) homeserver: Homeserver,
    /// The database: the configured one, or the private server.
    pub(crate) database: Database,
    /// The absolute path of the directory with the private server's cluster.
    pub(crate) data_dir: PathBuf,
    /// Where this path comes from: a file and line, a variable, or the default.
    pub(crate) data_dir_origin: Origin,
    /// Which rooms are archived.
    pub(crate) rooms: Rooms,
    /// How history is fetched.
    pub(crate) backfill: Backfill,
    /// What a redaction does to archived events.
    pub(crate) redactions: RedactionPolicy,
    /// How often each room is verified. `None`: never.
    pub(crate) verify_every: Option<Duration>,
    /// Whether a room is sealed once nothing wrong was found in it.
    pub(crate) seal_verified: bool,
    /// Whether signed events and servers' keys are stored.
    pub(crate) keep_evidence: bool,
    /// How encrypted messages are read.
    pub(crate) encryption: Encryption,
    /// What is logged and how.
    pub(crate) log: LogSettings,
    /// The address that serves health and metrics, if any.
    pub(crate) http_listen: Option<SocketAddr>,
    /// The directory of PostgreSQL's programs, from `BACKSCROLL_POSTGRES_BIN`.
    pub(crate) postgres_bin: Option<PathBuf>,
    /// The configuration file, if there is one.
    pub(crate) file: Option<PathBuf>,
    /// Warnings about allowed but unwise settings, one sentence each. They are logged once telemetry has started.
    pub(crate) warnings: Vec<String>,
    shown: Vec<show::Shown>,
}

/// The homeserver, and the account on it.
#[derive(Clone, Debug)]
pub(crate) struct Homeserver {
    url: Option<Url>,
    token: Option<SecretSource>,
    user: Option<String>,
    password: Option<SecretSource>,
    /// The timeout of the `/sync` long poll.
    pub(crate) sync_timeout: Duration,
    /// How long the homeserver must keep refusing something before the refusal counts as final.
    pub(crate) patience: Duration,
}

/// How to log in.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// An access token.
    Token(SecretSource),
    /// A user and a password to log in with.
    Password {
        /// A user id or its localpart.
        user: String,
        /// The password.
        password: SecretSource,
    },
}

impl Homeserver {
    /// The base URL. It is https unless the host is loopback or the operator allows http.
    pub(crate) fn url(&self) -> Result<&Url, Error> {
        self.url.as_ref().ok_or(Error::Missing {
            key: "homeserver.url",
            remedy: "write `url = \"https://matrix.example.org\"` under [homeserver] in backscroll.toml, \
                     or set BACKSCROLL_HOMESERVER__URL",
        })
    }

    /// The access token if there is one, else user and password.
    pub(crate) fn credentials(&self) -> Result<Credentials, Error> {
        match (&self.token, self.password()) {
            (Some(token), _) => Ok(Credentials::Token(token.clone())),
            (None, Some((user, password))) => {
                Ok(Credentials::Password { user: user.to_owned(), password: password.clone() })
            }
            (None, None) => Err(Error::Missing {
                key: "homeserver.access_token_file",
                remedy: "put an access token alone into a file that only you can read and name that file; \
                         `backscroll login` can get one",
            }),
        }
    }

    /// User and password if both are set, also in addition to an access token: to log in again after a logout.
    pub(crate) fn password(&self) -> Option<(&str, &SecretSource)> {
        self.user.as_deref().zip(self.password.as_ref())
    }
}

/// How history is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backfill {
    /// How many rooms are walked at once, at least 1.
    pub(crate) concurrency: usize,
    /// The largest number of events to request in one page, 1 to 1000.
    pub(crate) page_size: u16,
    /// How long after a gap was filled it is walked again.
    pub(crate) recheck_after: Duration,
    /// How long after a walk's end the history is walked again. The last value repeats. Empty: never.
    pub(crate) rewalk_after: Vec<Duration>,
    /// First retry delay after a walk has stalled. It doubles each time the walk stalls again.
    pub(crate) stalled_after: Duration,
}

/// How encrypted messages are read.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    /// Files with exported sessions, which are read at start and when they have changed.
    pub(crate) key_files: Vec<PathBuf>,
    /// Their passphrase. It is there if there are files.
    pub(crate) passphrase: Option<SecretSource>,
    /// The recovery key, or the passphrase of secret storage. `None`: the server-side key backup is not read.
    pub(crate) recovery_key: Option<SecretSource>,
    /// Whether what was decrypted is stored.
    pub(crate) keep_plaintext: bool,
    /// Whether the device of the token publishes keys and receives those of rooms.
    pub(crate) device: bool,
    /// The credential that the key of the device's own keys is made from. `None`: it is a file in `data_dir`.
    pub(crate) device_key: Option<SecretSource>,
}

/// What a redaction does to archived events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RedactionPolicy {
    /// The content is removed, as on the homeserver.
    #[default]
    Honour,
    /// The original is kept in the archive, but not shown in the views.
    Retain,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// What is logged, and in which format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// The format of log lines.
    pub(crate) format: LogFormat,
    /// A level, or directives such as `info,backscroll::sync=debug`. It is known to be valid.
    pub(crate) level: String,
}

/// Settings from flags, which take precedence over all others. A secret is never a flag.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(&'static str, &'static str, String)>);

impl Overrides {
    /// Sets `key`, such as `log.level`, from `flag`, such as `--log-level`. The value is written as in a variable.
    ///
    /// # Panics
    /// If there is no such setting, or if it is a secret. Both are bugs in this program.
    pub(crate) fn set(&mut self, key: &'static str, flag: &'static str, value: impl Into<String>) {
        assert!(settings::KEYS.contains(&key), "{key} is no setting");
        assert!(!keys::SECRET.contains(&key), "{key} is a secret");
        self.0.push((key, flag, value.into()));
    }
}

impl Config {
    /// Reads the configuration of this process. `path`: the value of `--config`.
    pub(crate) fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        Self::load_in(&Environment::process(), path, overrides)
    }

    /// Reads the configuration from another environment.
    pub fn load_in(
        environment: &Environment,
        path: Option<&Path>,
        overrides: &Overrides,
    ) -> Result<Self, Error> {
        let file = find(environment, path)?;
        let document = file.as_deref().map(document::Document::read).transpose()?;
        let layers = layers::Layers::gather(environment, document, overrides)?;
        let config = validate::config(environment, &layers)?;
        Ok(Self { file, ..config })
    }

    /// The effective configuration as TOML, with the origin of every value. Secrets are masked.
    pub(crate) fn show(&self) -> String {
        show::render(&self.shown)
    }
}

/// The file to read, if there is one. A file that was named must exist.
fn find(environment: &Environment, path: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    let named = path.map(|path| (environment.absolute(path), "named by --config")).or_else(|| {
        let variable = environment.path("BACKSCROLL_CONFIG")?;
        Some((variable, "named by BACKSCROLL_CONFIG"))
    });
    match named {
        Some((path, named_by)) if !path.exists() => Err(Error::NotFound { path, named_by }),
        Some((path, _)) => Ok(Some(path)),
        None => Ok(environment.default_files().into_iter().find(|p| p.exists())),
    }
}

/// Whether a host name or address, with or without brackets, is loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests;
