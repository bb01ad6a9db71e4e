//! Proof of single events: what a real Synapse serves in the federation format, in rooms of every version.

use std::{collections::BTreeMap, ops::RangeInclusive};

use backscroll::matrix::{
    Client, MessagesRequest,
    proof::{KeyResponse, ServerKeys, SignedEvent, Unproved, Unverified},
};
use reqwest::Method;
use ruma::RoomId;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::support::{
    fill::fill,
    synapse::{Synapse, User},
};

/// Events that each room has at least.
const COUNT: usize = 150;
/// In the year 2096.
const FUTURE: i64 = 4_000_000_000_000;

/// A client of the homeserver for that user.
fn client(synapse: &Synapse, user: &User) -> Client {
    let client = Client::new(synapse.url()).unwrap();
    client.set_token(user.access_token.clone().into());
    client
}

/// Every event that the user may see, in the federation format, newest first.
async fn walk(client: &Client, room: &str) -> Vec<Box<RawValue>> {
    let room_id = <&RoomId>::try_from(room).unwrap();
    let (mut all, mut from) = (Vec::new(), None::<String>);
    loop {
        let request = MessagesRequest {
            room_id,
            from: from.as_deref(),
            to: None,
            limit: 100,
            most_bytes: 64 << 20,
            filter: None,
        };
        let page = client.federation_messages(&request).await.unwrap();
        assert_eq!(page.raws.len(), page.page.chunk.events.len());
        all.extend(page.raws);
        match page.page.end {
            Some(end) => from = Some(end.as_str().to_owned()),
            None => return all,
        }
    }
}

async fn keys(client: &Client) -> ServerKeys {
    let lists = client.server_keys("localhost", &["ed25519:a_1"], 0).await.unwrap();
    assert_eq!(lists.len(), 1);
    let mut keys = ServerKeys::default();
    keys.add(&lists[0]);
    keys
}

/// What tells what an event should be. The content may be too deep for a tree.
#[derive(Deserialize)]
struct Served {
    event_id: String,
    unsigned: BTreeMap<String, Box<RawValue>>,
}

/// How many events are proved whole, redacted, and without canonical JSON.
type Counts = [usize; 3];

fn check(room: &str, version: &str, raws: &[Box<RawValue>], keys: &ServerKeys) -> Counts {
    let mut counts = [0; 3];
    let mut signed = BTreeMap::new();
    for raw in raws {
        let served: Served = serde_json::from_str(raw.get()).unwrap();
        let id = served.event_id.as_str();
        let event = match SignedEvent::read(room, version, raw) {
            Ok(event) => event,
            Err(Unproved::NotCanonical) => {
                counts[2] += 1;
                continue;
            }
            Err(error) => panic!("version {version}, {id}: {error}"),
        };
        assert_eq!(event.event_id, id, "version {version}");
        let is_redacted = served.unsigned.contains_key("redacted_because");
        // Some redactions remove nothing.
        assert!(event.content_hash_fits() || is_redacted, "version {version}, {id}: {raw}");
        counts[usize::from(!event.content_hash_fits())] += 1;
        match event.verify_signatures(keys) {
            Ok(verified) => {
                assert_eq!(verified.signatures, [("localhost".to_owned(), "ed25519:a_1".to_owned())]);
            }
            // Dated years ahead. No server says of a key that it will still be valid then.
            Err(error) => {
                assert!(matches!(error, Unverified::KeyNotValid { .. }) && error.is_undecided(), "{error}");
                assert!(event.origin_server_ts().unwrap() > FUTURE && version.parse::<u32>().unwrap() >= 5);
            }
        }
        // What was signed can be read again, and is still the same.
        let again = RawValue::from_string(event.canonical_json()).unwrap();
        let again = SignedEvent::read(room, version, &again).unwrap();
        assert_eq!((&again.event_id, again.canonical_json()), (&event.event_id, event.canonical_json()));
        signed.insert(event.event_id.clone(), event);
    }
    let roots = signed.values().filter(|event| event.prev_events.is_empty()).count();
    assert_eq!(roots, 1, "version {version}");
    counts
}

async fn versions(versions: RangeInclusive<u64>) {
    let synapse = Synapse::start().await;
    let owner = synapse.register("owner").await;
    let client = client(&synapse, &owner);
    let keys = keys(&client).await;
    for number in versions {
        let version = number.to_string();
        let room = fill(&synapse, &owner, &version, COUNT, number).await;
        let raws = walk(&client, &room.room_id).await;
        let counts = check(&room.room_id, &version, &raws, &keys);
        eprintln!("version {version}: {counts:?}");
        assert!(counts[0] > 150 && counts[1] > 15, "version {version}: {counts:?}");
        // In all versions there are events that are too deep. Only old ones allow numbers that are no integers.
        assert_eq!(counts[2] > 12, number < 6, "version {version}: {counts:?}");
    }
}

