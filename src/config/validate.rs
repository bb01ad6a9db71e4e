//! Checks the settings and makes a valid [`Config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::{
    Backfill, Config, Database, Encryption, Error, Homeserver, LogSettings, Origin, Rooms,
    database::DatabaseUrl,
    environment::Environment,
    is_loopback,
    layers::{DATABASE_URL, Layers},
    rooms::Pattern,
    secret::{Kind, SecretSource},
    settings::{
        BackfillSettings, DatabaseSettings, EncryptionSettings, HomeserverSettings, LogSection, RoomsSettings,
    },
    show,
    span::Span,
};
use crate::{matrix::Token, telemetry::level};

/// Prefixes of the access tokens of Synapse, MAS and the Conduit family.
const TOKEN_LIKE: [&str; 4] = ["syt_", "mat_", "mct_", "MDAx"];

/// The longest room id (Matrix, Appendices, identifiers).
const LONGEST_ID: usize = 255;

/// A year in seconds.
const YEAR: u64 = 366 * 86_400;

pub(super) fn config(environment: &Environment, layers: &Layers) -> Result<Config, Error> {
    let settings = layers.extract()?;
    let check = Check { environment, layers };
    let (data_dir, data_dir_from) = check.data_dir(settings.data_dir)?;
    let homeserver = check.homeserver(settings.homeserver)?;
    let database = check.database(settings.database)?;
    let mut config = Config {
        rooms: check.rooms(settings.rooms)?,
        backfill: check.backfill(&settings.backfill, homeserver.patience)?,
        redactions: settings.redactions.policy,
        verify_every: check.verify_every(settings.verify.every)?,
        seal_verified: settings.verify.seal,
        keep_evidence: settings.evidence.keep,
        encryption: check.encryption(settings.encryption)?,
        log: check.log(settings.log)?,
        http_listen: check.listen(settings.http.listen)?,
        postgres_bin: environment.path("BACKSCROLL_POSTGRES_BIN"),
        file: None,
        warnings: warnings(&homeserver, &database),
        shown: Vec::new(),
        homeserver,
        database,
        data_dir,
        data_dir_origin: match layers.origin("data_dir") {
            Origin::Default(_) => Origin::Default(data_dir_from),
            origin => origin,
        },
    };
    config.shown = show::collect(layers, &config, data_dir_from);
    Ok(config)
}

/// Warnings about allowed but unwise settings.
fn warnings(homeserver: &Homeserver, database: &Database) -> Vec<String> {
    let mut warnings = Vec::new();
    let token = homeserver.token.as_ref().map(SecretSource::origin);
    if let Some(Origin::Environment(name)) = token {
        warnings.push(format!(
            "the access token in {name} can be read by everybody who can inspect this process or container: \
             prefer homeserver.access_token_file"
        ));
    }
    if let Some(url) = homeserver.url.as_ref().filter(|url| !is_safe(url)) {
        warnings.push(format!(
            "{url} is not https: others on the network can read the access token and every message"
        ));
    }
    let file = database.url.as_ref().map(SecretSource::origin);
    if let Some(Origin::File { path, line: Some(_) }) = file
        && others_may_read(path)
    {
        warnings.push(format!(
            "other users can read {}, which contains database.url: run `chmod 600` on it or use database.url_file",
            crate::text::Printable(&path.to_string_lossy())
        ));
    }
    warnings
}

fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// The environment and the layers, which errors need to name the place of a setting.
struct Check<'a> {
    environment: &'a Environment,
    layers: &'a Layers,
}

