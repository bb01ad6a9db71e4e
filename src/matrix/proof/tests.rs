//! Events and keys in `synapse.jsonl` are as a real Synapse 1.163.2 served them, with a number in `unsigned`
//! that canonical JSON has not. Of each room: a redaction, what it redacted, a message, and the create event.

use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use super::*;

const SERVED: &str = include_str!("synapse.jsonl");

#[derive(Debug)]
struct Served {
    version: String,
    room_id: String,
    event: Value,
}

impl Served {
    fn read(&self) -> Result<SignedEvent, Unproved> {
        self.read_as(&self.event)
    }

    fn read_as(&self, event: &Value) -> Result<SignedEvent, Unproved> {
        SignedEvent::read(&self.room_id, &self.version, &raw(event))
    }
}

fn raw(event: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(event).expect("JSON")
}

fn served() -> Vec<Served> {
    let lines = SERVED.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    lines
        .filter(|line| line.get("event").is_some())
        .map(|line| Served {
            version: text(&line["room_version"]),
            room_id: text(&line["event"]["room_id"]),
            event: line["event"].clone(),
        })
        .collect()
}

fn key_list() -> Value {
    let last: Value = serde_json::from_str(SERVED.lines().last().expect("a line")).expect("JSON");
    last["keys"].clone()
}

fn keys() -> ServerKeys {
    let mut keys = ServerKeys::default();
    keys.add(&KeyResponse::read(&key_list().to_string()).expect("keys"));
    keys
}

