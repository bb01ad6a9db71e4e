//! The database URL. Only this module knows its forms and which part of it is secret.

mod connection_string;
mod parameter;

use std::{fmt, net::Ipv6Addr};

use secrecy::{ExposeSecret, SecretString};

use self::connection_string::{Parts, encode};
use super::{Error, is_loopback, secret::SecretSource};

/// Printed instead of a secret.
pub(super) const MASK: &str = "***";

/// The PostgreSQL server of the archive.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(super) url: Option<SecretSource>,
    /// Whether `run` rebuilds indexes that are half empty.
    pub(crate) rebuild_indexes: bool,
}

impl Database {
    /// The URL of the operator's server. `None`: the private server.
    pub(crate) fn url(&self) -> Result<Option<DatabaseUrl>, Error> {
        let read = |source: &SecretSource| DatabaseUrl::parse(source, &source.read()?);
        self.url.as_ref().map(read).transpose()
    }
}

/// The address, user and database of a PostgreSQL server. The password is displayed as `***`.
#[derive(Clone)]
pub(crate) struct DatabaseUrl {
    parts: Parts,
}

impl DatabaseUrl {
    pub(super) fn parse(source: &SecretSource, text: &SecretString) -> Result<Self, Error> {
        Self::read(text.expose_secret()).map_err(|problem| source.problem(problem))
    }

    /// Parses a URL without a secret, such as that of the private server.
    ///
    /// # Errors
    /// If the URL is not valid.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        Parts::parse(text).map(|parts| Self { parts })
    }

    /// The URL for the driver, with the password. Parameters that the driver does not support are left out.
    pub(crate) fn expose(&self) -> String {
        let password = self.parts.password.as_ref();
        self.write(password.map(|password| encode(password.expose_secret(), "")).as_deref(), Form::Driver)
    }

    /// The URL for psql, without the password, because every user can read the arguments of a process.
    pub(crate) fn without_password(&self) -> String {
        self.write(None, Form::Libpq)
    }

    /// The password.
    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.parts.password.as_ref()
    }

    /// Warnings about an insecure connection or parameters without effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let host = self.parts.get("host").unwrap_or_default();
        let local = host.is_empty() || host.starts_with('/') || is_loopback(host);
        let unchecked = !local && self.parts.get("sslmode") != Some("verify-full");
        let ignored = self.parts.ignored.iter().map(|name| format!("`{name}` in database.url has no effect"));
        ignored
            .chain(unchecked.then(|| {
                "the database is on another host, whose identity is not checked: \
                 add sslmode=verify-full to database.url"
                    .to_owned()
            }))
            .collect()
    }

    /// `password` is percent-encoded.
    fn write(&self, password: Option<&str>, form: Form) -> String {
        let given = |name| self.parts.get(name);
        let mut parameters = Vec::new();
        let mut authority = String::new();
        if let Some(host) = given("host").and_then(|host| authority_host(host, form)) {
            let encoded = |name| given(name).map(|value| encode(value, "")).unwrap_or_default();
            let password = password.map(|password| format!(":{password}")).unwrap_or_default();
            let login = encoded("user") + &password;
            let port = given("port").map(|port| format!(":{port}")).unwrap_or_default();
            let at = if login.is_empty() { "" } else { "@" };
            authority = format!("{login}{at}{host}{port}");
        } else {
            let named = ["host", "port", "user"].map(|name| (name, given(name)));
            let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
            parameters.extend(named.map(|(name, value)| format!("{name}={}", encode(value, form.kept()))));
            parameters.extend(password.map(|password| format!("password={password}")));
        }
        let others = self.parts.settings.iter().filter(|(name, _)| {
            let is_driver_only = **name == "statement-cache-capacity" && form == Form::Libpq;
            !is_driver_only && !["host", "port", "user", "dbname"].contains(name)
        });
        parameters.extend(others.map(|(name, value)| format!("{name}={}", encode(value, form.kept()))));
        let dbname = given("dbname").map(|dbname| format!("/{}", encode(dbname, ""))).unwrap_or_default();
        let dbname = if dbname.is_empty() && authority.is_empty() { "/".to_owned() } else { dbname };
        let question = if parameters.is_empty() { "" } else { "?" };
        format!("postgres://{authority}{dbname}{question}{}", parameters.join("&"))
    }
}

/// The reader of a URL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Driver,
    Libpq,
    Person,
}

impl Form {
    /// Characters that are not escaped in a parameter.
    const fn kept(self) -> &'static str {
        match self {
            Self::Driver | Self::Libpq => "",
            Self::Person => "/:,",
        }
    }
}

/// The host as it is written before the path. `None`: it must be a parameter, because it is a socket's directory or
/// the driver would not accept it there.
fn authority_host(host: &str, form: Form) -> Option<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.chars().all(is_name) {
        Some(host.to_owned())
    } else if form == Form::Driver {
        None
    } else {
        host.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = self.parts.password.as_ref().map(|_| MASK);
        f.write_str(&self.write(mask, Form::Person))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
