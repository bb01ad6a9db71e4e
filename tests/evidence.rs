//! `backscroll evidence`: what it writes is good, what was changed is noticed, and what was removed is not in it.

use std::{path::Path, process::Command};

use backscroll::matrix::proof::evidence;
use serde_json::{Value, json};

use crate::support::{
    archive::mentions,
    daemon::{Backscroll, Outcome},
    postgres::TestDatabase,
    synapse::{Synapse, User, server::python},
};

const SECRET: &str = "canary-of-evidence: é€😀";

struct Place {
    synapse: Synapse,
    database: TestDatabase,
    owner: User,
    archivist: User,
    backscroll: Backscroll,
    directory: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let synapse = Synapse::start().await;
        let owner = synapse.register("owner").await;
        let archivist = synapse.register("archivist").await;
        let database = TestDatabase::new().await;
        let backscroll = Backscroll::new(synapse.url(), &archivist.access_token, Some(database.url()));
        Self { synapse, database, owner, archivist, backscroll, directory: tempfile::tempdir().unwrap() }
    }

    async fn room(&self, version: &str) -> String {
        let room = self.synapse.create_room(&self.owner, version, json!({ "preset": "public_chat" })).await;
        self.synapse.join(&self.archivist, &room).await;
        room
    }

    async fn say(&self, room: &str, body: &str) -> String {
        let text = json!({ "msgtype": "m.text", "body": body });
        self.synapse.send(&self.owner, room, "m.room.message", text).await
    }

    /// Writes a file of evidence, which must be good.
    async fn evidence(&self, event_id: &str) -> String {
        let file = self.directory.path().join("evidence.json");
        let written = self.backscroll.run(&["evidence", event_id, "--output", file.to_str().unwrap()]).await;
        assert!(written.status.success(), "{}", written.stderr);
        let text = std::fs::read_to_string(file).unwrap();
        assert!(evidence::check(&text).unwrap().wrong.is_empty());
        text
    }

    /// What `evidence check` says of a file.
    async fn check(&self, text: &str) -> Outcome {
        let file = self.directory.path().join("to-check.json");
        std::fs::write(&file, text).unwrap();
        // Elsewhere, without an archive.
        Backscroll::new("http://127.0.0.1:1", "none", Some("postgres://nobody@127.0.0.1:1/none"))
            .run(&["evidence", "check", file.to_str().unwrap()])
            .await
    }

    /// What another implementation says of it: its exit code and its line.
    fn third_party(&self, text: &str) -> (Option<i32>, String) {
        let file = self.directory.path().join("third-party.json");
        std::fs::write(&file, text).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/check.py");
        let checked = Command::new(python()).arg(script).arg(file).output().unwrap();
        (checked.status.code(), String::from_utf8_lossy(&checked.stdout).trim().to_owned())
    }
}

/// The paths of all leaves.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                leaves(value, &format!("{path}/{}", escaped(name)), found);
            }
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
        Value::Number(number) => json!(number.as_i64().unwrap() ^ 1),
        Value::Object(_) => json!({ "new": 1 }),
        Value::Array(_) => json!(["new"]),
        Value::Bool(_) | Value::Null => json!("other"),
    }
}

/// Every leaf, altered alone, makes the file bad. Returns how many there are.
fn every_leaf_counts(text: &str) -> usize {
    let file: Value = serde_json::from_str(text).unwrap();
    let mut paths = Vec::new();
    leaves(&file, "", &mut paths);
    for path in &paths {
        let mut changed = file.clone();
        let leaf = changed.pointer_mut(path).unwrap();
        *leaf = altered(leaf);
        let noticed = match evidence::check(&changed.to_string()) {
            Ok(findings) => !findings.wrong.is_empty(),
            Err(_) => true,
        };
        assert!(noticed, "{path}");
    }
    paths.len()
}

