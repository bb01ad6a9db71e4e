//! What `config show` and `config example` print.

use std::collections::BTreeSet;

use super::*;

#[test]
fn what_is_shown_can_be_read_again_and_holds_no_secret() {
    let place = Place::new(
        "data_dir = 'a\\b'\n[homeserver]\nurl = 'https://hs'\n[database]\nurl = 'postgres://u:canary@h/d'\n\
         [[rooms.room]]\nid = '!a\"b:hs'\nprev_batch = \"t\\u001b\"\n",
    );
    let config = place.load([("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", TOKEN)]).unwrap();
    let shown = config.show();
    let debug = format!("{config:?}");
    for text in [&shown, &debug] {
        assert!(!text.contains("canary") && !text.contains('\u{1b}'), "{text}");
    }
    let shown = place.relative(&shown);
    for line in [
        "url = \"postgres://u:***@h/d\"                 # backscroll.toml, line 5",
        "# access_token = \"***\"                       \
         # environment variable BACKSCROLL_HOMESERVER__ACCESS_TOKEN",
        "level = \"info\"                               # default",
        "# listen =                                   # not set",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    let again = Place::new(&config.show()).load([]).unwrap();
    assert_eq!(again.data_dir, config.data_dir);
    assert_eq!(again.backfill, config.backfill);
    assert_eq!(again.rooms.prev_batch("!a\"b:hs"), Some("t\u{1b}"));
}

/// The example with every setting's `#` taken off; prose has a blank after it.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_as_it_is_changes_nothing() {
    let (example, nothing) = (load(EXAMPLE).unwrap(), load("").unwrap());
    assert_eq!(example.backfill, nothing.backfill);
    assert_eq!(example.log, nothing.log);
    for shown in example.shown {
        assert!(shown.is_default(), "{shown:?}");
    }
}

#[test]
fn the_example_names_every_setting_with_its_default() {
    let text = uncommented();
    let table: toml::Table = text.parse().unwrap();
    let mut found = BTreeSet::new();
    for (name, value) in &table {
        match value {
            toml::Value::Table(section) => {
                found.extend(section.keys().map(|key| format!("{name}.{key}")));
            }
            _ => drop(found.insert(name.clone())),
        }
    }
    let listed: BTreeSet<String> = settings::KEYS.iter().map(|&key| key.to_owned()).collect();
    assert_eq!(found, listed);

    // What cannot stand together or in a file is left out; all else must load, and be the default if it has one.
    let left_out = ["access_token =", "url_file ="];
    let kept = |line: &&str| !left_out.iter().any(|key| line.starts_with(key));
    let loadable = text.lines().filter(kept).collect::<Vec<_>>().join("\n");
    let (config, nothing) = (load(&loadable).unwrap(), load("").unwrap());
    assert_eq!(config.backfill, nothing.backfill);
    assert_eq!(config.log, nothing.log);
    assert_eq!(config.redactions, nothing.redactions);
    assert_eq!(config.homeserver.sync_timeout, nothing.homeserver.sync_timeout);
    assert_eq!(config.rooms.listed().count(), 1);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}