/// The paths of all leaves.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) if !members.is_empty() => {
            members
                .iter()
                .for_each(|(name, value)| leaves(value, &format!("{path}/{}", escaped(name)), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(n, value)| leaves(value, &format!("{path}/{n}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

fn altered(leaf: &Value) -> Value {
    match leaf {
        Value::String(text) if text.starts_with('A') => json!(format!("B{}", &text[1..])),
        Value::String(text) => json!(format!("A{}", text.chars().skip(1).collect::<String>())),
        Value::Number(number) => json!(number.as_i64().map_or(1, |number| number ^ 1)),
        _ => json!("other"),
    }
}

#[test]
fn served_events_are_proved() {
    let keys = keys();
    let all = served();
    assert_eq!(all.len(), 20);
    for (served, place) in all.iter().zip([0, 1, 2, 3].into_iter().cycle()) {
        let event = served.read().unwrap_or_else(|error| panic!("{}: {error}", served.event));
        assert_eq!(event.event_id, served.event["event_id"].as_str().expect("an id"));
        assert_eq!(event.content_hash_fits(), place != 1, "{}", served.event);
        assert_eq!(event.prev_events.is_empty(), place == 3);
        assert_eq!(event.depth, [8, 7, 6, 1][place]);
        let allowed = [[3, 3, 3, 0], [2, 2, 2, 0]][usize::from(served.version == "12")][place];
        assert_eq!(event.auth_events.len(), allowed);
        let verified = event.verify_signatures(&keys).expect("a good signature");
        assert_eq!(verified.signatures, [("localhost".to_owned(), "ed25519:a_1".to_owned())]);
    }
}

#[test]
fn every_altered_leaf_is_noticed() {
    let keys = keys();
    for served in served().iter().filter(|served| served.event["content"] != json!({})) {
        let mut paths = Vec::new();
        leaves(&served.event, "", &mut paths);
        paths.retain(|path| !path.starts_with("/unsigned"));
        assert!(paths.len() > 10);
        for path in paths {
            let mut event = served.event.clone();
            let leaf = event.pointer_mut(&path).expect("a leaf");
            *leaf = altered(leaf);
            let read = served.read_as(&event);
            let good = read.is_ok_and(|it| it.content_hash_fits() && it.verify_signatures(&keys).is_ok());
            assert!(!good, "version {}: {path}", served.version);
        }
    }
}

#[test]
fn an_altered_list_of_keys_is_refused() {
    let list = key_list();
    let mut paths = Vec::new();
    leaves(&list, "", &mut paths);
    for path in paths {
        let mut changed = list.clone();
        let leaf = changed.pointer_mut(&path).expect("a leaf");
        *leaf = altered(leaf);
        assert!(KeyResponse::read(&changed.to_string()).is_err(), "{path}");
    }
}

#[test]
fn what_cannot_be_checked_is_no_fault_of_the_event() {
    let served = served();
    let message = &served[2];
    let mut float = message.event.clone();
    float["content"]["x"] = json!(1.5);
    assert_eq!(message.read_as(&float).unwrap_err(), Unproved::NotCanonical);
    let client_format = json!({ "type": "m.room.message", "event_id": "$1", "content": {} });
    assert_eq!(message.read_as(&client_format).unwrap_err(), Unproved::NoHashes);
    let unknown = SignedEvent::read(&message.room_id, "org.example", &raw(&message.event)).unwrap_err();
    assert_eq!(unknown, Unproved::UnknownRoomVersion);
    for error in [Unproved::NotCanonical, Unproved::NoHashes, unknown] {
        assert!(error.is_undecided());
    }
    let mut other = message.event.clone();
    other["depth"] = json!([]);
    assert!(!message.read_as(&other).unwrap_err().is_undecided());
}

/// A sender may write both targets of a redaction. Then neither is an addition of the homeserver.
#[test]
fn only_an_added_target_is_removed() {
    for served in served().iter().filter(|served| served.event["type"] == "m.room.redaction") {
        let mut both: ruma::CanonicalJsonObject = serde_json::from_value(served.event.clone())
            .unwrap_or_else(|_| {
                let mut event = served.event.clone();
                event["unsigned"] = json!({});
                serde_json::from_value(event).expect("canonical JSON")
            });
        for added in ["unsigned", "event_id"] {
            if served.version != "1" || added == "unsigned" {
                both.remove(added);
            }
        }
        ruma::signatures::add_content_hash_to_event(&mut both).expect("a hash");
        let both = ruma::CanonicalJsonValue::Object(both).to_string();
        let raw = RawValue::from_string(both.clone()).expect("JSON");
        let event = SignedEvent::read(&served.room_id, &served.version, &raw).expect("an event");
        assert!(event.content_hash_fits(), "version {}", served.version);
        assert_eq!(event.canonical_json(), both);
    }
}

#[test]
fn a_key_counts_while_it_is_valid() {
    let list = |valid_until, is_expired, first_byte| {
        let mut list = KeyResponse::read(&key_list().to_string()).expect("keys");
        for key in list.keys.values_mut() {
            (key.valid_until, key.is_expired) = (valid_until, is_expired);
            key.public_key[0] ^= first_byte;
        }
        list
    };
    for served in served() {
        let event = served.read().expect("an event");
        let sent = event.origin_server_ts().expect("a time");
        for (valid_until, good) in [(sent, true), (sent - 1, ["1", "3"].contains(&&*served.version))] {
            let mut keys = ServerKeys::default();
            keys.add(&list(valid_until, false, 0));
            let verified = event.verify_signatures(&keys);
            assert_eq!(verified.is_ok(), good, "version {}: {verified:?}", served.version);
            assert!(good || matches!(verified, Err(Unverified::KeyNotValid { .. })));
        }
    }
    let valid = |lists: &[KeyResponse]| {
        let mut keys = ServerKeys::default();
        for list in lists {
            keys.add(list);
        }
        let key = keys.get("localhost", "ed25519:a_1").expect("a key").clone();
        (key.valid_until, key.is_expired)
    };
    assert_eq!(valid(&[list(2, false, 0), list(1, false, 0)]), (2, false));
    assert_eq!(valid(&[list(2, false, 0), list(1, true, 0)]), (1, true));
    assert_eq!(valid(&[list(1, true, 0), list(2, false, 0)]), (1, true));
    assert_eq!(valid(&[list(1, true, 0), list(2, false, 1)]), (2, false));
}

/// A served event with some of its text replaced.
fn mangled() -> impl Strategy<Value = (Served, String)> {
    let new = "\\PC{0,20}|[\\[{\"0-9e.-]{0,5}";
    (0..20_usize, any::<usize>(), 0..40_usize, new).prop_map(|(which, at, length, new)| {
        let served = served().swap_remove(which);
        let text: Vec<char> = served.event.to_string().chars().collect();
        let at = at % text.len();
        let end = (at + length).min(text.len());
        let text = text[..at].iter().copied().chain(new.chars()).chain(text[end..].iter().copied());
        (served, text.collect())
    })
}

/// A served event with another value of a member.
fn distorted() -> impl Strategy<Value = (Served, String)> {
    let name = "type|hashes|signatures|content|prev_events|auth_events|sender|room_id|redacts|depth";
    let value = "[0-9]{1,3}|null|\"[@$!:a]{0,5}\"|\\[\\]|\\{\\}|\\[\\[\\]\\]|\\{\"sha256\":1\\}";
    (0..20_usize, name, value).prop_map(|(which, name, value)| {
        let served = served().swap_remove(which);
        let mut event = served.event.clone();
        event[name] = serde_json::from_str(&value).unwrap_or_default();
        (served, event.to_string())
    })
}

proptest! {
    #[test]
    fn no_input_panics((served, text) in prop_oneof![mangled(), distorted()]) {
        drop(KeyResponse::read(&text));
        if let Ok(raw) = RawValue::from_string(text) {
            for version in ["1", "3", "8", "11", "12", "?"] {
                if let Ok(event) = SignedEvent::read(&served.room_id, version, &raw) {
                    event.content_hash_fits();
                    drop((event.verify_signatures(&keys()), event.canonical_json()));
                }
            }
        }
    }
}
