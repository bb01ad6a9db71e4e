//! `backscroll import --from`: what other programs wrote comes in, and never above the homeserver's word.

mod bad;
mod element;
mod gomuks;
mod known;
mod synapse;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    agreement::stored,
    daemon::{Backscroll, Outcome},
    derived::assert_derived,
    homeserver::{Homeserver, stable_json},
    postgres::TestDatabase,
    synapse::{Served, Synapse, User},
};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// A room with some of everything, and its only member.
async fn conversation(synapse: &Synapse, version: &str) -> (User, String) {
    let alice = synapse.register(&format!("alice{version}")).await;
    let room = synapse.create_room(&alice, version, json!({ "preset": "public_chat", "name": "Old" })).await;
    let mut said = Vec::new();
    for number in 0..30 {
        said.push(synapse.send(&alice, &room, "m.room.message", text(&format!("word {number}"))).await);
    }
    let edit = json!({
        "msgtype": "m.text", "body": "* edited", "m.new_content": text("edited"),
        "m.relates_to": { "rel_type": "m.replace", "event_id": said[3] },
    });
    synapse.send(&alice, &room, "m.room.message", edit).await;
    let thread = json!({
        "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": said[4] },
    });
    synapse.send(&alice, &room, "m.room.message", thread).await;
    let reaction =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said[6], "key": "👍" } });
    synapse.send(&alice, &room, "m.reaction", reaction).await;
    for topic in ["first", "second", "third"] {
        synapse.send_state(&alice, &room, "m.room.topic", "", json!({ "topic": topic })).await;
    }
    synapse
        .send(&alice, &room, "m.room.message", r#"{"msgtype":"m.text","body":"a\u0000b\ud83d\ude00"}"#)
        .await;
    synapse.redact(&alice, &room, &said[5], json!({ "reason": "why not" })).await;
    // Enough for several portions.
    for number in 30..40 {
        synapse.send(&alice, &room, "m.room.message", text(&format!("word {number}"))).await;
    }
    (alice, room)
}

/// An archive of that user, and its program.
async fn archive(synapse: &Synapse, user: &User) -> (TestDatabase, Backscroll) {
    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(synapse.url(), &user.access_token, Some(database.url()))
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms");
    (database, backscroll)
}

async fn import(backscroll: &Backscroll, kind: &str, path: &Path) -> Outcome {
    backscroll.run(&["import", "--from", kind, path.to_str().unwrap()]).await
}

/// The same where it must succeed. Returns what it says.
async fn imported(backscroll: &Backscroll, kind: &str, path: &Path) -> String {
    let outcome = import(backscroll, kind, path).await;
    assert!(outcome.status.success(), "{:?} {}", outcome.status, outcome.stderr);
    outcome.stdout
}

async fn marks(database: &TestDatabase) -> String {
    database.value("select count(*) from imported_events").await
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("import-").tempdir().unwrap()
}

/// The room as the homeserver shows it, oldest first.
async fn served(synapse: &Synapse, user: &User, room: &str) -> Vec<Served> {
    let mut served = synapse.walk(user, room).await;
    served.reverse();
    served
}

/// The archive has the timeline `served`, every event as it was served, and nothing else, each marked.
async fn assert_imported(database: &TestDatabase, room: &str, version: &str, served: &[Served]) {
    let stored = stored(database.url(), room, version).await;
    let ids: Vec<&str> = stored.iter().map(|event| event.event_id.as_str()).collect();
    let expected: Vec<&str> = served.iter().map(|event| event.event_id.as_str()).collect();
    assert_eq!(ids, expected, "{version}");
    for (stored, served) in stored.iter().zip(served) {
        assert!(stored.position.is_some(), "{version} {}", stored.event_id);
        assert_eq!(stored.stable, stable_json(version, served.raw.get().as_bytes()), "{}", served.raw.get());
    }
    assert_eq!(marks(database).await, served.len().to_string());
    let raw = "select count(raw) from archive.events";
    assert_eq!(database.value(raw).await, "1", "only a NUL needs the bytes, {version}");
    let room =
        format!("select membership, history_state, room_version from archive.rooms where room_id = '{room}'");
    assert_eq!(database.rows(&room).await, [["leave", "none", version]]);
    assert_derived(database.url()).await;
}

/// A program whose homeserver knows none of the rooms, and its archive.
async fn offline() -> (Homeserver, TestDatabase, Backscroll) {
    let server = Homeserver::start().await;
    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(server.url(), &server.access_token(), Some(database.url()));
    (server, database, backscroll)
}

/// Messages with the numbers as ids.
fn messages(room: &str, numbers: Range<usize>) -> Vec<Value> {
    let message = |number: usize| {
        json!({
            "event_id": format!("${number}"), "room_id": room, "sender": "@a:hs", "type": "m.room.message",
            "origin_server_ts": number, "content": text(&format!("word {number}")),
        })
    };
    numbers.map(message).collect()
}

/// The file that Element writes with these messages.
fn element_file(folder: &Path, messages: &[Value]) -> PathBuf {
    let export = json!({
        "room_name": "Old", "room_creator": "Alice", "topic": "", "export_date": "1 January 2026",
        "exported_by": "Alice", "messages": messages,
    });
    let path = folder.join("export.json");
    fs::write(&path, serde_json::to_string_pretty(&export).unwrap()).unwrap();
    path
}
