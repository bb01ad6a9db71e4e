//! The database URL, whose password is never shown.

use std::fmt;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::secret::SecretSource;
use super::{Error, is_loopback};

/// What stands where a secret would.
pub(super) const MASK: &str = "***";

/// Which PostgreSQL the archive is in.
#[derive(Clone, Debug)]
pub struct Database {
    pub(super) url: Option<SecretSource>,
}

impl Database {
    /// The URL of the operator's own server; `None` means the embedded one.
    pub fn url(&self) -> Result<Option<DatabaseUrl>, Error> {
        let read = |source: &SecretSource| DatabaseUrl::parse(source, source.read()?);
        self.url.as_ref().map(read).transpose()
    }

    /// Where the URL is to be had, without reading it; `None` means the embedded server.
    pub const fn source(&self) -> Option<&SecretSource> {
        self.url.as_ref()
    }
}

/// A `postgres://` URL. Shown, its password is `***`.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: SecretString,
    masked: Url,
}

impl DatabaseUrl {
    pub(super) fn parse(source: &SecretSource, text: SecretString) -> Result<Self, Error> {
        let example = "write it as postgres://user:password@host:5432/database";
        let mut url = Url::parse(text.expose_secret())
            .map_err(|error| source.problem(format!("is not a URL ({error}): {example}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(source.problem(format!("is not a PostgreSQL URL: {example}")));
        }
        mask(&mut url);
        Ok(Self { url: text, masked: url })
    }

    /// The whole URL, for the driver alone.
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// What a careful operator would want to know about it.
    pub fn warning(&self) -> Option<String> {
        let query = |name: &str| {
            let mut pairs = self.masked.query_pairs();
            pairs.find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let host = query("host").map_or_else(
            || self.masked.host_str().unwrap_or_default().to_owned(),
            std::borrow::Cow::into_owned,
        );
        let local = host.is_empty()
            || host.starts_with('/')
            || host.to_ascii_lowercase().starts_with("%2f")
            || is_loopback(&host);
        let mode = query("sslmode").or_else(|| query("ssl-mode"));
        (!local && mode.as_deref() != Some("verify-full")).then(|| {
            "the database is on another host and its identity is not checked: \
             add sslmode=verify-full to database.url"
                .to_owned()
        })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.masked.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In the authority and in the query, where libpq's names allow them too.
fn mask(url: &mut Url) {
    if url.password().is_some() {
        // It has a password, so it has a host and can have another password.
        let _ = url.set_password(Some(MASK));
    }
    let secret = |name: &str| matches!(name, "password" | "sslpassword");
    if url.query_pairs().any(|(name, _)| secret(&name)) {
        let pairs: Vec<_> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if secret(&name) { MASK.into() } else { value };
                (name.into_owned(), value.into_owned())
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::super::secret::Kind;
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, Error> {
        let origin = Origin::Environment("DATABASE_URL".to_owned());
        let source = SecretSource::value(Kind::DatabaseUrl, origin, text)?;
        DatabaseUrl::parse(&source, source.read()?)
    }

    #[test]
    fn the_password_is_masked_wherever_it_stands() {
        for text in [
            "postgres://u:hunter2@db.example.org:5433/archive?sslmode=verify-full",
            "postgresql://u@h/archive?password=hunter2",
            "postgres://u:hunter2@%2Frun%2Fpostgresql/archive",
            "postgres://u@h/a?sslpassword=hunter2&password=hunter2",
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.expose(), text);
            for shown in [url.to_string(), format!("{url:?}")] {
                assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
            }
        }
        assert_eq!(
            parse("postgres://u:x@h/a?sslmode=require").unwrap().to_string(),
            "postgres://u:***@h/a?sslmode=require"
        );
        assert_eq!(parse("postgres:///archive").unwrap().to_string(), "postgres:///archive");
    }

    #[test]
    fn anything_else_is_refused_without_being_quoted() {
        for text in
            ["mysql://u:hunter2@h/a", "hunter2", "postgres://u:hunter2@h:99999/a", "host=h password=hunter2"]
        {
            let error = parse(text).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.starts_with("the database URL in environment variable DATABASE_URL"));
        }
    }

    #[test]
    fn a_distant_server_without_verification_is_worth_a_warning() {
        let warns = |text| parse(text).unwrap().warning().is_some();
        assert!(warns("postgres://u@db.example.org/a"));
        assert!(warns("postgres://u@db.example.org/a?sslmode=require"));
        assert!(!warns("postgres://u@db.example.org/a?sslmode=verify-full"));
        assert!(!warns("postgres://u@localhost/a"));
        assert!(!warns("postgres://u@[::1]/a"));
        assert!(!warns("postgres://u@%2Frun%2Fpostgresql/a"));
        assert!(!warns("postgres:///a?host=/run/postgresql"));
        assert!(warns("postgres://localhost/a?host=db.example.org"));
    }
}