#[tokio::test]
async fn events_of_old_room_versions_are_proved() {
    versions(1..=5).await;
}

#[tokio::test]
async fn events_of_new_room_versions_are_proved() {
    versions(6..=12).await;
}

/// P78: up to version 10 a redacted redaction loses its target; only its signature still fits.
#[tokio::test]
async fn a_redacted_redaction_and_its_target_are_proved() {
    let synapse = Synapse::start().await;
    let owner = synapse.register("owner").await;
    let client = client(&synapse, &owner);
    let keys = keys(&client).await;
    for version in ["1", "2", "3", "6", "10", "11", "12"] {
        let room = synapse.create_room(&owner, version, json!({})).await;
        let text = json!({ "msgtype": "m.text", "body": "ungesagt: ä€😀" });
        let message = synapse.send(&owner, &room, "m.room.message", text).await;
        let redaction = synapse.redact(&owner, &room, &message, json!({ "reason": "ü" })).await;
        synapse.redact(&owner, &room, &redaction, json!({ "redacts": redaction, "own": true })).await;
        let raws = walk(&client, &room).await;
        let counts = check(&room, version, &raws, &keys);
        assert_eq!((counts[1], counts[2]), (2, 0), "version {version}");
    }
}

#[tokio::test]
async fn a_changed_event_is_not_proved() {
    let synapse = Synapse::start().await;
    let owner = synapse.register("owner").await;
    let client = client(&synapse, &owner);
    let keys = keys(&client).await;
    for version in ["1", "5", "9", "12"] {
        let room = synapse.create_room(&owner, version, json!({})).await;
        let text = json!({ "msgtype": "m.text", "body": "said" });
        synapse.send(&owner, &room, "m.room.message", text).await;
        let raw = walk(&client, &room).await.remove(0);
        let served: Value = serde_json::from_str(raw.get()).unwrap();
        let read = |event: &Value| {
            let raw = serde_json::value::to_raw_value(event).unwrap();
            SignedEvent::read(&room, version, &raw)
        };
        let verify = |event: &Value| read(event).unwrap().verify_signatures(&keys);
        let mut changed = served.clone();
        changed["content"]["body"] = json!("not said");
        assert!(!read(&changed).unwrap().content_hash_fits());

        // The room versions 1 and 2 have no hash for an id: there the signature shows it.
        let mut changed = served.clone();
        changed["depth"] = json!(77);
        match read(&changed) {
            Ok(event) => {
                assert_eq!(version, "1");
                assert!(matches!(event.verify_signatures(&keys), Err(Unverified::Wrong { .. })));
            }
            Err(error) => assert!(matches!(error, Unproved::WrongId { .. }), "{error}"),
        }

        let mut changed = served.clone();
        let signature = served["signatures"]["localhost"]["ed25519:a_1"].as_str().unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        changed["signatures"]["localhost"]["ed25519:a_1"] = json!(format!("{flipped}{}", &signature[1..]));
        assert!(matches!(verify(&changed), Err(Unverified::Wrong { .. })));
        changed["signatures"] = json!({ "elsewhere": { "ed25519:a_1": signature } });
        assert!(matches!(verify(&changed), Err(Unverified::NotSigned { .. })));
        changed["signatures"] = json!({ "localhost": { "ed25519:b": signature } });
        assert!(matches!(verify(&changed), Err(Unverified::NoKey { .. })));
        let mut elsewhere = served.clone();
        elsewhere["room_id"] = json!("!other:localhost");
        assert_eq!(read(&elsewhere).unwrap_err(), Unproved::OtherRoom);
    }
}

/// A list of keys proves nothing if its server did not sign it.
#[tokio::test]
async fn the_keys_are_the_servers_own_word() {
    let synapse = Synapse::start().await;
    let owner = synapse.register("owner").await;
    let client = client(&synapse, &owner);
    let lists = client.server_keys("localhost", &["ed25519:a_1"], 0).await.unwrap();
    let list: Value = serde_json::from_str(&lists[0].canonical_json()).unwrap();
    KeyResponse::read(&list.to_string()).unwrap();
    for change in ["valid_until_ts", "server_name"] {
        let mut changed = list.clone();
        changed[change] = if change == "server_name" { json!("other") } else { json!(1) };
        KeyResponse::read(&changed.to_string()).unwrap_err();
    }
    assert!(client.server_keys("elsewhere", &["ed25519:a_1"], 0).await.unwrap().is_empty());
    // A user without that room may not read it, but may ask for keys.
    assert!(synapse.call(Method::GET, "/joined_rooms", Some(&owner), None).await.is_ok());
}
