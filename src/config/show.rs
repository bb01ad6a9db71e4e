//! Prints the effective configuration as a valid file.

use std::fmt::Write as _;

use figment::value::Value;

use super::{Config, Origin, database::MASK, layers::Layers, settings::KEYS};
use crate::text::{Printable, needs_escape};

/// One setting to print.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    key: &'static str,
    /// The value as TOML, without secrets. `None`: not set.
    value: Option<String>,
    /// Whether the setting is allowed in a file.
    in_file: bool,
    note: String,
}

#[cfg(test)]
impl Shown {
    pub(super) fn is_default(&self) -> bool {
        self.note.starts_with("default") || self.note == "not set"
    }
}

pub(super) fn collect(layers: &Layers, config: &Config, data_dir_from: Option<&'static str>) -> Vec<Shown> {
    let shown = |key: &&'static str| one(layers, config, data_dir_from, key);
    KEYS.iter().map(shown).collect()
}

fn one(layers: &Layers, config: &Config, data_dir_from: Option<&'static str>, key: &'static str) -> Shown {
    let mut shown = Shown {
        key,
        value: layers.value(key).map(|value| toml(&value)),
        in_file: key != "homeserver.access_token",
        note: layers.origin(key).to_string(),
    };
    let secret = match key {
        "homeserver.access_token" | "homeserver.access_token_file" => &config.homeserver.token,
        "database.url" | "database.url_file" => &config.database.url,
        _ => &None,
    };
    match key {
        "data_dir" => {
            shown.value = Some(quote(&config.data_dir.to_string_lossy()));
            if layers.origin(key) == Origin::Default(None) {
                shown.note = Origin::Default(data_dir_from).to_string();
            }
        }
        "homeserver.access_token" if shown.value.is_some() => shown.value = Some(quote(MASK)),
        "database.url" if shown.value.is_some() => {
            let url = config.database.url.as_ref().filter(|source| source.is_value());
            let masked = url.and_then(|_| config.database.url().ok().flatten());
            shown.value = Some(quote(&masked.map_or(MASK.to_owned(), |url| url.to_string())));
        }
        _ => {}
    }
    if let Some(source) = secret
        && matches!(source.origin(), Origin::Credential(_))
    {
        shown.note = if shown.value.is_some() {
            format!("{}; not used, for there is a {}", shown.note, source.origin())
        } else {
            source.origin().to_string()
        };
    } else if shown.value.is_none() {
        "not set".clone_into(&mut shown.note);
    }
    shown
}

pub(super) fn render(settings: &[Shown]) -> String {
    let mut text = String::from("# The configuration in effect and where each value came from.\n");
    let mut section = "";
    for shown in settings {
        let (of, name) = shown.key.split_once('.').unwrap_or(("", shown.key));
        if of != section {
            let _ = write!(text, "\n[{of}]\n");
            section = of;
        }
        let line = match &shown.value {
            Some(value) if shown.in_file => format!("{name} = {value}"),
            Some(value) => format!("# {name} = {value}"),
            None => format!("# {name} ="),
        };
        let _ = writeln!(text, "{line:<44} # {}", shown.note);
    }
    text
}

/// A value on one line of TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::String(_, text) => quote(text),
        Value::Array(_, values) => {
            format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Dict(_, table) => {
            let set = table.iter().filter(|(_, value)| !matches!(value, Value::Empty(..)));
            let pairs = set.map(|(key, value)| format!("{} = {}", Printable(key), toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => number.to_u128().unwrap_or_default().to_string(),
        Value::Char(_, c) => quote(&c.to_string()),
        Value::Empty(..) => quote(""),
    }
}

/// A basic string in which nothing can upset a terminal.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if needs_escape(c) => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
