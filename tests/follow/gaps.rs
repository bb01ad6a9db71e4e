//! Holes: opened with the response that leaves them, closed by walks, with every event between its neighbours.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    homeserver::{Event, Fault, Request, StateAfter},
    stage::Stage,
};

async fn reasons(stage: &Stage) -> Vec<String> {
    stage.database.column("select reason || ': ' || state from gaps order by gap_id").await
}

const LIMITED: &str = "the server left events out of the sync (limited timeline): closed";

#[tokio::test]
async fn a_limited_timeline_is_a_gap_that_closes() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    // The response in hand reports the first of these; the next one comes when all have arrived.
    stage.server.inject(Fault::delay(Duration::from_millis(500)).on("/sync").times(1));
    stage.say(&room, "in a rush", 45);
    stage.agrees_in_order(&mut daemon, &room).await;
    // One for each response that the rush was spread over.
    let gaps = reasons(&stage).await;
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap == LIMITED), "{gaps:?}");
    stage.say(&room, "later", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_missed_while_down_is_fetched() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 45);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"while down"}"#);
    stage.say(&room, "while down too", 10);
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LIMITED]);
    assert_eq!(stage.server.most_at_once(&room), 1);
}

#[tokio::test]
async fn gaps_that_wait_are_filled_each_in_its_place() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    for span in ["first", "second", "third"] {
        stage.say(&room, span, 25);
        stage.server.inject(Fault::bad_gateway().on("/messages"));
        let mut daemon = stage.follow();
        let last = stage.server.visible_ids(&room).pop().unwrap();
        let sql = format!("select count(*) from events where event_id = '{last}'");
        daemon.until("the newest event is there", async || stage.database.value(&sql).await == "1").await;
        daemon.kill().await;
    }
    assert_eq!(stage.database.column("select state from gaps").await, ["open"; 3]);
    stage.server.heal();
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LIMITED; 3]);
}

/// Finding 2: what the server fetched from others is invisible under `to`; the second pass finds it.
#[tokio::test]
async fn an_outage_of_federation_is_filled_too() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    let first = stage.say(&room, "before the outage", 2).pop().unwrap();
    stage.server.federation_gap(&room);
    stage.say(&room, "after the outage", 3);
    let mut earlier = first;
    for number in 0..25 {
        let event = Event::message(&format!("in the outage {number}"));
        earlier = stage.server.backfill_insert_after(&room, &earlier, event);
    }
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    let kinds = "select kind from archive.walks where gap_id is not null order by walk_id";
    assert_eq!(stage.database.column(kinds).await, ["gap_since", "gap_known", "gap_recheck"]);
}

/// P16, P45: a hole of the server itself that it fills in the background, after the walks have passed.
#[tokio::test]
async fn the_recheck_finds_what_the_server_learnt_meanwhile() {
    let stage = Stage::new().await.set("backfill.recheck_after", "3s");
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    let spoken = stage.say(&room, "while down", 10);
    let hidden = stage.server.insert_after(&room, &spoken[4], Event::message("not there yet"));
    stage.server.hide(&room, &hidden);
    stage.server.federation_gap(&room);
    stage.say(&room, "after", 2);
    let mut daemon = stage.follow();
    let recheck = "select count(*) from archive.walks where kind = 'gap_recheck' and state = 'open'";
    daemon.until("the recheck waits", async || stage.database.value(recheck).await == "1").await;
    stage.server.reveal(&room, &hidden);
    stage.agrees_in_order(&mut daemon, &room).await;
}

/// It could be led into a newer gap, which the next response of `/sync` reports.
#[tokio::test]
async fn a_later_pass_waits_until_sync_is_current() {
    let stage = Stage::new().await.set("backfill.recheck_after", "1h");
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 45);
    let mut daemon = stage.follow();
    let recheck = "select count(*) from archive.walks where kind = 'gap_recheck' and state = 'open'";
    daemon.until("the recheck waits", async || stage.database.value(recheck).await == "1").await;
    daemon.stop().await;
    stage.database.run("update archive.walks set not_before = now() where kind = 'gap_recheck'").await;
    let before = stage.server.journal().len();
    stage.server.inject(Fault::bad_gateway().on("/sync").times(2));
    let mut daemon = stage.follow();
    daemon.until("the recheck is made", async || stage.database.value(recheck).await == "0").await;
    let asked: Vec<String> = stage.server.journal()[before..].iter().map(Request::path).collect();
    let page = asked.iter().position(|path| path.ends_with("/messages")).unwrap();
    let syncs = asked[..page].iter().filter(|path| path.ends_with("/sync")).count();
    assert!(syncs >= 3, "two failed and one did not: {asked:?}");
}

