//! `state_at` and `members_at`, and the name of a sender at the time.

use crate::support::{
    homeserver::{ALICE, BOB, Event},
    stage::Stage,
};

fn name(stage: &Stage, room: &str, name: &str) -> String {
    let content = format!(r#"{{"membership":"join","displayname":"{name}"}}"#);
    stage.server.append(room, Event::state("m.room.member", BOB, content).from(BOB))
}

#[tokio::test]
async fn the_past_is_as_it_was() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    name(&stage, &room, "Bob");
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"first"}"#);
    let early = stage.server.message(&room, BOB, "early");
    name(&stage, &room, "Robert");
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"second"}"#);
    stage.once().await;
    let mut daemon = stage.followed(&room).await;
    let late = stage.server.message(&room, BOB, "late");
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"third"}"#);
    stage.server.state(&room, "m.room.member", BOB, r#"{"membership":"leave"}"#);
    let last = stage.server.message(&room, ALICE, "last");
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;

    let at = |event_id: &str| format!("(select position from events where event_id = '{event_id}')");
    for (event_id, topic, membership, shown) in [
        (&early, "first", "join", "Bob"),
        (&late, "second", "join", "Robert"),
        (&last, "third", "leave", "Robert"),
    ] {
        let query = format!(
            "select content ->> 'topic' from state_at('{room}', {}) where type = 'm.room.topic'",
            at(event_id)
        );
        assert_eq!(stage.database.column(&query).await, [topic]);
        let member = format!(
            "select membership || ' ' || display_name from members_at('{room}', {}) where user_id = '{BOB}'",
            at(event_id)
        );
        assert_eq!(stage.database.column(&member).await, [format!("{membership} {shown}")]);
    }
    // A literal without a type is a time, or a whole number, which is a position.
    let position = stage.database.value(&at(&late)).await;
    for (moment, topic) in
        [("'tomorrow'", "third"), ("at => 'infinity'", "third"), (&format!("'{position}'"), "second")]
    {
        let query = format!(
            "select content ->> 'topic' from state_at('{room}', {moment}) where type = 'm.room.topic'"
        );
        assert_eq!(stage.database.column(&query).await, [topic], "{moment}");
        let members = format!("select count(*) from members_at('{room}', {moment})");
        assert_ne!(stage.database.value(&members).await, "0", "{moment}");
    }
    let names = "select sender_name_then || ' ' || sender_name from messages where sender = '@bob:model.test' order by position";
    assert_eq!(stage.database.column(names).await, ["Bob Robert", "Robert Robert"]);
    // Each state key once, and now as in force.
    let now = format!(
        "select count(*) from (select type, state_key, event_id from state_at('{room}', {})
                               except select type, state_key, event_id from current_state where room_id = '{room}') x",
        at(&last)
    );
    assert_eq!(stage.database.value(&now).await, "0");
}
