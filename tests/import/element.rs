//! What Element's "Export chat" writes as JSON, made from a real Synapse's events.

use serde_json::{Value, json};

use super::{
    archive, conversation, directory, element_file, import, imported, marks, messages, served, text,
};
use crate::support::{
    agreement::{assert_agrees, assert_settled},
    archive::{dump, timeline},
    derived::assert_derived,
    synapse::{Served, Synapse, User},
};

const KIND: &str = "element-json";

/// The messages that Element exports of these events: what it shows as a tile, with the room's id, and
/// decrypted.
fn shown(served: &[Served], room: &str, decrypted: &Value) -> Vec<Value> {
    let value = |event: &Served| serde_json::from_str::<Value>(event.raw.get()).unwrap();
    let is_shown = |event: &Value| {
        !["m.reaction", "m.room.redaction"].contains(&event["type"].as_str().unwrap())
            && event["content"]["m.relates_to"]["rel_type"] != "m.replace"
    };
    let mut shown: Vec<Value> = served.iter().map(value).filter(is_shown).collect();
    for event in &mut shown {
        event["room_id"] = json!(room);
        if event["type"] == "m.room.encrypted" {
            (event["type"], event["content"]) = (json!("m.room.message"), decrypted.clone());
        }
    }
    shown
}

/// A conversation in which a message is encrypted.
async fn encrypted(synapse: &Synapse) -> (User, String, Vec<Served>) {
    let (alice, room) = conversation(synapse, "10").await;
    let sealed = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA", "session_id": "s" });
    synapse.send(&alice, &room, "m.room.encrypted", sealed).await;
    synapse.send(&alice, &room, "m.room.message", text("after it")).await;
    let served = served(synapse, &alice, &room).await;
    (alice, room, served)
}

#[tokio::test]
async fn what_element_shows_comes_in_and_gives_way() {
    let synapse = Synapse::start().await;
    let (alice, room, served) = encrypted(&synapse).await;
    let shown = shown(&served, &room, &text("it is decrypted"));
    let folder = directory();
    let file = element_file(folder.path(), &shown);

    let (database, backscroll) = archive(&synapse, &alice).await;
    let said = imported(&backscroll, KIND, &file).await;
    assert!(said.contains(&format!("{} stored, 0 known already, 0 set aside", shown.len())), "{said}");
    let ids: Vec<&str> = shown.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(timeline(&database, &room).await, ids);
    assert_eq!(marks(&database).await, ids.len().to_string());
    let decrypted = "select count(*) from messages where body = 'it is decrypted'";
    assert_eq!(database.value(decrypted).await, "1");
    assert_derived(database.url()).await;

    backscroll.once().await;
    assert_eq!((database.value(decrypted).await, marks(&database).await), ("0".to_owned(), "0".to_owned()));
    assert_agrees(database.url(), &synapse, &alice, &room).await;
    assert_settled(database.url()).await;
    let theirs = dump(database.url()).await;
    let said = imported(&backscroll, KIND, &file).await;
    assert!(said.contains("0 stored"), "{said}");
    assert_eq!(dump(database.url()).await, theirs, "a decrypted copy does not replace the homeserver's");
}

/// An archive that never imported has the same, but for the positions.
#[tokio::test]
async fn the_homeserver_makes_what_it_would_have_made_without_the_import() {
    let synapse = Synapse::start().await;
    let (alice, room, served) = encrypted(&synapse).await;
    let folder = directory();
    let file = element_file(folder.path(), &shown(&served, &room, &text("it is decrypted")));
    let mut dumps = Vec::new();
    for imports in [false, true] {
        let (database, backscroll) = archive(&synapse, &alice).await;
        if imports {
            imported(&backscroll, KIND, &file).await;
        }
        backscroll.once().await;
        let order = timeline(&database, &room).await;
        database.run("update archive.events set position = null").await;
        dumps.push((order, dump(database.url()).await));
    }
    assert_eq!(dumps[0], dumps[1]);
}

/// Nothing at the top of the file says which room it is.
#[tokio::test]
async fn the_room_is_named_by_the_messages_or_the_operator() {
    let folder = directory();
    let (_server, database, backscroll) = super::offline().await;
    let mut unnamed = messages("!r:hs", 0..3);
    for message in &mut unnamed {
        message.as_object_mut().unwrap().remove("room_id");
    }
    let file = element_file(folder.path(), &unnamed);
    let refused = import(&backscroll, KIND, &file).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("name it with --room"), "{}", refused.stderr);
    assert_eq!(database.value("select count(*) from archive.rooms").await, "0");

    let path = file.to_str().unwrap();
    let named = backscroll.run(&["import", "--from", KIND, path, "--room", "!r:hs"]).await;
    assert!(named.status.success(), "{}", named.stderr);
    assert_eq!(timeline(&database, "!r:hs").await, ["$0", "$1", "$2"]);

    let file = element_file(folder.path(), &messages("!r:hs", 3..5));
    let other = backscroll.run(&["import", "--from", KIND, path, "--room", "!other:hs"]).await;
    assert_eq!(other.status.code(), Some(65), "{}", other.stderr);
    assert!(other.stderr.contains("line 5"), "{}", other.stderr);
    imported(&backscroll, KIND, &file).await;
    assert_eq!(marks(&database).await, "5");
}
