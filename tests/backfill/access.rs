//! Rooms and cursors that are lost on the way, and pages that are too large.

use std::sync::OnceLock;

use crate::support::{
    homeserver::{ALICE, ARCHIVER, Fault, Request},
    stage::Stage,
};

#[tokio::test]
async fn a_dead_cursor_begins_the_walk_anew() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    stage.once_for_pages(2).await;
    let cursor = stage.database.value("select cursor from archive.walks").await;
    stage.server.inject(Fault::dead_cursor(&cursor));
    let before = stage.server.requests("/messages").len();
    stage.once().await;
    stage.is_archived(&room).await;
    let asked = stage.server.requests("/messages").split_off(before);
    let refused = asked.iter().take_while(|asked| asked.query("from") == Some(&cursor)).count();
    assert!(refused >= 4, "asked {refused} times before it is believed");
    assert_eq!(asked[refused].query("from"), None, "from the newest event");
}

/// A walk that is begun anew may stall at another dead cursor; that is no reason to be stalled for ever.
#[tokio::test]
async fn each_start_may_begin_a_walk_anew() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    let dead = || Fault::error(400, "M_UNKNOWN", "'from' parameter is invalid").on("/messages");
    stage.server.inject(dead().when(|request: &Request| request.query("from").is_some()).after(2));
    stage.once_with_stalled_rooms().await;
    assert_eq!(stage.history(&room).await, "stalled");
    stage.server.heal();

    let cursor = stage.database.value("select cursor from archive.walks where state = 'stalled'").await;
    stage.server.inject(Fault::dead_cursor(&cursor));
    let before = stage.server.requests("/messages").len();
    stage.once().await;
    stage.is_archived(&room).await;
    let asked = stage.server.requests("/messages").split_off(before);
    assert_eq!(asked[0].query("from"), Some(&*cursor), "from the dead cursor");
    assert!(asked.iter().any(|asked| asked.query("from").is_none()), "from the newest event");
}

/// The cursor dies while there is more above the archive than fits a page.
#[tokio::test]
async fn a_walk_begun_anew_stands_above_the_archive() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    stage.once_for_pages(2).await;
    stage.say(&room, "unheard", 25);
    let cursor = stage.database.value("select cursor from archive.walks").await;
    stage.server.inject(Fault::dead_cursor(&cursor));
    // The backward loop alone, so that /sync does not tell of the new ones first.
    let other = stage.backscroll.run(&["backfill", &room, "--from", &stage.server.now()]).await;
    assert!(other.status.success(), "{}", other.stderr);
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_room_that_was_left_is_archived_up_to_the_leave() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    stage.server.leave(&room, ARCHIVER);
    stage.server.message(&room, ALICE, "after");
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(stage.server.visible_ids(&room).len(), 30);
    let membership = format!("select membership from rooms where room_id = '{room}'");
    assert_eq!(stage.database.value(&membership).await, "leave");
}

#[tokio::test]
async fn a_ban_takes_nothing_from_the_archive() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(45), stage.room(25));
    let all = stage.server.visible_ids(&room);
    stage.server.inject(Fault::stall().on("/messages").in_room(&other));
    stage.server.inject(Fault::stall().on("/messages").in_room(&room).after(2));
    let mut daemon = stage.backscroll.start(&["run", "--once"]);
    daemon.until("two pages are stored", async || stage.timeline(&room).await.len() == 20).await;
    daemon.kill().await;
    stage.server.heal();

    stage.server.ban(&room, ARCHIVER);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert!(stage.reason(&room).await.contains("M_FORBIDDEN"), "{}", stage.reason(&room).await);
    let kept = stage.timeline(&room).await;
    assert_eq!(kept[..20], all[29..], "the pages from before the ban");
    assert_eq!(kept.len(), 21, "and the ban");
    stage.is_archived(&other).await;
    let membership = format!("select membership from rooms where room_id = '{room}'");
    assert_eq!(stage.database.value(&membership).await, "ban");
}

