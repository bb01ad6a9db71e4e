//! Walks that look again (P47, P161): what the server itself learns late is in no `/sync`.

use crate::support::{
    archive::updated_rows,
    homeserver::{ALICE, ARCHIVER, Event},
    stage::Stage,
};

const NEXT: &str = "select round from archive.walks where kind = 'rewalk' and state = 'open'";

/// A room, what was said in it, and an event among that which the server lacks.
fn room_with_a_hole(stage: &Stage) -> (String, Vec<String>, String) {
    let room = stage.room(5);
    let spoken = stage.say(&room, "known", 30);
    let hidden = stage.server.insert_after(&room, &spoken[12], Event::message("a hole of one message"));
    stage.server.hide(&room, &hidden);
    (room, spoken, hidden)
}

#[tokio::test]
async fn what_the_server_learns_later_is_found_where_it_belongs() {
    let stage = Stage::new().await.set("backfill.rewalk_after", r#"["1s"]"#);
    let (room, spoken, hidden) = room_with_a_hole(&stage);
    let mut daemon = stage.followed(&room).await;
    stage.server.message(&room, ALICE, "live");
    stage.server.reveal(&room, &hidden);
    stage.server.backfill_insert_after(&room, &spoken[20], Event::message("fetched from elsewhere"));
    stage.agrees_in_order(&mut daemon, &room).await;
}

#[tokio::test]
async fn rewalks_grow_rare_while_they_find_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    stage.once().await;
    let before = updated_rows(&stage.database).await;
    stage.database.run("update archive.walks set not_before = now() where kind = 'rewalk'").await;
    let stage = stage.set("backfill.rewalk_after", r#"["1ms", "1ms", "1h"]"#);
    let mut daemon = stage.followed(&room).await;
    daemon.until("two have found nothing", async || stage.database.value(NEXT).await == "2").await;
    let pause = "select extract(epoch from not_before - opened_at)::int from archive.walks
                 where kind = 'rewalk' and state = 'open'";
    assert_eq!(stage.database.value(pause).await, "3600");
    assert_eq!(stage.history(&room).await, "complete");
    daemon.stop().await;
    assert_eq!(updated_rows(&stage.database).await, before);
}

/// Its first page holds nothing that has a place yet, and belongs above all that has one.
#[tokio::test]
async fn a_rewalk_that_begins_in_a_gap_stays_above_what_is_there() {
    let stage = Stage::new().await.set("backfill.rewalk_after", r#"["1s"]"#);
    let (room, other) = (stage.room(25), stage.room(3));
    let mut daemon = stage.followed(&room).await;
    let choose = async |what| {
        let outcome = stage.backscroll.run(&["rooms", what, &room]).await;
        assert!(outcome.status.success(), "{}", outcome.stderr);
    };
    choose("pause").await;
    stage.say(&room, "unheard", 130);
    let due = "select count(*) > 0 from archive.walks join archive.rooms using (room_id)
               where kind = 'rewalk' and not watched and state = 'open' and not_before < now()";
    daemon.until("a rewalk is due", async || stage.database.value(due).await == "t").await;
    stage.server.message(&other, ALICE, "the token moves on");
    stage.agrees(&mut daemon, &other).await;
    choose("resume").await;
    let newest = stage.server.visible_ids(&room).pop().unwrap();
    let sql = format!("select count(*) from events where event_id = '{newest}'");
    daemon.until("it is taken up", async || stage.database.value(&sql).await == "1").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// The account may be let in again, and what the server learns late is still in no `/sync`.
#[tokio::test]
async fn a_rewalk_that_is_refused_is_made_again() {
    let stage = Stage::new().await.set("backfill.rewalk_after", r#"["1s"]"#);
    let (room, _, hidden) = room_with_a_hole(&stage);
    let mut daemon = stage.followed(&room).await;
    stage.server.ban(&room, ARCHIVER);
    let refused = "select count(*) > 0 from archive.walks where kind = 'rewalk' and last_error is not null";
    daemon.until("a rewalk is refused", async || stage.database.value(refused).await == "t").await;
    stage.server.kick(&room, ARCHIVER);
    stage.server.join(&room, ARCHIVER);
    // Two, where a response reports the kick alone.
    let closed = "select coalesce(bool_and(g.state = 'closed' and r.membership = 'join'), false)
                  from archive.gaps g join archive.rooms r using (room_id)";
    daemon.until("the gaps of the ban are closed", async || stage.database.value(closed).await == "t").await;
    stage.server.reveal(&room, &hidden);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// P140: a history that was cut short when it was first walked, and is not any more.
#[tokio::test]
async fn a_rewalk_completes_what_was_truncated() {
    let stage = Stage::new().await.set("backfill.rewalk_after", r#"["1s"]"#);
    let room = stage.room(5);
    let hidden: Vec<String> = stage.server.visible_ids(&room);
    stage.say(&room, "visible", 5);
    for event in &hidden {
        stage.server.hide(&room, event);
    }
    let mut daemon = stage.follow();
    daemon.until("it is truncated", async || stage.history_or_none(&room).await == "truncated").await;
    for event in &hidden {
        stage.server.reveal(&room, event);
    }
    stage.agrees_in_order(&mut daemon, &room).await;
}