/// While the history is still being walked.
#[tokio::test]
async fn a_gap_above_a_history_that_is_not_done() {
    let stage = Stage::new().await;
    let room = stage.room(55);
    stage.once_for_pages(2).await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 45);
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LIMITED]);
}

/// P4: a page of what the account may not see can come without an `end`.
#[tokio::test]
async fn an_end_that_is_missing_within_a_gap_leaves_it_open() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 45);
    stage.server.inject(Fault::without_end().on("/messages"));
    let mut daemon = stage.follow();
    daemon.until("it is stalled", async || stage.history(&room).await == "stalled").await;
    assert_eq!(stage.database.column("select state from gaps").await, ["open"]);
    assert!(stage.reason(&room).await.contains("the gap continues"));
    daemon.stop().await;
    stage.server.heal();
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// A walk may meet, before `/sync` reports it, what arrived late and belongs far below; then a timeline begins with what is
/// known, or ends with it.
#[tokio::test]
async fn what_a_walk_has_met_before_the_sync_stays_where_it_is() {
    for late_first in [false, true] {
        let stage = Stage::new().await;
        let (room, other) = (stage.room(55), stage.room(3));
        let ids = stage.server.visible_ids(&room);
        stage.once_for_pages(3).await;
        stage.server.behave(|habits| habits.timeline_cap = 5);
        let late = || stage.server.insert_after(&room, &ids[10], Event::message("late"));
        stage.say(&room, "while down", 8);
        if late_first {
            late();
            stage.say(&room, "while down too", 4);
        } else {
            stage.say(&room, "while down too", 4);
            late();
        }
        let walked = stage.backscroll.run(&["backfill", &other]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
        stage.once().await;
        stage.is_archived(&room).await;
    }
}

/// The walks of a gap end soon below it, not at the start of the room.
#[tokio::test]
async fn a_small_gap_in_a_long_room_takes_few_requests() {
    let stage = Stage::new().await.set("backfill.page_size", "100");
    let room = stage.room(1500);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 25);
    let asked = stage.server.requests("/messages").len();
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    let asked = stage.server.requests("/messages").len() - asked;
    assert!(asked <= 12, "{asked} requests for a gap of one page in a room of sixteen");
}

#[tokio::test]
async fn a_cursor_that_dies_within_a_gap_begins_anew() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "while down", 45);
    let (asked, dead, is_over) = (AtomicUsize::new(0), OnceLock::new(), AtomicBool::new(false));
    let is_dead = move |request: &Request| {
        let Some(from) = request.query("from").filter(|_| request.is_messages()) else {
            is_over.fetch_or(request.is_messages(), Ordering::Relaxed);
            return false;
        };
        if asked.fetch_add(1, Ordering::Relaxed) == 2 {
            dead.get_or_init(|| from.to_owned());
        }
        !is_over.load(Ordering::Relaxed) && dead.get().is_some_and(|dead| dead == from)
    };
    stage.server.inject(Fault::error(400, "M_UNKNOWN", "'from' parameter is invalid").when(is_dead));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.database.value("select count(*) from archive.walks where restarted").await, "1");
}

/// One that does not begin anew any more is still below what came live since it began.
#[tokio::test]
async fn a_history_of_many_empty_pages_stands_below_what_came_live() {
    for empty in [3, 40] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        stage.server.behave(|habits| habits.empty_pages = empty);
        stage.once_for_pages(empty - 2).await;
        stage.say(&room, "live", 15);
        stage.once().await;
        stage.is_archived(&room).await;
    }
}