#[tokio::test]
async fn evidence_is_good_and_every_change_is_noticed() {
    let place = Place::new().await;
    let mut rooms = Vec::new();
    for version in ["1", "3", "6", "9", "10", "11", "12"] {
        let room = place.room(version).await;
        let said = place.say(&room, SECRET).await;
        let redacted = place.say(&room, "to be redacted").await;
        let redaction = place.synapse.redact(&place.owner, &room, &redacted, json!({ "reason": "ü" })).await;
        rooms.push((version, said, redacted, redaction));
    }
    place.backscroll.once().await;
    for (version, said, redacted, redaction) in rooms {
        for (event_id, kind) in [(&said, "whole"), (&redacted, "redacted"), (&redaction, "whole")] {
            let text = place.evidence(event_id).await;
            assert!(!text.contains("to be redacted"));
            assert_eq!(place.third_party(&text), (Some(0), kind.to_owned()), "version {version}");
            assert!(every_leaf_counts(&text) > 40, "version {version}");
        }
        let text = place.evidence(&said).await;
        let checked = place.check(&text).await;
        assert_eq!(checked.status.code(), Some(0), "{}", checked.stdout);
        let sentence = "@owner:localhost sent an event of type m.room.message in the room !";
        assert!(checked.stdout.contains(sentence), "{}", checked.stdout);
        let is_hash = checked.stdout.contains("The room's id is the hash of its create event.");
        assert_eq!(is_hash, version == "12");
        let checked = place.check(&text.replace("canary", "Canary")).await;
        assert_eq!(checked.status.code(), Some(1));
        assert!(checked.stdout.contains("content hash does not fit"), "{}", checked.stdout);
        assert_eq!(place.third_party(&text.replace("canary", "Canary")).0, Some(1));
    }
    for (text, code) in [("{}", 64), ("no JSON", 64)] {
        assert_eq!(place.check(text).await.status.code(), Some(code));
    }
}

/// What is missing from the chain, or does not belong there, is named.
#[tokio::test]
async fn a_chain_is_whole_and_has_nothing_else() {
    let place = Place::new().await;
    let room = place.room("10").await;
    let said = place.say(&room, "said").await;
    let other = place.room("10").await;
    let elsewhere = place.say(&other, "elsewhere").await;
    let joined = place.synapse.register("joined").await;
    place.synapse.join(&joined, &room).await;
    let text = json!({ "msgtype": "m.text", "body": "by another" });
    let by_another = place.synapse.send(&joined, &room, "m.room.message", text).await;
    place.backscroll.once().await;
    let file: Value = serde_json::from_str(&place.evidence(&said).await).unwrap();
    let wrong = |file: &Value| evidence::check(&file.to_string()).unwrap().wrong.join(" ");
    for number in 0..file["auth_chain"].as_array().unwrap().len() {
        let mut changed = file.clone();
        changed["auth_chain"].as_array_mut().unwrap().remove(number);
        assert!(wrong(&changed).contains("is missing"), "{}", wrong(&changed));
    }
    let of =
        async |event_id: &str| -> Value { serde_json::from_str(&place.evidence(event_id).await).unwrap() };
    let add = |event: &Value| {
        let mut changed = file.clone();
        changed["auth_chain"].as_array_mut().unwrap().push(event.clone());
        wrong(&changed)
    };
    assert!(add(&of(&elsewhere).await["event"]).contains("another room"));
    assert!(add(&of(&by_another).await["event"]).contains("is not in the event's auth chain"));
    assert!(add(&file["auth_chain"][0]).contains("twice"));
    let mut changed = file.clone();
    changed["server_keys"] = json!([]);
    assert!(wrong(&changed).contains("is not known, so its signature cannot be checked"));
    let mut changed = file.clone();
    changed["event"] = of(&by_another).await["event"].clone();
    assert!(wrong(&changed).contains("event_id names another"));
}

