//! Parses connection strings in both forms that PostgreSQL's programs accept:
//!
//! * `postgres://user:password@host:port/dbname?name=value` (libpq, "Connection URIs"). An unescaped `/`, `?` or `#` in
//!   the password is an error. A URL parser would take the rest of the password for a database, a parameter or a
//!   fragment, and it would then be shown.
//! * `host=… user=… password='…'` (libpq, "Keyword/Value Connection Strings").
//!
//! Error texts quote nothing from the string except names that this program knows.

use std::{collections::BTreeMap, fmt::Write as _};

use secrecy::SecretString;

use super::parameter::{Parameter, problem, refusal};

/// What to do about special characters in a password.
const ESCAPE: &str = "In the parts of a URL write % as %25, # as %23, / as %2F, ? as %3F, @ as %40, : as %3A, & as %26 \
                      and a space as %20. The URL is not shown here, because it may contain a password";
const SEVERAL: &str = "names several hosts, but Backscroll supports one: name the primary server, or an address that \
                       always leads to it (a virtual IP, a DNS name, a proxy)";

/// The parts, decoded.
#[derive(Clone, Default)]
pub(super) struct Parts {
    /// The settings by libpq's names, without the password.
    pub(super) settings: BTreeMap<&'static str, String>,
    pub(super) password: Option<SecretString>,
    /// Names of parameters that have no effect.
    pub(super) ignored: Vec<&'static str>,
}

/// An error in a connection string. The text follows "the database URL in …".
type Problem = String;

impl Parts {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parts = Self::default();
        match text.split_once("://") {
            Some((scheme, rest)) if is_ours(scheme) => parts.read_url(rest)?,
            None if text.contains('=') => parts.read_keywords(text)?,
            _ => {
                return Err(
                    "is not a PostgreSQL URL: write it as postgres://user:password@host:5432/database"
                        .to_owned(),
                );
            }
        }
        parts.must_name_one_host()?;
        Ok(parts)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn read_url(&mut self, rest: &str) -> Result<(), Problem> {
        if rest.contains('#') {
            return Err(format!("has a `#` in it, which no PostgreSQL URL has. {ESCAPE}"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if tail.contains('@') {
            return Err(format!(
                "has an `@` after the first `/` or `?`, so the password may end there or earlier. {ESCAPE}"
            ));
        }
        let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(l, p)| (Some(l), p));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        self.read_place(place)?;
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            if decode(user)?.contains(':') {
                return Err(
                    "has an escaped `:` in the user name: if it separates user name and password, do not escape it; \
                     if it belongs to the user name, write the name as the parameter `user`"
                        .to_owned(),
                );
            }
            self.set_part("user", user)?;
            self.set_part("password", password)?;
        }
        self.set_part("dbname", path.strip_prefix('/').unwrap_or(path))?;
        for (number, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            let (name, value) = pair.split_once('=').ok_or_else(|| unknown(number))?;
            self.set(number, &decode(name)?, &decode(value)?)?;
        }
        Ok(())
    }

    /// Parses host and port of a URL. An IPv6 address is in brackets.
    fn read_place(&mut self, place: &str) -> Result<(), Problem> {
        if place.contains(',') {
            return Err(SEVERAL.to_owned());
        }
        let (host, port) = match place.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, port))) => (host, port),
            Some(None) => return Err(format!("has a `[` without a `]`. {ESCAPE}")),
            None => place.find(':').map_or((place, ""), |colon| place.split_at(colon)),
        };
        self.set_part("host", host)?;
        let number = port.strip_prefix(':').unwrap_or(port);
        if !number.is_empty() && (number.len() == port.len() || problem("port", number).is_some()) {
            return Err(format!(
                "has a port that is not a number from 1 to 65535, or it is cut short by an unescaped \
                 character in the password. {ESCAPE}"
            ));
        }
        self.set_part("port", number)
    }

    /// An empty part of a URL counts as not given.
    fn set_part(&mut self, name: &'static str, encoded: &str) -> Result<(), Problem> {
        let value = decode(encoded)?;
        if !value.is_empty() {
            self.put(name, value);
        }
        Ok(())
    }

    /// Parses `keyword = value` pairs, separated by spaces. A value may be quoted, and a backslash escapes the next
    /// character.
    fn read_keywords(&mut self, text: &str) -> Result<(), Problem> {
        let mut rest = text.trim_start();
        let mut number = 0;
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or_else(|| unknown(number))?;
            let (value, after) = keyword_value(after.trim_start())?;
            self.set(number, name.trim_end(), &value)?;
            rest = after.trim_start();
            number += 1;
        }
        Ok(())
    }

    /// Adds a parameter. `number`: its index, from 0.
    fn set(&mut self, number: usize, name: &str, value: &str) -> Result<(), Problem> {
        let Some(parameter) = Parameter::named(name) else {
            return Err(Parameter::in_lower_case(name).map_or_else(
                || unknown(number),
                |known| format!("has a parameter in capital letters: write `{known}`"),
            ));
        };
        if let Some(problem) = problem(name, value) {
            return Err(problem);
        }
        match parameter {
            Parameter::Refused(reason) => return Err(refusal(reason)),
            Parameter::Ignored(name) => self.ignored.push(name),
            Parameter::Setting => self.add_option(name, value),
            Parameter::Used(_) if value.is_empty() => {}
            Parameter::Used("options") => self.add_options(value),
            Parameter::Used(name) => self.put(name, value.to_owned()),
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, value: String) {
        if name == "password" {
            self.password = Some(value.into());
        } else {
            self.settings.insert(name, value);
        }
    }

    fn add_options(&mut self, more: &str) {
        let options = self.settings.entry("options").or_default();
        let _ = write!(options, "{}{more}", if options.is_empty() { "" } else { " " });
    }

    /// `options[NAME]=VALUE` is `options=-c NAME=VALUE`, with spaces and backslashes escaped.
    fn add_option(&mut self, name: &str, value: &str) {
        let name = name.trim_start_matches("options[").trim_end_matches(']');
        let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
        self.add_options(&format!("-c {name}={escaped}"));
    }

    fn must_name_one_host(&self) -> Result<(), Problem> {
        let is_list = |name| self.get(name).is_some_and(|value| value.contains(','));
        if is_list("host") { Err(SEVERAL.to_owned()) } else { Ok(()) }
    }
}

