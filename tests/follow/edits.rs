//! Edited events: archived as they were sent, whatever the server makes of them.

use std::time::Duration;

use crate::support::{
    homeserver::{ALICE, Edits, Event, Fault},
    stage::Stage,
};

/// Alice edits one of her messages.
fn edit(stage: &Stage, room: &str, original: &str, body: &str) -> String {
    let content = format!(
        r#"{{"msgtype":"m.text","body":"* {body}","m.new_content":{{"msgtype":"m.text","body":"{body}"}},
            "m.relates_to":{{"rel_type":"m.replace","event_id":"{original}"}}}}"#
    );
    stage.server.append(room, Event::new("m.room.message", content))
}

/// A room with so many messages that were edited, the last twice, and one that answers another and was too.
fn edited(stage: &Stage, room: &str, count: usize) {
    let originals = stage.say(room, "original", count);
    for original in &originals {
        edit(stage, room, original, "edited");
    }
    edit(stage, room, &originals[count - 1], "edited again");
    let reply = format!(
        r#"{{"msgtype":"m.text","body":"reply","m.relates_to":{{"m.in_reply_to":{{"event_id":"{}"}}}}}}"#,
        originals[0]
    );
    let reply = stage.server.append(room, Event::new("m.room.message", reply));
    edit(stage, room, &reply, "edited reply");
}

fn asked_singly(stage: &Stage) -> usize {
    stage.server.requests("/event/").len()
}

/// P60: by a walk, by a gap's, and live.
#[tokio::test]
async fn an_edit_in_the_events_place_is_undone() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| (habits.edits, habits.timeline_cap) = (Edits::InPlace, 12));
    let (room, left_out) = (stage.room(3), stage.room(3));
    edited(&stage, &room, 4);
    edited(&stage, &left_out, 4);
    let stage = stage.set("rooms.exclude", &left_out);
    let mut daemon = stage.followed(&room).await;
    stage.is_archived(&room).await;
    assert_eq!(asked_singly(&stage), 5);

    // Each in one response: reported while the next one waits.
    for (count, name) in [(2, "live"), (8, "a gap")] {
        stage.server.inject(Fault::delay(Duration::from_millis(300)).on("/sync").times(1));
        edited(&stage, &room, count);
        edited(&stage, &left_out, count);
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.content_difference(&room).await, None, "{name}");
    }
    daemon.stop().await;
    let relations = "select count(*) from events where content -> 'm.relates_to' ? 'm.in_reply_to'
                                                   and relates_to is null and content ->> 'body' = 'reply'";
    assert_eq!(stage.database.value(relations).await, "3");

    // What is archived is not asked for again.
    let asked = asked_singly(&stage);
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    assert_eq!(asked_singly(&stage), asked);
    edited(&stage, &room, 2);
    let sequenced = stage.backscroll.run(&["resequence", &room]).await;
    assert!(sequenced.status.success(), "{}", sequenced.stderr);
    stage.is_archived(&room).await;
    assert_eq!(asked_singly(&stage), asked + 3);
}

#[tokio::test]
async fn whole_edits_in_a_bundle_need_no_question() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.edits = Edits::Bundled);
    let room = stage.room(3);
    edited(&stage, &room, 4);
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(asked_singly(&stage), 0);
}

/// A server that limits the rate gives the events later; one that does not give an event on its own costs no page.
#[tokio::test]
async fn what_is_not_given_singly_stays_as_it_was_served() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.edits = Edits::InPlace);
    let room = stage.room(3);
    let lost = stage.server.message(&room, ALICE, "original");
    edit(&stage, &room, &lost, "edited");
    edited(&stage, &room, 6);
    stage.server.inject(Fault::too_many(&[], "0").on("/event/").times(9));
    stage.server.inject(Fault::error(404, "M_NOT_FOUND", "gone").on(&format!("/event/{lost}")));
    stage.once().await;
    let body = format!("select content ->> 'body' from events where event_id = '{lost}'");
    assert_eq!(stage.database.value(&body).await, "edited");
    let others = "select count(*) from events where content ->> 'body' like 'original %'";
    assert_eq!(stage.database.value(others).await, "6");
    assert_eq!(stage.history(&room).await, "complete");
}
