//! Merges the sources of the settings, and records where each value comes from. Later sources take precedence:
//! defaults, `DATABASE_URL`, file, environment, flags.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use figment::value::{Dict, Empty, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{
    Error, Overrides,
    document::{Document, FILE},
    environment::Environment,
    keys,
    settings::Settings,
};
use crate::text::Printable;

const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

/// The only variable without our prefix that is a setting. It has the lowest precedence.
pub(super) const DATABASE_URL: &str = "DATABASE_URL";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The default, and the variable that decided it, if one did.
    Default(Option<&'static str>),
    /// A configuration file, or a file with a secret (which has no line).
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// A file in systemd's `$CREDENTIALS_DIRECTORY`.
    Credential(PathBuf),
}

impl Origin {
    pub(super) fn file(document: &Document, key: &str) -> Self {
        Self::File { path: document.path.clone(), line: document.line(key) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        match self {
            Self::Default(None) => f.write_str("default"),
            Self::Default(Some(name)) => write!(f, "default, from ${name}"),
            Self::File { path: p, line } => {
                write!(f, "{}", Printable(&path(p)))?;
                line.map_or(Ok(()), |line| write!(f, ", line {line}"))
            }
            Self::Environment(name) => write!(f, "environment variable {}", Printable(name)),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Credential(p) => write!(f, "systemd credential {}", Printable(&path(p))),
        }
    }
}

/// All sources, merged but not yet checked.
pub(super) struct Layers {
    figment: Figment,
    document: Option<Document>,
    flags: Vec<(&'static str, &'static str)>,
}

impl Layers {
    pub(super) fn gather(
        environment: &Environment,
        document: Option<Document>,
        overrides: &Overrides,
    ) -> Result<Self, Error> {
        document.as_ref().map_or(Ok(()), keys::check)?;
        let mut figment = Figment::from(Serialized::defaults(Settings::default()));
        if let Some(url) = environment.get(DATABASE_URL) {
            let url = text(url, DATABASE_URL)?;
            figment = figment.merge(Layer::one(DATABASE_URL, "database.url", url.into()));
        }
        if let Some(document) = &document {
            figment = figment.merge(document);
        }
        for (key, value) in variables(environment)? {
            figment = figment.merge(Layer::one(ENVIRONMENT, key, value));
        }
        for (key, flag, value) in &overrides.0 {
            let value = from_text(key, value, Origin::Flag(flag))?;
            figment = figment.merge(Layer::one(FLAGS, key, value));
        }
        let flags = overrides.0.iter().map(|(key, flag, _)| (*key, *flag));
        Ok(Self { figment, document, flags: flags.collect() })
    }

    pub(super) fn extract(&self) -> Result<Settings, Error> {
        self.figment.extract().map_err(|error| self.explain(&error))
    }

    pub(super) fn value(&self, key: &str) -> Option<Value> {
        let value = self.figment.find_value(key).ok();
        value.filter(|value| !matches!(value, Value::Empty(_, Empty::None | Empty::Unit)))
    }

    /// Where the value of a setting comes from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let metadata = self.figment.find_metadata(key);
        self.origin_in(metadata, key)
    }

    /// The line of a key inside a setting, such as `rooms.room.0.id`.
    pub(super) fn place_in_file(&self, place: &str) -> Option<Origin> {
        let document = self.document.as_ref()?;
        Some(Origin::file(document, place))
    }

    /// The directory to which a path in this setting is relative, if it is not the working directory.
    pub(super) fn base(&self, key: &str) -> Option<&Path> {
        matches!(self.origin(key), Origin::File { .. })
            .then(|| self.document.as_ref()?.path.parent())
            .flatten()
    }

    fn origin_in(&self, metadata: Option<&Metadata>, key: &str) -> Origin {
        let setting = keys::owner(key);
        let flag = self.flags.iter().rfind(|(of, _)| *of == setting);
        let layer = metadata.map(|metadata| metadata.name.as_ref());
        match (layer, &self.document, flag) {
            (Some(FILE), Some(document), _) => Origin::file(document, key),
            (Some(ENVIRONMENT), ..) => Origin::Environment(keys::variable(setting)),
            (Some(DATABASE_URL), ..) => Origin::Environment(DATABASE_URL.to_owned()),
            (Some(FLAGS), _, Some((_, flag))) => Origin::Flag(flag),
            _ => Origin::Default(None),
        }
    }

