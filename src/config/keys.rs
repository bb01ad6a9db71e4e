//! The names of the settings, and suggestions for a misspelt name.

use figment::value::{Dict, Value};

use super::{
    Error, Origin,
    document::{Document, join},
    error::Unknown,
    settings::{KEYS, ROOM_KEYS, Settings},
};

/// The prefix of every setting's variable.
pub(super) const PREFIX: &str = "BACKSCROLL_";

/// Settings whose value is or may contain a secret.
pub(super) const SECRET: [&str; 2] = ["homeserver.access_token", "database.url"];

/// Variables with the prefix that are no settings.
pub(super) const PLAIN: [&str; 2] = ["CONFIG", "POSTGRES_BIN"];

/// Prefixes of variables that are not settings: those that Kubernetes and Docker links add for a service called
/// `backscroll`, and those of our own scripts and tests.
const FOREIGN: [&str; 5] = ["SERVICE_", "PORT", "DEMO_", "SYNAPSE_", "TEST_"];

/// The smallest similarity at which a name is suggested.
const ALIKE: f64 = 0.6;

/// The defaults as a tree. They show the type that a setting's text in the environment must have.
pub(super) fn defaults() -> Dict {
    let tree = Value::serialize(Settings::default()).ok();
    tree.and_then(Value::into_dict).expect("the settings are a struct of plain values")
}

/// The variable of a setting: `homeserver.url` is `BACKSCROLL_HOMESERVER__URL`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The setting of a variable, given without its prefix.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    KEYS.iter().find(|key| variable(key).strip_prefix(PREFIX) == Some(name)).copied()
}

/// The setting that contains a key: `rooms.room.0.id` is in `rooms.room`.
pub(super) fn owner(place: &str) -> &str {
    let inside = |key: &str| place.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().find(|key| inside(key)).copied().unwrap_or(place)
}

/// Whether a variable, given without its prefix, is not meant as a setting. One with `__` always is.
pub(super) fn is_foreign(name: &str) -> bool {
    let foreign = FOREIGN.iter().any(|prefix| name.starts_with(prefix)) && !name.contains("__");
    PLAIN.contains(&name) || foreign
}

/// The error for an unknown variable, with a suggestion.
pub(super) fn unknown_variable(name: &str) -> Unknown {
    let written = name.to_ascii_lowercase().replace("__", ".");
    let plain = PLAIN.iter().map(|name| name.to_ascii_lowercase());
    let known = KEYS.iter().map(|key| (*key).to_owned()).chain(plain);
    Unknown {
        origin: Origin::Environment(format!("{PREFIX}{name}")),
        name: name.to_owned(),
        nearest: nearest(&written, known).map(|key| variable(&key)),
    }
}

/// Checks that every key of a file is a setting and every section is a section.
pub(super) fn check(document: &Document) -> Result<(), Error> {
    let mut unknown = Vec::new();
    check_table(document, &document.values, "", &mut unknown)?;
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.sort_by_key(|unknown| match unknown.origin {
        Origin::File { line, .. } => line,
        _ => None,
    });
    Err(Error::Unknown(unknown))
}

fn check_table(
    document: &Document,
    table: &Dict,
    around: &str,
    unknown: &mut Vec<Unknown>,
) -> Result<(), Error> {
    for (name, value) in table {
        let key = join(around, name);
        if key == "rooms.room" {
            check_rooms(document, value, unknown);
        } else if KEYS.contains(&key.as_str()) {
            // A leaf. Its type is checked when the settings are extracted.
        } else if sections().any(|section| section == key) {
            let Value::Dict(_, inner) = value else {
                return Err(not_a_section(document, &key));
            };
            check_table(document, inner, &key, unknown)?;
        } else {
            let known = KEYS.iter().copied().chain(sections().filter(|_| around.is_empty()));
            let nearest = nearest(&key, known.map(str::to_owned));
            unknown.push(in_file(document, key, nearest));
        }
    }
    Ok(())
}

fn check_rooms(document: &Document, rooms: &Value, unknown: &mut Vec<Unknown>) {
    for (n, room) in rooms.as_array().unwrap_or_default().iter().enumerate() {
        let names = room.as_dict().into_iter().flat_map(Dict::keys);
        for name in names.filter(|name| !ROOM_KEYS.contains(&name.as_str())) {
            let known = ROOM_KEYS.iter().map(|key| (*key).to_owned());
            let key = format!("rooms.room.{n}.{name}");
            unknown.push(in_file(document, key, nearest(name, known)));
        }
    }
}

fn in_file(document: &Document, name: String, nearest: Option<String>) -> Unknown {
    Unknown { origin: Origin::file(document, &name), name, nearest }
}

fn not_a_section(document: &Document, key: &str) -> Error {
    Error::WrongType {
        origin: Origin::file(document, key),
        key: key.to_owned(),
        found: "a single value".to_owned(),
        expected: format!("the section [{key}]"),
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section)
}

/// The most similar known name. Also compares only the last part of the name, for a key in the wrong section.
fn nearest(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let likeness = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(written, name);
        let part = strsim::normalized_damerau_levenshtein(&last(written), &last(name));
        whole.max(part * 0.9)
    };
    known
        .map(|name| (likeness(&name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves of a tree; a list is a leaf.
    fn leaves(tree: &Dict, around: &str, out: &mut Vec<String>) {
        for (name, value) in tree {
            match value {
                Value::Dict(_, inner) => leaves(inner, &join(around, name), out),
                _ => out.push(join(around, name)),
            }
        }
    }

    #[test]
    fn the_list_of_settings_is_the_struct() {
        let mut found = Vec::new();
        leaves(&defaults(), "", &mut found);
        found.sort();
        let mut listed = KEYS.to_vec();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn offers_the_nearest_name() {
        let near = |name| nearest(name, KEYS.iter().map(|key| (*key).to_owned()));
        assert_eq!(near("homeserver.ulr").unwrap(), "homeserver.url");
        assert_eq!(near("homeserver.token_file").unwrap(), "homeserver.access_token_file");
        assert_eq!(near("backfill.pagesize").unwrap(), "backfill.page_size");
        assert_eq!(near("backfill.sync_timeout").unwrap(), "homeserver.sync_timeout");
        assert_eq!(near("concurrency").unwrap(), "backfill.concurrency");
        assert_eq!(near("media.mirror"), None);
        let variable = |name| unknown_variable(name).nearest;
        assert_eq!(variable("DATABASE_URL").unwrap(), "BACKSCROLL_DATABASE__URL");
        assert_eq!(variable("DATADIR").unwrap(), "BACKSCROLL_DATA_DIR");
        assert_eq!(variable("POSTGRESS_BIN").unwrap(), "BACKSCROLL_POSTGRES_BIN");
    }

    #[test]
    fn variables_and_settings_go_both_ways() {
        for key in KEYS.iter() {
            let variable = variable(key);
            assert_eq!(setting(variable.strip_prefix(PREFIX).unwrap()), Some(*key));
        }
        assert_eq!(setting("HOMESERVER_URL"), None);
        assert_eq!(setting("homeserver__url"), None);
        assert!(is_foreign("SERVICE_HOST") && is_foreign("PORT_8080_TCP") && is_foreign("CONFIG"));
        assert!(!is_foreign("HTTP__LISTEN") && !is_foreign("PORT__X") && is_foreign("DEMO_DIR"));
    }
}