/// P11: while it fetches from another server, a server may pass on the other's refusal.
#[tokio::test]
async fn the_refusal_of_another_server_passes_with_a_smaller_page() {
    let stage = Stage::new().await.set("backfill.page_size", "40");
    let room = stage.room(35);
    let too_much =
        |request: &Request| request.query("limit").is_some_and(|limit| limit.parse::<u32>().unwrap() > 10);
    stage.server.inject(Fault::forbidden().on("/messages").when(too_much));
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn pages_shrink_with_trouble_and_grow_again() {
    let stage = Stage::new().await.set("backfill.page_size", "80");
    let room = stage.room(200);
    stage.server.inject(Fault::bad_gateway().on("/messages").times(2));
    stage.once().await;
    stage.is_archived(&room).await;
    let limits: Vec<_> = stage
        .server
        .requests("/messages")
        .iter()
        .map(|asked| asked.query("limit").unwrap().to_owned())
        .collect();
    assert_eq!(limits, ["80", "40", "20", "40", "80", "80", "80"]);
}

#[tokio::test]
async fn several_rooms_are_walked_at_once_and_each_alone() {
    let stage = Stage::new().await.set("backfill.concurrency", "3");
    let rooms: Vec<_> = (0..5).map(|_| stage.room(40)).collect();
    stage.server.inject(Fault::stall().on("/messages"));
    let daemon = stage.backscroll.start(&["run", "--once"]);
    stage.server.has_been_asked("/messages", 3).await;
    let mut asked: Vec<_> =
        stage.server.requests("/messages").iter().map(|asked| asked.room().unwrap().to_owned()).collect();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 3, "three rooms at once, each asked once");
    daemon.kill().await;
    stage.server.heal();

    stage.once().await;
    for room in &rooms {
        stage.is_archived(room).await;
        assert_eq!(stage.server.most_at_once(room), 1, "one request a room at a time");
    }
}

#[tokio::test]
async fn a_room_that_gets_no_answer_holds_up_no_other() {
    let stage = Stage::new().await.set("backfill.concurrency", "2");
    let (silent, other) = (stage.room(25), stage.room(25));
    stage.server.inject(Fault::stall().on("/messages").in_room(&silent));
    let mut daemon = stage.followed(&other).await;
    let live = stage.say(&other, "live", 3);
    stage.agrees_in_order(&mut daemon, &other).await;
    assert!(stage.timeline(&other).await.ends_with(&live));
    daemon.stop().await;
}

/// The room that is asked first fails.
fn first_fails(stage: &Stage, fault: Fault) {
    let first = OnceLock::new();
    let is_first = move |request: &Request| {
        let room = request.room().map(str::to_owned);
        request.path().contains("/messages") && *first.get_or_init(|| room.clone()) == room
    };
    stage.server.inject(fault.when(is_first));
}

/// Not even if no slot is free but its own.
#[tokio::test]
async fn a_room_that_fails_gives_way_to_the_others() {
    let stage = Stage::new().await.set("backfill.concurrency", "1");
    let rooms = [stage.room(25), stage.room(25)];
    first_fails(&stage, Fault::bad_gateway());
    let mut daemon = stage.follow();
    let complete = "select count(*) from rooms where history_state = 'complete'";
    daemon.until("the other is there", async || stage.database.value(complete).await == "1").await;
    stage.server.heal();
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    daemon.stop().await;
}

async fn once_archives_the_other(fault: Fault) {
    let stage = Stage::new().await.set("backfill.concurrency", "1");
    let rooms = [stage.room(25), stage.room(25)];
    first_fails(&stage, fault);
    let outcome = stage.backscroll.run(&["run", "--once"]).await;
    assert_eq!(outcome.status.code(), Some(69), "{}", outcome.stderr);
    let failing = stage.server.requests("/messages")[0].room().unwrap().to_owned();
    let other = rooms.iter().find(|room| **room != failing).unwrap();
    stage.is_archived(other).await;
}

#[tokio::test]
async fn once_archives_what_it_can_and_then_fails() {
    let closed = Fault::error(403, "M_RESOURCE_LIMIT_EXCEEDED", "This homeserver is closed");
    tokio::join!(once_archives_the_other(Fault::bad_gateway()), once_archives_the_other(closed));
}