    /// Converts an error of figment. Values are quoted only if they cannot be a secret.
    fn explain(&self, error: &figment::Error) -> Error {
        let mut key = error.path.join(".");
        let (found, expected) = match &error.kind {
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                (describe(found, &key), plain(expected))
            }
            Kind::UnknownVariant(found, names) => {
                (format!("`{}`", Printable(found)), format!("one of `{}`", names.join("`, `")))
            }
            Kind::MissingField(name) => {
                key = format!("{key}.{name}");
                ("nothing".to_owned(), "a value".to_owned())
            }
            _ => ("something else".to_owned(), "a value".to_owned()),
        };
        Error::WrongType { origin: self.origin_in(error.metadata.as_ref(), &key), key, found, expected }
    }
}

/// One value of one layer. Figment records the layer's name.
struct Layer {
    name: &'static str,
    tree: Dict,
}

impl Layer {
    fn one(name: &'static str, key: &str, value: Value) -> Self {
        let tree = figment::util::nest(key, value).into_dict();
        Self { name, tree: tree.unwrap_or_default() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

/// The settings among the variables. An unknown variable with our prefix is an error.
fn variables(environment: &Environment) -> Result<Vec<(&'static str, Value)>, Error> {
    let mut values = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in environment.prefixed(keys::PREFIX) {
        if keys::is_foreign(name) {
            continue;
        }
        let Some(key) = keys::setting(name) else {
            unknown.push(keys::unknown_variable(name));
            continue;
        };
        let variable = keys::variable(key);
        let value = text(value, &variable)?;
        values.push((key, from_text(key, value, Origin::Environment(variable))?));
    }
    if unknown.is_empty() { Ok(values) } else { Err(Error::Unknown(unknown)) }
}

fn text<'a>(value: &'a OsStr, variable: &str) -> Result<&'a str, Error> {
    let origin = || Origin::Environment(variable.to_owned());
    let key = variable.strip_prefix(keys::PREFIX).and_then(keys::setting);
    value
        .to_str()
        .ok_or_else(|| Error::invalid(key.unwrap_or("database.url"), origin(), "is not valid UTF-8"))
}

/// Converts a text from a variable or a flag to the type of the setting's default.
///
/// A list is written as in TOML, `["#a:hs", "#b:hs"]`, or separated by commas.
fn from_text(key: &str, text: &str, origin: Origin) -> Result<Value, Error> {
    let wrong = |expected: &str| Error::WrongType {
        origin,
        key: key.to_owned(),
        found: format!("`{}`", Printable(text)),
        expected: expected.to_owned(),
    };
    let default = Value::from(keys::defaults()).find(key);
    match default.expect("every setting has a default, which may be empty") {
        Value::Num(..) => text.parse::<u64>().map(Value::from).map_err(|_| wrong("a whole number")),
        Value::Bool(..) => text.parse::<bool>().map(Value::from).map_err(|_| wrong("true or false")),
        Value::Array(..) if text.starts_with('[') => {
            let list = toml::from_str::<Dict>(&format!("list = {text}")).ok();
            list.and_then(|mut table| table.remove("list"))
                .filter(|list| matches!(list, Value::Array(..)))
                .ok_or_else(|| wrong(r#"a list such as ["a", "b"]"#))
        }
        Value::Array(..) if key == "rooms.room" => {
            Err(wrong(r#"a list such as [{ id = "!a:example.org" }]"#))
        }
        Value::Array(..) => Ok(text.split(',').map(str::trim).map(Value::from).collect::<Vec<_>>().into()),
        _ => Ok(Value::from(text)),
    }
}

/// What was found. It is quoted unless the setting is a secret.
fn describe(found: &Actual, key: &str) -> String {
    match found {
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        _ if keys::SECRET.contains(&key) => "a value that is not shown".to_owned(),
        Actual::Str(text) => format!("`{}`", Printable(text)),
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        _ => "something else".to_owned(),
    }
}

/// Serde's name of a type in plain words.
fn plain(expected: &str) -> String {
    let words = match expected {
        "a string" => "a text in quotes",
        "u32" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        _ if expected.starts_with("struct RoomSettings") => "a table with `id`",
        other => other,
    };
    words.to_owned()
}