/// With `evidence.keep` a file can be written when the homeserver is gone.
#[tokio::test]
async fn what_is_kept_outlasts_the_homeserver_but_not_a_redaction() {
    let mut place = Place::new().await;
    place.backscroll = place.backscroll.set("BACKSCROLL_EVIDENCE__KEEP", "true");
    let room = place.room("11").await;
    let stays = place.say(&room, "stays").await;
    let goes = place.say(&room, SECRET).await;
    place.backscroll.once().await;
    let whole = place.evidence(&goes).await;
    let first = place.evidence(&stays).await;
    assert_eq!(mentions(&place.database, SECRET).await, ["events", "evidence"]);

    place.synapse.redact(&place.owner, &room, &goes, json!({})).await;
    place.backscroll.once().await;
    assert_eq!(mentions(&place.database, SECRET).await, [""; 0]);
    place.synapse.stop();
    assert_eq!(place.evidence(&stays).await, first, "without the homeserver");
    let left = place.evidence(&goes).await;
    assert_ne!(left, whole);
    assert!(!left.contains("canary"));
    let checked = place.check(&left).await;
    assert!(checked.status.success() && checked.stdout.contains("It was redacted"), "{}", checked.stdout);
    assert_eq!(place.third_party(&left), (Some(0), "redacted".to_owned()));
}

#[tokio::test]
async fn an_erasure_reaches_what_is_kept() {
    let mut place = Place::new().await;
    place.backscroll = place.backscroll.set("BACKSCROLL_EVIDENCE__KEEP", "true");
    let room = place.room("10").await;
    let name = json!({ "membership": "join", "displayname": SECRET });
    let owner = place.owner.user_id.clone();
    place.synapse.send_state(&place.owner, &room, "m.room.member", &owner, name).await;
    let said = place.say(&room, SECRET).await;
    place.backscroll.once().await;
    place.evidence(&said).await;
    assert!(mentions(&place.database, SECRET).await.contains(&"evidence".to_owned()));
    let erased = place.backscroll.run(&["erase", "--yes", "--user", &owner]).await;
    assert!(erased.status.success() && erased.stdout.contains("evidence"), "{}", erased.stdout);
    assert_eq!(mentions(&place.database, SECRET).await, [""; 0]);
    place.backscroll.once().await;
    // The homeserver still has what was erased here.
    place.database.run("delete from archive.evidence").await;
    assert!(place.evidence(&said).await.contains("canary"));
    let kept = format!("select count(*) from archive.evidence where event_id = '{said}'");
    assert_eq!(place.database.value(&kept).await, "1");
    assert_eq!(mentions(&place.database, SECRET).await, [""; 0], "it does not come back");

    let erased = place.backscroll.run(&["erase", "--yes", "--room", &room]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    assert_eq!(place.database.value("select count(*) from archive.evidence").await, "0");
}

/// Events of another server are proved with its own keys, which the homeserver passes on.
#[tokio::test]
async fn another_servers_event_is_proved() {
    let (near, far) = tokio::join!(Synapse::start_federating(), Synapse::start_federating());
    let (alice, archivist) = (near.register("alice").await, near.register("archivist").await);
    let bob = far.register("bob").await;
    let room = near.create_room(&alice, "10", json!({ "preset": "public_chat" })).await;
    near.join(&archivist, &room).await;
    far.join_through(&bob, &room, &near).await;
    let text = json!({ "msgtype": "m.text", "body": SECRET });
    let said = far.send(&bob, &room, "m.room.message", text).await;
    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(near.url(), &archivist.access_token, Some(database.url()));
    let stored = format!("select count(*) from archive.events where event_id = '{said}'");
    for _ in 0..20 {
        backscroll.once().await;
        if database.value(&stored).await == "1" {
            break;
        }
    }
    let written = backscroll.run(&["evidence", &said]).await;
    assert!(written.status.success(), "{}", written.stderr);
    let findings = evidence::check(&written.stdout).unwrap();
    let signed = format!("is signed by {} with the key ed25519:", far.name());
    assert!(findings.proved.iter().any(|sentence| sentence.contains(&signed)), "{findings:?}");
    let file: Value = serde_json::from_str(&written.stdout).unwrap();
    let mut servers: Vec<_> =
        file["server_keys"].as_array().unwrap().iter().map(|list| list["server_name"].clone()).collect();
    servers.sort_by_key(ToString::to_string);
    let mut expected = [near.name(), far.name()];
    expected.sort_unstable();
    assert_eq!(servers, expected);
    every_leaf_counts(&written.stdout);
}
