//! What comes down `/sync`.

use crate::support::{
    homeserver::{ALICE, ARCHIVER, BOB, Event, Fault},
    stage::Stage,
};

#[tokio::test]
async fn messages_and_state_appear_as_they_come() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    for round in 0..5 {
        stage.server.message(&room, ALICE, &format!("live {round}"));
        stage.server.state(&room, "m.room.topic", "", &format!(r#"{{"topic":"topic {round}"}}"#));
        stage.server.join(&room, BOB);
        stage.server.leave(&room, BOB);
        stage.agrees_in_order(&mut daemon, &room).await;
    }
    let read = |column: &str| format!("select {column} from rooms where room_id = '{room}'");
    assert_eq!(stage.database.value(&read("topic")).await, "topic 4");
    let history = "select content ->> 'topic', prev_content ->> 'topic' from state_history
                   where type = 'm.room.topic' order by position";
    let expected = [["topic 0", "∅"], ["topic 1", "topic 0"], ["topic 2", "topic 1"]];
    assert_eq!(stage.database.rows(history).await[..3], expected);
    assert_eq!(stage.database.column("select count(*) from gaps").await, ["0"]);
    daemon.stop().await;

    let current = "select prev_content ->> 'topic' from current_state where type = 'm.room.topic'";
    assert_eq!(stage.database.value(current).await, "topic 3");
    // Where the server says nothing about it, the archive still knows.
    stage.database.run("update archive.events set prev_content = null, replaces_state = null").await;
    assert_eq!(stage.database.value(current).await, "topic 3");
}

#[tokio::test]
async fn what_is_served_twice_is_stored_once() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    stage.server.behave(|habits| habits.stutters = true);
    stage.say(&room, "live", 5);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"x"}"#);
    stage.agrees_in_order(&mut daemon, &room).await;
}

/// P36: an event of another server that belongs further up in the graph comes down at the tail, and stays there.
#[tokio::test]
async fn late_events_stand_where_they_were_first_seen() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let spoken = stage.say(&room, "in time", 15);
    let mut daemon = stage.followed(&room).await;
    let before = stage.timeline(&room).await;
    let late = stage.server.insert_after(&room, &spoken[3], Event::message("late"));
    stage.agrees(&mut daemon, &room).await;
    daemon.stop().await;
    let after = stage.timeline(&room).await;
    assert_eq!(after, [before, vec![late]].concat());

    // A walk meets it elsewhere; positions never change.
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    assert_eq!(stage.timeline(&room).await, after);
}

/// A late state event must not become current if the graph has a newer one.
#[tokio::test]
async fn a_late_state_event_does_not_take_over() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let spoken = stage.say(&room, "before", 5);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"newer"}"#);
    let mut daemon = stage.followed(&room).await;
    let topic = Event::state("m.room.topic", "", r#"{"topic":"older, and late"}"#);
    stage.server.insert_after(&room, &spoken[2], topic);
    stage.server.message(&room, ALICE, "marker");
    stage.agrees(&mut daemon, &room).await;
}

/// Own messages come with a transaction id, and `age` differs every time: no copy may update a row.
#[tokio::test]
async fn reading_again_what_came_live_updates_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    for text in ["one", "two", "three"] {
        stage.server.message(&room, ARCHIVER, text);
    }
    stage.server.state(&room, "m.room.name", "", r#"{"name":"a"}"#);
    stage.server.state(&room, "m.room.name", "", r#"{"name":"b"}"#);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
    let before = crate::support::archive::updated_rows(&stage.database).await;
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    stage.is_archived(&room).await;
    assert_eq!(crate::support::archive::updated_rows(&stage.database).await, before);
}

/// More rooms in one response than the database has locks.
#[tokio::test]
async fn an_account_may_be_in_more_rooms_than_there_are_locks() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    stage.once().await;
    let left: Vec<_> = (0..16_000).map(|number| format!(r#""!left{number}:model.test":{{}}"#)).collect();
    let next = stage.server.now();
    let body = format!(r#"{{"next_batch":"{next}","rooms":{{"leave":{{{}}}}}}}"#, left.join(","));
    let many = Fault::reply(200, &[("Content-Type", "application/json")], body);
    stage.server.inject(many.on("/sync").times(1));
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(stage.database.value("select count(*) from archive.rooms").await, "16001");
}
