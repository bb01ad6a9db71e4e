//! Walks that the operator asks for, by configuration and by command.

use std::fs;

use crate::support::{
    archive::updated_rows,
    homeserver::{Event, Fault},
    stage::Stage,
};

/// A room of which the operator wants only what is older than a token: what is older, and what is newer.
async fn room_with_a_hole(newer: usize) -> (Stage, String, String) {
    let stage = Stage::new().await;
    let room = stage.room(21);
    let token = stage.server.now();
    stage.say(&room, "newer", newer);
    let file = format!("[[rooms.room]]\nid = \"{room}\"\nprev_batch = \"{token}\"\n");
    fs::write(stage.backscroll.path().join("backscroll.toml"), file).unwrap();
    stage.once().await;
    (stage, room, token)
}

async fn gaps(stage: &Stage, room: &str) -> Vec<String> {
    stage.database.column(&format!("select state from gaps where room_id = '{room}' order by gap_id")).await
}

#[tokio::test]
async fn a_prev_batch_archives_what_is_older_and_says_what_is_not() {
    let (stage, room, token) = room_with_a_hole(15).await;
    let all = stage.server.visible_ids(&room);
    assert_eq!(stage.timeline(&room).await, all[..25]);
    assert_eq!(gaps(&stage, &room).await, ["skipped"]);
    let reason = stage.database.value(&format!("select reason from gaps where room_id = '{room}'")).await;
    assert!(reason.contains("prev_batch"), "{reason}");
    let first = &stage.server.requests("/messages")[0];
    assert_eq!(first.query("from"), Some(token.as_str()));

    // What comes live stands above the hole, however the next start is configured.
    stage.say(&room, "live", 5);
    stage.once().await;
    let all = stage.server.visible_ids(&room);
    assert_eq!(stage.timeline(&room).await, [&all[..25], &all[40..]].concat());
}

/// Nothing lies below the create event, so the token is one of above all that is there.
#[tokio::test]
async fn a_walk_from_a_token_that_is_newer_than_the_archive_puts_nothing_below_it() {
    for newer in [5, 10, 35, 150] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        stage.once().await;
        stage.say(&room, "newer", newer);
        let token = stage.server.now();
        stage.say(&room, "newest", 5);
        let walked = stage.backscroll.run(&["backfill", &room, "--from", &token]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
        stage.once().await;
        stage.is_archived(&room).await;
    }
}

/// It was ahead of `/sync`, which then shows what it has passed, with what it did not get to, or with a gap below.
#[tokio::test]
async fn a_whole_walk_that_is_killed_ahead_of_the_sync_leaves_the_order_right() {
    for (pages, timeline_cap) in [(1, 100), (1, 10), (1, 5), (3, 100), (3, 10), (3, 20)] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        stage.once().await;
        stage.server.behave(|habits| habits.timeline_cap = timeline_cap);
        let unheard = stage.say(&room, "unheard", 40);
        // No response reports it.
        stage.server.backfill_insert_after(&room, &unheard[35], Event::message("learnt"));
        stage.server.inject(Fault::stall().on("/messages").after(pages));
        let asked = stage.server.requests("/messages").len();
        let mut daemon = stage.backscroll.start(&["backfill", &room]);
        stage.server.has_been_asked("/messages", asked + pages + 1).await;
        let stored = format!(
            "select coalesce(max(pages), 0) >= {pages} from archive.walks where kind = 'history'
             and state = 'open'"
        );
        daemon.until("its pages are stored", async || stage.database.value(&stored).await == "t").await;
        daemon.kill().await;
        stage.server.heal();
        stage.say(&room, "newer", 3);
        stage.once().await;
        stage.is_archived(&room).await;
    }
}

#[tokio::test]
async fn a_walk_in_a_room_that_is_not_archived_now_is_refused() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    assert!(stage.backscroll.run(&["rooms", "pause", &room]).await.status.success());
    let refused = stage.backscroll.run(&["backfill", &room]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("rooms resume"), "{}", refused.stderr);
    assert_eq!(stage.history(&room).await, "complete");
}

