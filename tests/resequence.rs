//! `backscroll resequence`: exactly the server's order, whatever came when.

use crate::support::{
    homeserver::{ALICE, Event, Fault, Request},
    stage::Stage,
};

async fn resequence(stage: &Stage, room: &str) {
    let outcome = stage.backscroll.run(&["resequence", room]).await;
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let rest = "select (select count(*) from archive.resequences)
        + (select count(*) from archive.resequenced_events)";
    assert_eq!(stage.database.value(rest).await, "0");
}

/// A room whose order in the archive is not the server's: events came late, by /sync and by walks.
async fn disorder(stage: &Stage) -> String {
    let room = stage.room(30);
    stage.once().await;
    let ids = stage.server.visible_ids(&room);
    stage.server.insert_after(&room, &ids[10], Event::message("late"));
    stage.server.backfill_insert_after(&room, &ids[20], Event::message("fetched"));
    stage.say(&room, "live", 3);
    stage.server.insert_after(&room, &ids[5], Event::message("later"));
    stage.once().await;
    assert_ne!(stage.timeline(&room).await, stage.server.visible_ids(&room), "there is something to do");
    room
}

#[tokio::test]
async fn a_room_gets_the_server_s_order() {
    let stage = Stage::new().await;
    let room = disorder(&stage).await;
    resequence(&stage, &room).await;
    // What only this walk has found is there too.
    stage.is_archived(&room).await;
    let positions =
        "select string_agg(event_id || position || xmin, ',' order by event_id) from archive.events";
    let before = stage.database.value(positions).await;
    resequence(&stage, &room).await;
    assert_eq!(stage.database.value(positions).await, before, "done again, it changes no row");
    stage.say(&room, "after", 5);
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn killed_between_pages_it_goes_on() {
    let stage = Stage::new().await;
    let room = disorder(&stage).await;
    let before = stage.timeline(&room).await;
    let asked = stage.server.requests("/messages").len();
    stage.server.inject(Fault::stall().on("/messages").after(2));
    let mut daemon = stage.backscroll.start(&["resequence", &room]);
    stage.server.has_been_asked("/messages", asked + 3).await;
    let pages = "select coalesce(sum(pages), 0) from archive.resequences";
    daemon.until("two pages are read", async || stage.database.value(pages).await == "2").await;
    daemon.kill().await;
    stage.server.heal();
    assert_eq!(stage.timeline(&room).await, before, "readers see one order or the other");
    let asked = stage.server.requests("/messages").len();
    resequence(&stage, &room).await;
    let again = stage.server.requests("/messages").len() - asked;
    assert!(again <= 4, "it went on and did not begin anew: {again} requests");
    stage.is_archived(&room).await;
}

/// What came between is in no part of the order that was read before.
#[tokio::test]
async fn after_news_it_begins_anew() {
    let stage = Stage::new().await;
    let room = disorder(&stage).await;
    stage.server.inject(Fault::stall().on("/messages").after(2));
    let mut daemon = stage.backscroll.start(&["resequence", &room]);
    let pages = "select coalesce(sum(pages), 0) from archive.resequences";
    daemon.until("two pages are read", async || stage.database.value(pages).await == "2").await;
    daemon.kill().await;
    stage.server.heal();
    let newest = stage.server.visible_ids(&room).len() - 2;
    let near_the_top = stage.server.visible_ids(&room)[newest].clone();
    stage.server.insert_after(&room, &near_the_top, Event::message("late again"));
    stage.once().await;
    resequence(&stage, &room).await;
    stage.is_archived(&room).await;
}

/// What the server has purged stays where it was: above its old lower neighbour, or at the bottom.
#[tokio::test]
async fn what_the_server_lists_no_more_keeps_its_neighbour() {
    let stage = Stage::new().await;
    let room = disorder(&stage).await;
    let old = stage.timeline(&room).await;
    let gone = stage.server.visible_ids(&room)[15].clone();
    let lower = old[old.iter().position(|id| *id == gone).unwrap() - 1].clone();
    stage.server.conceal(&room, &gone);
    resequence(&stage, &room).await;
    let now = stage.timeline(&room).await;
    assert_eq!(now[now.iter().position(|id| *id == gone).unwrap() - 1], lower);
    let listed: Vec<_> = now.into_iter().filter(|id| *id != gone).collect();
    assert_eq!(listed, stage.server.visible_ids(&room));

    let kept = listed[12].clone();
    let purged = listed[..12].to_vec();
    stage.server.purge(&room, &kept);
    stage.server.message(&room, ALICE, "after the purge");
    stage.once().await;
    resequence(&stage, &room).await;
    let mut now = stage.timeline(&room).await;
    now.retain(|id| *id != gone);
    assert_eq!(now[..12], purged);
    assert_eq!(now[12..], stage.server.visible_ids(&room));
}

#[tokio::test]
async fn an_unknown_room_is_refused() {
    let stage = Stage::new().await;
    let refused = stage.backscroll.run(&["resequence", "!nowhere:hs"]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
}

/// A walk that is in mid-course goes on where it stood, whatever its next page knows.
#[tokio::test]
async fn a_walk_that_is_not_done_goes_on_where_it_stood() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    stage.once().await;
    let lower = stage.server.visible_ids(&room)[25].clone();
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "missed", 45);
    let refused = || Fault::error(404, "M_NOT_FOUND", "No such room").on("/messages");
    // The second pass, without `to`.
    stage.server.inject(refused().when(|request: &Request| request.query("to").is_none()).after(2));
    stage.once_with_stalled_rooms().await;
    let cursor = "select cursor from archive.walks where state = 'stalled'";
    let cursor = stage.database.value(cursor).await;
    stage.server.heal();
    // Out of order, so that there is something to do.
    stage.server.backfill_insert_after(&room, &lower, Event::message("fetched"));
    // The walk's own page is refused, so that it stays where it is.
    stage.server.inject(refused().with_query("from", &cursor));
    resequence(&stage, &room).await;
    stage.server.heal();
    let known = stage.server.visible_ids(&room);
    let next = known[known.len() - 21].clone();
    for number in 0..12 {
        stage.server.backfill_insert_after(&room, &next, Event::message(&format!("later {number}")));
    }
    stage.once().await;
    stage.is_archived(&room).await;
}