impl Check<'_> {
    fn invalid(&self, key: &str, problem: impl Into<String>) -> Error {
        let origin = self.layers.origin(super::keys::owner(key));
        let origin = match origin {
            Origin::File { .. } => self.layers.place_in_file(key).unwrap_or(origin),
            other => other,
        };
        Error::invalid(key, origin, problem)
    }

    /// Makes a path absolute. A path in a file is relative to the file's directory.
    fn path(&self, key: &str, text: &str) -> Result<PathBuf, Error> {
        if text.is_empty() {
            return Err(self.invalid(key, "is empty"));
        }
        if text.starts_with('~') {
            return Err(
                self.invalid(key, "begins with `~`, which only a shell expands: write the whole path")
            );
        }
        let base = self.layers.base(key).unwrap_or(Path::new(""));
        Ok(self.environment.absolute(&base.join(text)))
    }

    fn data_dir(&self, set: Option<String>) -> Result<(PathBuf, Option<&'static str>), Error> {
        if let Some(text) = set {
            return Ok((self.path("data_dir", &text)?, None));
        }
        self.environment.default_data_dir().ok_or(Error::Missing {
            key: "data_dir",
            remedy: "HOME is not set either; set data_dir to the directory for the archive",
        })
    }

    fn homeserver(&self, set: HomeserverSettings) -> Result<Homeserver, Error> {
        let url = set.url.map(|text| self.homeserver_url(&text, set.allow_insecure_http));
        if set.user.as_deref() == Some("") {
            return Err(self.invalid("homeserver.user", "is empty"));
        }
        if set.password_file.is_some() && set.user.is_none() {
            return Err(self.invalid("homeserver.password_file", "needs homeserver.user"));
        }
        let password =
            set.password_file.map(|path| self.secret_file(Kind::Password, "homeserver.password_file", &path));
        Ok(Homeserver {
            url: url.transpose()?,
            token: self.token(set.access_token, set.access_token_file)?,
            user: set.user,
            password: password.transpose()?,
            sync_timeout: self.duration("homeserver.sync_timeout", set.sync_timeout, 600)?,
            patience: self.duration("homeserver.patience", set.patience, 86_400)?,
        })
    }

    fn homeserver_url(&self, text: &str, insecure: bool) -> Result<Url, Error> {
        const KEY: &str = "homeserver.url";
        let url = Url::parse(text).ok().filter(Url::has_host);
        let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return Err(self.invalid(KEY, "must be a URL such as `https://matrix.example.org`"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.invalid(KEY, "must not contain a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(self.invalid(KEY, "must end before `?` and `#`"));
        }
        if !is_safe(&url) && !insecure {
            return Err(self.invalid(
                KEY,
                "must be https: with http, others on the network can read the access token \
                 (to allow it, set homeserver.allow_insecure_http = true)",
            ));
        }
        Ok(url)
    }

    fn token(&self, value: Option<String>, file: Option<String>) -> Result<Option<SecretSource>, Error> {
        const VALUE: &str = "homeserver.access_token";
        const FILE: &str = "homeserver.access_token_file";
        if let (Some(_), origin @ Origin::File { .. }) = (&value, self.layers.origin(VALUE)) {
            return Err(Error::invalid(
                VALUE,
                origin,
                format!(
                    "is not allowed in a configuration file: put only the token into a file that only \
                     you can read, and name that file in {FILE}"
                ),
            ));
        }
        let kind = Kind::AccessToken;
        self.secret(kind, "access_token", (VALUE, value), (FILE, file))
    }

    fn database(&self, settings: DatabaseSettings) -> Result<Database, Error> {
        const VALUE: &str = "database.url";
        let fallback = Origin::Environment(DATABASE_URL.to_owned());
        let DatabaseSettings { url, url_file: file, rebuild_indexes } = settings;
        let url = url.filter(|_| file.is_none() || self.layers.origin(VALUE) != fallback);
        let kind = Kind::DatabaseUrl;
        let source = self.secret(kind, "database_url", (VALUE, url), ("database.url_file", file))?;
        if let Some(source) = source.as_ref().filter(|source| source.is_value()) {
            DatabaseUrl::parse(source, &source.read()?)?;
        }
        Ok(Database { url: source, rebuild_indexes })
    }

    /// The source of a secret: a systemd credential, else its file or its value, but not both.
    fn secret(
        &self,
        kind: Kind,
        credential: &str,
        (value_key, value): (&str, Option<String>),
        (file_key, file): (&str, Option<String>),
    ) -> Result<Option<SecretSource>, Error> {
        if let Some(path) = self.environment.credential(credential) {
            return Ok(Some(SecretSource::credential(kind, path)));
        }
        match (value, file) {
            (Some(_), Some(_)) => {
                let other = self.layers.origin(file_key);
                Err(self
                    .invalid(value_key, format!("and `{file_key}` ({other}) are both set: keep one of them")))
            }
            (Some(value), None) => {
                let origin = self.layers.origin(value_key);
                SecretSource::value(kind, origin, &value).map(Some)
            }
            (None, Some(path)) => self.secret_file(kind, file_key, &path).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn secret_file(&self, kind: Kind, key: &str, text: &str) -> Result<SecretSource, Error> {
        let is_secret = TOKEN_LIKE.iter().any(|prefix| text.starts_with(prefix))
            || kind == Kind::DatabaseUrl && text.contains(['=', '@', ':']);
        if is_secret && !self.environment.absolute(Path::new(text)).exists() {
            return Err(self.invalid(key, "contains the secret itself: it must name a file that contains it"));
        }
        let credentials = self.environment.path("CREDENTIALS_DIRECTORY");
        Ok(SecretSource::file(kind, self.path(key, text)?, credentials))
    }

    fn rooms(&self, set: RoomsSettings) -> Result<Rooms, Error> {
        let mut listed = BTreeMap::new();
        for (n, room) in set.room.into_iter().enumerate() {
            let key = format!("rooms.room.{n}.id");
            if let Some(problem) = room_id_problem(&room.id) {
                return Err(self.invalid(&key, problem));
            }
            if let Some(prev_batch) = &room.prev_batch {
                let key = format!("rooms.room.{n}.prev_batch");
                if prev_batch.is_empty() {
                    return Err(self.invalid(&key, "is empty: remove it to begin at the newest event"));
                }
                if Token::new(prev_batch).is_none() {
                    return Err(
                        self.invalid(&key, "is not a token: it is too long for a URL, or contains NUL")
                    );
                }
            }
            if listed.insert(room.id, room.prev_batch).is_some() {
                return Err(self.invalid(&key, "names a room that is already listed"));
            }
        }
        Ok(Rooms::new(
            self.patterns("rooms.include", &set.include)?,
            self.patterns("rooms.exclude", &set.exclude)?,
            listed,
        ))
    }

    fn patterns(&self, key: &str, texts: &[String]) -> Result<Vec<Pattern>, Error> {
        let parse = |text: &String| Pattern::parse(text).map_err(|e| self.invalid(key, e));
        texts.iter().map(parse).collect()
    }

    fn verify_every(&self, every: Option<Span>) -> Result<Option<Duration>, Error> {
        every.map(|every| self.duration("verify.every", every, YEAR)).transpose()
    }

    fn backfill(&self, set: &BackfillSettings, patience: Duration) -> Result<Backfill, Error> {
        let whole = |key: &str, value: u32, most: u16| {
            let value = u16::try_from(value).ok();
            let fits = value.filter(|value| (1..=most).contains(value));
            fits.ok_or_else(|| self.invalid(key, format!("must be from 1 to {most}")))
        };
        let rewalk = "backfill.rewalk_after";
        let rewalks = set.rewalk_after.iter();
        Ok(Backfill {
            concurrency: whole("backfill.concurrency", set.concurrency, 256)?.into(),
            page_size: whole("backfill.page_size", set.page_size, 1000)?,
            recheck_after: self.duration("backfill.recheck_after", set.recheck_after, YEAR)?,
            rewalk_after: rewalks.map(|span| self.duration(rewalk, *span, YEAR)).collect::<Result<_, _>>()?,
            stalled_after: patience,
        })
    }

    fn encryption(&self, set: EncryptionSettings) -> Result<Encryption, Error> {
        const FILES: &str = "encryption.key_files";
        const PASSPHRASE: &str = "encryption.passphrase_file";
        if !set.key_files.is_empty() && set.passphrase_file.is_none() {
            return Err(
                self.invalid(FILES, format!("needs {PASSPHRASE}, a file with the passphrase of the export"))
            );
        }
        let key_files = set.key_files.iter().map(|text| self.path(FILES, text));
        let passphrase =
            set.passphrase_file.map(|path| self.secret_file(Kind::Passphrase, PASSPHRASE, &path));
        let recovery_key = set
            .recovery_key_file
            .map(|path| self.secret_file(Kind::RecoveryKey, "encryption.recovery_key_file", &path));
        Ok(Encryption {
            recovery_key: recovery_key.transpose()?,
            key_files: key_files.collect::<Result<_, _>>()?,
            passphrase: passphrase.transpose()?,
            keep_plaintext: set.keep_plaintext,
            device: set.device,
            device_key: self
                .environment
                .credential("device_key")
                .map(|path| SecretSource::credential(Kind::Passphrase, path)),
        })
    }

    fn duration(&self, key: &str, span: Span, most_seconds: u64) -> Result<Duration, Error> {
        let most = Span::from_secs(most_seconds);
        let duration = span.duration();
        if duration.is_zero() || duration > most.duration() {
            return Err(self.invalid(key, format!("must be longer than 0s and at most {most}")));
        }
        Ok(duration)
    }

    fn log(&self, set: LogSection) -> Result<LogSettings, Error> {
        level::check_level(&set.level).map_err(|problem| self.invalid("log.level", problem))?;
        Ok(LogSettings { format: set.format, level: set.level })
    }

    fn listen(&self, set: Option<String>) -> Result<Option<SocketAddr>, Error> {
        let parse = |text: String| {
            text.parse().map_err(|_| {
                self.invalid("http.listen", "must be an address and a port such as `127.0.0.1:9464`")
            })
        };
        set.map(parse).transpose()
    }
}

/// Whether the connection is encrypted or does not leave this machine.
fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || url.host_str().is_some_and(is_loopback)
}

fn room_id_problem(id: &str) -> Option<&'static str> {
    if id.starts_with('#') {
        Some("is an alias: write the room id, which begins with `!` (the alias may go into rooms.include)")
    } else if !id.starts_with('!') || id.len() < 2 {
        Some("must be a room id, which begins with `!`")
    } else if id.len() > LONGEST_ID || id.chars().any(char::is_control) {
        Some("is not a room id: it is too long, or contains control characters")
    } else {
        None
    }
}