#[tokio::test]
async fn a_whole_walk_fills_the_hole_that_was_skipped() {
    let (stage, room, _) = room_with_a_hole(35).await;
    stage.say(&room, "live", 5);
    stage.once().await;
    let filled = stage.backscroll.run(&["backfill", &room]).await;
    assert!(filled.status.success(), "{}", filled.stderr);
    stage.is_archived(&room).await;
    assert_eq!(gaps(&stage, &room).await, ["closed"]);
}

/// So does a rewalk, from above all that is there.
#[tokio::test]
async fn a_rewalk_fills_the_hole_that_was_skipped() {
    for live in [0, 5] {
        let (stage, room, _) = room_with_a_hole(35).await;
        stage.say(&room, "live", live);
        stage.room(3);
        stage.once().await;
        stage.database.run("update archive.walks set not_before = now() where kind = 'rewalk'").await;
        stage.once().await;
        stage.is_archived(&room).await;
        assert_eq!(gaps(&stage, &room).await, ["closed"]);
    }
}

#[tokio::test]
async fn a_walk_between_tokens_fills_the_hole_that_was_skipped() {
    let (stage, room, to) = room_with_a_hole(35).await;
    let from = stage.server.now();
    stage.say(&room, "live", 5);
    stage.once().await;
    let filled = stage.backscroll.run(&["backfill", &room, "--from", &from, "--to", &to]).await;
    assert!(filled.status.success(), "{}", filled.stderr);
    stage.is_archived(&room).await;
    assert_eq!(gaps(&stage, &room).await, ["closed"]);
    let asked = stage.server.requests("/messages");
    assert_eq!(asked.last().unwrap().query("to"), Some(to.as_str()));
}

/// Without a `to` the walk goes down to the room's start, through what is known.
#[tokio::test]
async fn a_walk_from_a_token_fills_the_hole_that_was_skipped() {
    let (stage, room, _) = room_with_a_hole(35).await;
    let from = stage.server.now();
    let filled = stage.backscroll.run(&["backfill", &room, "--from", &from]).await;
    assert!(filled.status.success(), "{}", filled.stderr);
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
}

/// The account has been away: more is new than fits a page, and `/sync` has not reported it yet.
#[tokio::test]
async fn a_walk_from_the_newest_event_stands_above_the_archive() {
    let stage = Stage::new().await;
    let room = stage.room(21);
    stage.once().await;
    stage.say(&room, "unheard", 25);
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    stage.is_archived(&room).await;
    let before = updated_rows(&stage.database).await;
    stage.say(&room, "live", 5);
    stage.once().await;
    stage.is_archived(&room).await;
    let columns =
        |rows: &str| rows.split(' ').map(|row| row.split('/').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(columns(&updated_rows(&stage.database).await), columns(&before), "nothing is updated");
}

#[tokio::test]
async fn late_events_are_found_by_walking_again() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let spoken = stage.say(&room, "in time", 25);
    stage.once().await;
    for (number, earlier) in spoken.iter().step_by(5).enumerate() {
        stage.server.backfill_insert_after(&room, earlier, Event::message(&format!("fetched {number}")));
    }
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_room_that_is_not_there_is_a_usage_error() {
    let stage = Stage::new().await;
    stage.room(1);
    stage.once().await;
    let unknown = stage.backscroll.run(&["backfill", "!nowhere:model.test"]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("!nowhere:model.test"), "{}", unknown.stderr);
}

/// The operator's token is one of within a gap that is still to be filled, and no page knows where that is.
#[tokio::test]
async fn a_walk_from_within_a_gap_misplaces_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "below", 30);
    let within = stage.server.now();
    stage.say(&room, "above", 30);
    stage.server.inject(Fault::error(404, "M_NOT_FOUND", "No such room").on("/messages"));
    stage.once_with_stalled_rooms().await;
    stage.server.heal();
    let upper = stage.database.value("select upper_token from archive.gaps").await;
    let unlucky = Fault::error(404, "M_NOT_FOUND", "No such room").with_query("from", &upper);
    stage.server.inject(unlucky.on("/messages"));
    let walked = stage.backscroll.run(&["backfill", &room, "--from", &within]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    assert_eq!(gaps(&stage, &room).await, ["open"]);
    let lacking = format!("select count(*) from events where room_id = '{room}' and position is null");
    assert_ne!(stage.database.value(&lacking).await, "0", "nothing showed yet where it was");
    stage.server.heal();
    stage.once().await;
    stage.is_archived(&room).await;
}
