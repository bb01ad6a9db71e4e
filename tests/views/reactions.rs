//! `reactions`: what a client counts.

use serde_json::{Value, json};

use super::{CAROL, edit, related, send, set, text};
use crate::support::{
    homeserver::{ALICE, BOB},
    stage::Stage,
};

fn annotation(event_id: &str, key: impl Into<Value>) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event_id, "key": key.into() } })
}

/// `(relates_to, key, sender)` of the reactions that are shown, in order.
async fn shown(stage: &Stage) -> Vec<Vec<String>> {
    stage.database.rows("select relates_to, key, sender from reactions order by position").await
}

#[tokio::test]
async fn equal_reactions_of_one_sender_count_once() {
    let stage = Stage::new().await;
    let room = stage.room(2);
    let messages = stage.server.visible_ids(&room);
    let [.., one, two] = messages.as_slice() else { panic!("two messages") };
    let react = |sender: &str, target: &str, key: &str| {
        send(&stage, &room, sender, "m.reaction", &annotation(target, key))
    };
    let first = react(ALICE, one, "👍");
    react(ALICE, one, "👍");
    let third = react(ALICE, one, "👍");
    react(ALICE, one, "👎");
    react(BOB, one, "👍");
    react(ALICE, two, "👍");
    stage.once().await;
    let expected = [[&**one, "👍", ALICE], [one, "👎", ALICE], [one, "👍", BOB], [two, "👍", ALICE]];
    assert_eq!(shown(&stage).await, expected);
    let id = format!(
        "select event_id from reactions where sender = '{ALICE}' and key = '👍' and relates_to = '{one}'"
    );
    assert_eq!(stage.database.value(&id).await, first);

    // Of three two are left, then none.
    stage.server.redact(&room, &first);
    stage.server.redact(&room, &third);
    stage.once().await;
    let mut moved = expected.to_vec();
    assert_eq!(shown(&stage).await, moved);
    assert_ne!(stage.database.value(&id).await, first);
    let second = stage.database.value(&id).await;
    stage.server.redact(&room, &second);
    stage.once().await;
    moved.remove(0);
    assert_eq!(shown(&stage).await, moved);
}

#[tokio::test]
async fn what_is_no_reaction_does_not_count() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(1), stage.room(1));
    let target = stage.server.visible_ids(&room).pop().unwrap();
    let foreign = stage.server.visible_ids(&other).pop().unwrap();
    let topic = set(&stage, &room, ALICE, "m.room.topic", "", &json!({ "topic": "likeable" }));
    let threaded = send(
        &stage,
        &room,
        ALICE,
        "m.room.message",
        &related(text("t"), json!({ "rel_type": "m.thread", "event_id": target })),
    );
    let edited = send(&stage, &room, ALICE, "m.room.message", &edit(&target, "edited"));
    let reaction = send(&stage, &room, BOB, "m.reaction", &annotation(&target, "👍"));
    let redacted = send(&stage, &room, ALICE, "m.room.message", &text("gone"));
    for key in [json!(7), json!(null), json!(true), json!(["👍"]), json!({ "key": "👍" }), json!("")] {
        send(&stage, &room, ALICE, "m.reaction", &annotation(&target, key));
    }
    let keyless = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": target } });
    let mut listed = annotation(&target, "👍");
    listed["m.relates_to"] = json!([listed["m.relates_to"]]);
    let mut referring = annotation(&target, "👍");
    referring["m.relates_to"]["rel_type"] = json!("m.reference");
    for content in [
        keyless,
        listed,
        referring,
        annotation(&edited, "👍"),
        annotation(&reaction, "👍"),
        annotation(&foreign, "👍"),
        annotation("$nowhere", "👍"),
        annotation(&redacted, "👍"),
    ] {
        send(&stage, &room, ALICE, "m.reaction", &content);
    }
    send(&stage, &room, ALICE, "org.example.score", &annotation(&target, "👍"));
    send(&stage, &room, ALICE, "m.room.message", &annotation(&target, "👍"));
    set(&stage, &room, ALICE, "m.reaction", "key", &annotation(&target, "👍"));
    let taken_back = send(&stage, &room, ALICE, "m.reaction", &annotation(&target, "👍"));
    stage.server.redact(&room, &taken_back);
    stage.server.redact(&room, &redacted);
    // To state and within a thread they count.
    send(&stage, &room, CAROL, "m.reaction", &annotation(&topic, "any text can be one"));
    send(&stage, &room, CAROL, "m.reaction", &annotation(&threaded, "🧵"));
    stage.once().await;
    let expected = [[&*target, "👍", BOB], [&topic, "any text can be one", CAROL], [&threaded, "🧵", CAROL]];
    assert_eq!(shown(&stage).await, expected);
    stage.is_archived(&room).await;
}
