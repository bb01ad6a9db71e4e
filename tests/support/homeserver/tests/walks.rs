//! Walks through the graph.

use super::super::{ALICE, ARCHIVER, BOB, Event, Habits, Homeserver, LastPage};
use super::{LIMIT_10, escape_path, get, ids, newest_first, sync, text, walk};

/// Finding 1: what arrived late but sorts early is lost to a walk from the initial sync's `prev_batch`, and only to it.
#[tokio::test]
async fn late_events_are_lost_from_prev_batch_but_not_from_next_batch() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let messages = server.append_many(&room, 20);
    let late = server.insert_after(&room, &messages[6], Event::message("late").from(BOB));
    let first = sync(&server, LIMIT_10).await;
    let timeline = ids(&first, &["rooms", "join", &room, "timeline", "events"]);
    assert_eq!(timeline, messages[10..]);
    let prev_batch = text(&first, &["rooms", "join", &room, "timeline", "prev_batch"]).unwrap();
    let next_batch = text(&first, &["next_batch"]).unwrap();
    assert!(!walk(&server, &room, &prev_batch, "&limit=5").await.0.contains(&late));
    assert_eq!(walk(&server, &room, &next_batch, "&limit=5").await.0, newest_first(&server, &room));
    assert_eq!(walk(&server, &room, "", "&limit=5").await.0, newest_first(&server, &room));
}

/// Finding 2: `to=since` hides history the server fetched from others, which /sync never delivers either.
#[tokio::test]
async fn backfilled_events_hide_from_sync_and_from_to() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let before = server.message(&room, ALICE, "before");
    let since = server.now();
    server.federation_gap(&room);
    let missed = server.backfill_insert_after(&room, &before, Event::message("missed"));
    let after = server.message(&room, ALICE, "after");
    let answer = sync(&server, &format!("since={since}")).await;
    let joined = answer.at(&["rooms", "join", &room]).unwrap();
    assert_eq!(ids(joined, &["timeline", "events"]), [after.as_str()]);
    assert!(joined.at(&["timeline", "limited"]).unwrap().is_true());
    let prev_batch = text(joined, &["timeline", "prev_batch"]).unwrap();
    assert!(!walk(&server, &room, &prev_batch, &format!("&to={since}")).await.0.contains(&missed));
    assert!(walk(&server, &room, &prev_batch, "").await.0.contains(&missed));
    assert_eq!(server.visible_ids(&room)[4..], [before, missed, after]);
}

/// P1-P5, P8: the ways to end, and the ways to dawdle.
#[tokio::test]
async fn every_habit_of_pagination_still_leads_to_the_beginning() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    server.append_many(&room, 8);
    let all = newest_first(&server, &room);
    assert_eq!(walk(&server, &room, "", "&limit=4").await, (all.clone(), 4), "one extra page");
    let pages: [(Habits, usize); 5] = [
        (Habits::dendrite(), 3),
        (Habits { last_page: LastPage::EmptyString, ..Habits::synapse() }, 4),
        (Habits { last_page: LastPage::Null, ..Habits::synapse() }, 4),
        (Habits { short_pages: Some(3), ..Habits::synapse() }, 5),
        (Habits { page_cap: 2, state_in_pages: true, ..Habits::synapse() }, 7),
    ];
    for (habits, expected) in pages {
        server.behave(|now| *now = habits);
        assert_eq!(walk(&server, &room, "", "&limit=4").await, (all.clone(), expected));
    }
    server.behave(|habits| *habits = Habits { empty_pages: 2, ..Habits::synapse() });
    assert_eq!(walk(&server, &room, "", "&limit=4").await, (all.clone(), 12));
    server.behave(|habits| *habits = Habits { repeat_end: 4, ..Habits::synapse() });
    assert_eq!(walk(&server, &room, &server.now(), "&limit=3").await.0, all);
    server.behave(|habits| *habits = Habits { overlap: 2, ..Habits::synapse() });
    let (mut overlapping, _) = walk(&server, &room, "", "&limit=4").await;
    assert!(overlapping.len() > all.len());
    overlapping.dedup_by_key(|id| all.iter().position(|other| other == id).unwrap());
    assert!(all.iter().all(|id| overlapping.contains(id)));
    for sickness in [
        Habits { repeat_end: usize::MAX, ..Habits::synapse() },
        Habits { cycle: Some(2), ..Habits::synapse() },
    ] {
        server.behave(|habits| *habits = sickness);
        assert_eq!(walk(&server, &room, "", "&limit=4").await.1, 100, "never ends");
    }
}