fn is_ours(scheme: &str) -> bool {
    ["postgres", "postgresql"].iter().any(|ours| ours.eq_ignore_ascii_case(scheme))
}

fn unknown(number: usize) -> Problem {
    format!(
        "has a parameter (number {}) that Backscroll does not know; its name is not shown, because it may be the end \
         of a password. {ESCAPE}",
        number + 1
    )
}

/// Splits a text into its first value and the rest.
fn keyword_value(text: &str) -> Result<(String, &str), Problem> {
    let quoted = text.strip_prefix('\'');
    let mut value = String::new();
    let mut characters = quoted.unwrap_or(text).char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            '\'' if quoted.is_some() => return Ok((value, &quoted.unwrap_or(text)[at + 1..])),
            c if c.is_whitespace() && quoted.is_none() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        Some(_) => Err("has a `'` that is not closed; in a value, write it as \\'".to_owned()),
        None => Ok((value, "")),
    }
}

/// Decodes percent-encoding. A `+` stays a `+`, as in libpq.
fn decode(text: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2).unwrap_or_default();
        let byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte @ 1..) if digits.iter().all(u8::is_ascii_hexdigit) => bytes.push(byte),
            _ => return Err(format!("has a `%` that begins no escape. {ESCAPE}")),
        }
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| format!("has escapes that are not UTF-8. {ESCAPE}"))
}

/// Percent-encodes all characters except letters, digits, `-._~` and `kept`.
pub(super) fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || (c.is_ascii() && kept.contains(c)) {
            encoded.push(c);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
