//! Configuration: defaults ← TOML file ← environment ← flags.
//!
//! A [`Config`] that exists is valid: every setting is known, of its type and possible, and at most one
//! source is named for each secret. The secrets themselves are read when they are needed
//! ([`SecretSource::read`]), so a command that needs none works where none can be read.
//!
//! * **File**: `--config`, else `BACKSCROLL_CONFIG`, else `./backscroll.toml`, else
//!   `/etc/backscroll/backscroll.toml`. A named file must be there. Paths in it are relative to it.
//! * **Environment**: `BACKSCROLL_SECTION__KEY`, and `DATABASE_URL` where nothing else names a database.
//!   An empty variable counts as unset. Lists are `["a", "b"]` or `a,b`.
//! * **Unknown settings** are refused in both, with the nearest name. Let pass are `BACKSCROLL_DEMO_…`, `_SYNAPSE_…` and
//!   `_TEST_…`, which our scripts read, and `_SERVICE_…` and `_PORT…`, which Kubernetes makes beside a service called
//!   `backscroll`.
//! * **Secrets**: a systemd credential (`access_token`, `database_url`) goes before anything else, for it is
//!   given to this very service. Otherwise a secret has one source: its file or its value; both are refused.

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

pub use database::{Database, DatabaseUrl};
pub use environment::Environment;
pub use error::{Error, Unknown};
pub use layers::Origin;
pub use rooms::{Choice, Choices, Rooms};
pub use secret::SecretSource;

/// The documented file that `backscroll config example` prints: every setting with its default.
pub const EXAMPLE: &str = include_str!("../../deploy/backscroll.example.toml");

/// Everything the operator has decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// The homeserver and who we are there.
    pub homeserver: Homeserver,
    /// The database, or none for the embedded one.
    pub database: Database,
    /// Where the embedded database and all else of ours lies; absolute.
    pub data_dir: PathBuf,
    /// Why it is that directory: a file and line, a variable, or the default of whom.
    pub data_dir_origin: Origin,
    /// Which rooms are archived.
    pub rooms: Rooms,
    /// How history is fetched.
    pub backfill: Backfill,
    /// What a redaction does to what is archived.
    pub redactions: RedactionPolicy,
    /// What is logged and how.
    pub log: LogSettings,
    /// Where health and metrics are served, if at all.
    pub http_listen: Option<SocketAddr>,
    /// Where PostgreSQL's programs are, from `BACKSCROLL_POSTGRES_BIN`.
    pub postgres_bin: Option<PathBuf>,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Legal but unwise choices, one sentence each, to be logged once telemetry has started.
    pub warnings: Vec<String>,
    shown: Vec<show::Shown>,
}

/// The homeserver and who we are there.
#[derive(Clone, Debug)]
pub struct Homeserver {
    url: Option<Url>,
    token: Option<SecretSource>,
    user: Option<String>,
    password: Option<SecretSource>,
    /// How long one `/sync` may wait for news.
    pub sync_timeout: Duration,
    /// How long the homeserver must go on refusing something before it is believed.
    pub patience: Duration,
}

/// How to prove who we are.
#[derive(Clone, Debug)]
pub enum Credentials {
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
    /// The base URL, https unless the host is loopback or the operator allows otherwise.
    pub fn url(&self) -> Result<&Url, Error> {
        self.url.as_ref().ok_or(Error::Missing {
            key: "homeserver.url",
            remedy: "write `url = \"https://matrix.example.org\"` under [homeserver] in backscroll.toml, \
                     or set BACKSCROLL_HOMESERVER__URL",
        })
    }

    /// The access token where there is one, else user and password.
    pub fn credentials(&self) -> Result<Credentials, Error> {
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

    /// User and password where both are set, also beside an access token: to log in again after a logout.
    pub fn password(&self) -> Option<(&str, &SecretSource)> {
        self.user.as_deref().zip(self.password.as_ref())
    }
}

/// How history is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// How many rooms are walked at once; at least 1.
    pub concurrency: usize,
    /// The most events asked for in one request; 1 to 1000.
    pub page_size: u16,
    /// How long after a gap was filled it is looked at again.
    pub recheck_after: Duration,
    /// How long after a walk's end the history is walked again; the last repeats; empty means never.
    pub rewalk_after: Vec<Duration>,
    /// How long after a walk has stalled it is tried again, at first; twice as long after each time that it stalls again.
    pub stalled_after: Duration,
}

/// What a redaction does to what is archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedactionPolicy {
    /// The content goes, as on the homeserver.
    #[default]
    Honour,
    /// The original stays in the archive and out of the views.
    Retain,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// What is logged and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// A level, or directives such as `info,backscroll::sync=debug`; known to parse.
    pub level: String,
}

/// Settings from flags, which go before all others. A secret is never a flag.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(&'static str, &'static str, String)>);

impl Overrides {
    /// Sets `key`, such as `log.level`, because of `flag`, such as `--log-level`, written as in a variable.
    ///
    /// # Panics
    /// If there is no such setting or it is a secret: a mistake in this program, not of its user.
    pub fn set(&mut self, key: &'static str, flag: &'static str, value: impl Into<String>) {
        assert!(settings::KEYS.contains(&key), "{key} is no setting");
        assert!(!keys::SECRET.contains(&key), "{key} is a secret");
        self.0.push((key, flag, value.into()));
    }
}

impl Config {
    /// The configuration of this process; `path` is that of `--config`.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, Error> {
        Self::load_in(&Environment::process(), path, overrides)
    }

    /// The same in an environment of one's own.
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

    /// The effective configuration as TOML, secrets masked, with the origin of every value.
    pub fn show(&self) -> String {
        show::render(&self.shown)
    }
}

/// The file to read, if there is one. A file that was named has to be there.
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

/// Whether a host name or address, in brackets or not, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests;