/// P2, P102: what the account may not see makes pages empty, but does not end them.
#[tokio::test]
async fn invisible_events_make_empty_pages_with_an_end() {
    let server = Homeserver::start().await;
    let room = server.create_room_by("10", ALICE);
    server.state(&room, "m.room.history_visibility", "", r#"{"history_visibility":"joined"}"#);
    server.append_many(&room, 3);
    let join = server.join(&room, ARCHIVER);
    let shown = server.visible_ids(&room);
    assert_eq!(shown.len(), 6);
    assert_eq!(shown[5], join);
    let (found, pages) = walk(&server, &room, "", "&limit=1").await;
    assert_eq!((found, pages), (newest_first(&server, &room), 10));
}

/// P137, P140: after a purge old cursors lead nowhere, and the create event is in /state only.
#[tokio::test]
async fn a_purge_takes_the_beginning_away() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let messages = server.append_many(&room, 6);
    let path = format!("rooms/{}/messages?dir=b&limit=2", escape_path(&room));
    let cursor = text(&get(&server, &path).await.1, &["end"]).unwrap();
    server.purge(&room, &messages[4]);
    let (_, page, _) = get(&server, &format!("{path}&from={cursor}")).await;
    assert!(page.get("chunk").unwrap().items().is_empty() && page.get("end").is_none());
    assert_eq!(server.visible_ids(&room), messages[4..]);
    let (status, _, _) = get(&server, &format!("rooms/{}/state/m.room.create", escape_path(&room))).await;
    assert_eq!(status, 200);
}

/// P13, P24, P25, P134: tokens that are refused, and the way back in.
#[tokio::test]
async fn bad_tokens_are_refused_and_context_gives_new_ones() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let messages = server.append_many(&room, 6);
    let path = |part: &str| format!("rooms/{}/{part}", escape_path(&room));
    assert_eq!(get(&server, &path("messages?dir=b&from=garbage")).await.0, 400);
    assert_eq!(get(&server, &path("messages?dir=b&from=t1-99999_0")).await.0, 400);
    assert_eq!(get(&server, "sync?since=").await.0, 400);
    assert_eq!(get(&server, "sync?since=t3-4_0").await.0, 500);
    assert_eq!(get(&server, "sync?since=s99999").await.0, 200);
    let (_, context, _) =
        get(&server, &path(&format!("context/{}?limit=2", escape_path(&messages[3])))).await;
    assert_eq!(ids(&context, &["events_before"]), messages[2..3]);
    assert_eq!(ids(&context, &["events_after"]), messages[4..5]);
    let start = text(&context, &["start"]).unwrap();
    assert_eq!(walk(&server, &room, &start, "").await.0[..2], [messages[1].clone(), messages[0].clone()]);
}

/// Protocol 4.1: a walk from the bootstrap's `next_batch` and the later syncs miss nothing but what was backfilled
/// behind the cursor; and a new walk misses nothing at all.
#[tokio::test]
async fn whatever_happens_a_walk_and_the_tail_make_the_room() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let server = Homeserver::start_with_seed(seed).await;
        let room = server.create_room("10");
        for _ in 0..random.usize(1..40) {
            happen(&server, &room, &mut random);
        }
        let start = text(&sync(&server, LIMIT_10).await, &["next_batch"]).unwrap();
        let (mut cursor, mut found) = (Some(start.clone()), Vec::new());
        while let Some(from) = cursor {
            let path = format!("rooms/{}/messages?dir=b&limit=4&from={from}", escape_path(&room));
            let (_, page, _) = get(&server, &path).await;
            found.extend(ids(&page, &["chunk"]));
            cursor = text(&page, &["end"]);
            happen(&server, &room, &mut random);
        }
        let wide = LIMIT_10.replace("A10", "A100");
        let tail = sync(&server, &format!("since={start}&{wide}")).await;
        found.extend(ids(&tail, &["rooms", "join", &room, "timeline", "events"]));
        let walked = walk(&server, &room, "", "&limit=4").await.0;
        assert_eq!(walked, newest_first(&server, &room), "seed {seed}");
        let backfilled = |id: &String| server.shared.lock().room(&room).is_backfilled(id);
        let missed: Vec<_> = walked.iter().filter(|id| !found.contains(id) && !backfilled(id)).collect();
        assert!(missed.is_empty(), "seed {seed} missed {missed:?}");
    }
}

fn happen(server: &Homeserver, room: &str, random: &mut fastrand::Rng) {
    let known = server.visible_ids(room);
    let any = random.choice(&known).unwrap();
    match random.u8(..6) {
        0 => server.insert_after(room, any, Event::message("late")),
        1 => server.backfill_insert_after(room, any, Event::message("history")),
        2 => server.redact(room, any),
        3 => server.state(room, "m.room.topic", "", r#"{"topic":"t"}"#),
        _ => server.message(room, ALICE, "now"),
    };
}