/// What a server learns of an outage stands above what was reported before it, also where an older gap is looked through once
/// more first, or the history has not begun yet or has passed no event: each is walked from above all that is known.
#[tokio::test]
async fn an_outage_is_placed_right_whatever_is_walked_first() {
    for pages_of_history in [Some(0), Some(1), None] {
        let stage = Stage::new().await.set("backfill.recheck_after", "1h");
        let room = stage.room(15);
        if let Some(empty) = pages_of_history {
            stage.server.behave(|habits| habits.empty_pages = empty);
            stage.once_for_pages(empty).await;
        } else {
            stage.once().await;
            stage.server.behave(|habits| habits.timeline_cap = 5);
            stage.say(&room, "burst", 25);
            stage.once().await;
        }
        let before = stage.say(&room, "before", 5);
        stage.server.federation_gap(&room);
        stage.say(&room, "after", 3);
        for number in 0..25 {
            let earlier = &before[before.len() - 1];
            stage.server.backfill_insert_after(&room, earlier, Event::message(&format!("outage {number}")));
        }
        for _ in 0..3 {
            stage
                .database
                .run("update archive.walks set not_before = now() where kind = 'gap_recheck'")
                .await;
            stage.once().await;
        }
        stage.is_archived(&room).await;
    }
}

const LEFT_OUT: &str = "the server left events out of the sync and did not say so: closed";

/// Cuts the room's timeline in answers to `/sync` down to what `keeps` of it, and says that nothing is missing.
fn cut(room: &str, keeps: impl Fn(&serde_json::Value) -> bool + Send + Sync + 'static) -> Fault {
    let room = room.to_owned();
    let fault = Fault::change(move |reply| {
        let mut answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let timeline = &mut answer["rooms"]["join"][&room]["timeline"];
        if let Some(events) = timeline["events"].as_array_mut() {
            events.retain(|event| keeps(event));
            timeline["limited"] = false.into();
            reply.body = answer.to_string().into_bytes();
        }
    });
    fault.on("/sync")
}

/// P28: what a state event replaced was never reported.
#[tokio::test]
async fn a_cut_that_the_server_denies_is_a_gap() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"known"}"#);
    stage.once().await;
    stage.say(&room, "left out", 15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"left out"}"#);
    stage.say(&room, "left out too", 5);
    let last = stage.server.state(&room, "m.room.topic", "", r#"{"topic":"sent"}"#);
    stage.server.inject(cut(&room, move |event| event["event_id"] == *last).times(1));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LEFT_OUT]);
    // What is reported whole makes none.
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"later"}"#);
    stage.say(&room, "later", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LEFT_OUT]);
    daemon.stop().await;
}

/// Nor does the timeline have what the state holds.
#[tokio::test]
async fn a_cut_that_the_state_betrays_is_a_gap() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.state_after = StateAfter::Stable);
    let room = stage.room(15);
    stage.once().await;
    stage.say(&room, "left out", 15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"left out"}"#);
    let last = stage.say(&room, "last", 1).remove(0);
    stage.server.inject(cut(&room, move |event| event["event_id"] == *last).times(1));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LEFT_OUT]);
    daemon.stop().await;
}

/// `/state` is asked for beside `/sync`, and may be answered first: the state that it gives does not hide the hole.
#[tokio::test]
async fn a_cut_is_a_gap_also_where_the_state_was_stored_before_the_response() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"known"}"#);
    stage.once().await;
    stage.say(&room, "left out", 15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"left out"}"#);
    let last = stage.server.state(&room, "m.room.topic", "", r#"{"topic":"last"}"#);
    let stored = format!("select count(*) from events where event_id = '{last}'");
    let state_is_stored = Arc::new(AtomicBool::new(false));
    let is_stored = Arc::clone(&state_is_stored);
    let too_early =
        move |request: &Request| request.path().ends_with("/sync") && !is_stored.load(Ordering::SeqCst);
    stage.server.inject(Fault::close().when(too_early));
    stage.server.inject(cut(&room, move |event| event["event_id"] == *last).times(1));
    let mut daemon = stage.follow();
    daemon.until("the state is stored", async || stage.database.value(&stored).await == "1").await;
    state_is_stored.store(true, Ordering::SeqCst);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(reasons(&stage).await, [LEFT_OUT]);
    daemon.stop().await;
}

/// The server does not show it to anybody any more: that is looked into once.
#[tokio::test]
async fn what_nobody_can_see_is_one_gap() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"known"}"#);
    let mut daemon = stage.followed(&room).await;
    stage.server.append_hidden(&room, Event::state("m.room.topic", "", r#"{"topic":"hidden"}"#));
    for number in 0..3 {
        stage.server.state(&room, "m.room.topic", "", &format!(r#"{{"topic":"{number}"}}"#));
        stage.say(&room, "sent", 1);
        stage.agrees_in_order(&mut daemon, &room).await;
    }
    assert!(reasons(&stage).await.len() <= 1, "{:?}", reasons(&stage).await);
    daemon.stop().await;
}
