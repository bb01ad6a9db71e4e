//! The tail of the stream, and who may follow it.

use super::super::{ALICE, ARCHIVER, Event, Homeserver, Slot, StateAfter};
use super::{LIMIT_10, escape_path, get, ids, sync, text, walk};

/// P26, P33, P36: an incremental sync is in order of arrival, limited, and silent when there is nothing.
#[tokio::test]
async fn incremental_sync_is_in_order_of_arrival() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let one = server.message(&room, ALICE, "one");
    let two = server.message(&room, ALICE, "two");
    let since = server.now();
    assert!(sync(&server, &format!("since={since}")).await.get("rooms").is_none());
    let late = server.insert_after(&room, &one, Event::message("late"));
    assert_eq!(server.visible_ids(&room)[4..], [one.clone(), late.clone(), two]);
    let answer = sync(&server, &format!("since={since}")).await;
    assert_eq!(ids(&answer, &["rooms", "join", &room, "timeline", "events"]), [late.as_str()]);
    let many = server.append_many(&room, 30);
    let answer = sync(&server, &format!("since={since}&{LIMIT_10}")).await;
    let timeline = answer.at(&["rooms", "join", &room, "timeline"]).unwrap();
    assert_eq!(ids(timeline, &["events"]), many[20..]);
    assert!(timeline.get("limited").unwrap().is_true());
    let prev_batch = text(timeline, &["prev_batch"]).unwrap();
    let gap = walk(&server, &room, &prev_batch, &format!("&to={since}")).await.0;
    assert_eq!(gap.len(), 21, "twenty messages and the late event");
}

#[tokio::test]
async fn sync_wakes_up_when_something_happens() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let target = format!("since={}&timeout=600000", server.now());
    let (answer, id) = tokio::join!(sync(&server, &target), async {
        server.has_been_asked("/sync", 1).await;
        server.message(&room, ALICE, "news")
    });
    assert_eq!(ids(&answer, &["rooms", "join", &room, "timeline", "events"]), [id]);
}

/// Findings 5 and 6: a lost fork shows up in the timeline only, a state reset in `state` only.
#[tokio::test]
async fn forks_and_resets_move_state_behind_the_timeline() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let slot: Slot = ("m.room.topic".to_owned(), String::new());
    let old = server.state(&room, "m.room.topic", "", r#"{"topic":"old"}"#);
    let new = server.state(&room, "m.room.topic", "", r#"{"topic":"new"}"#);
    let since = server.now();
    let loser = server.fork_state(&room, "m.room.topic", "", r#"{"topic":"loser"}"#);
    let answer = sync(&server, &format!("since={since}")).await;
    let joined = answer.at(&["rooms", "join", &room]).unwrap();
    assert_eq!(ids(joined, &["timeline", "events"]), [loser]);
    let event = &joined.at(&["timeline", "events"]).unwrap().items()[0];
    assert_eq!(text(event, &["unsigned", "replaces_state"]), Some(old.clone()));
    assert!(ids(joined, &["state", "events"]).is_empty());
    assert_eq!(server.current_state(&room)[&slot], new);

    let since = server.now();
    server.set_state(&room, "m.room.topic", "", &old);
    let answer = sync(&server, &format!("since={since}")).await;
    let joined = answer.at(&["rooms", "join", &room]).unwrap();
    assert!(ids(joined, &["timeline", "events"]).is_empty());
    assert_eq!(ids(joined, &["state", "events"]), [old.as_str()]);
    assert_eq!(server.current_state(&room)[&slot], old);

    server.behave(|habits| habits.state_after = StateAfter::Stable);
    let both = "use_state_after=true&org.matrix.msc4222.use_state_after=true";
    let answer = sync(&server, &format!("since={since}&{both}")).await;
    assert_eq!(ids(answer.at(&["rooms", "join", &room]).unwrap(), &["state_after", "events"]), [old]);
}

/// P98-P105: leave, ban, forget, invite.
#[tokio::test]
async fn access_ends_as_it_does_in_matrix() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let since = server.now();
    let farewell = server.message(&room, ALICE, "farewell");
    let leave = server.leave(&room, ARCHIVER);
    server.message(&room, ALICE, "behind your back");
    let answer = sync(&server, &format!("since={since}")).await;
    assert_eq!(ids(&answer, &["rooms", "leave", &room, "timeline", "events"]), [farewell, leave.clone()]);
    assert!(sync(&server, &format!("since={}", server.now())).await.get("rooms").is_none());
    assert_eq!(walk(&server, &room, "", "").await.0[0], leave);
    assert_eq!(server.visible_ids(&room).last(), Some(&leave));
    let since = server.now();
    server.join(&room, ARCHIVER);
    assert_eq!(server.visible(&room).len(), 8);
    let answer = sync(&server, &format!("since={since}")).await;
    assert!(answer.at(&["rooms", "join", &room, "timeline", "limited"]).unwrap().is_true());
    server.ban(&room, ARCHIVER);
    let path = format!("rooms/{}/messages?dir=b", escape_path(&room));
    assert_eq!(get(&server, &path).await.0, 403);
    let other = server.create_room_by("10", ALICE);
    server.invite(&other, ARCHIVER);
    let answer = sync(&server, "").await;
    let invite = answer.at(&["rooms", "invite", &other, "invite_state"]).unwrap();
    assert!(ids(invite, &["events"]).is_empty() && !invite.get("events").unwrap().items().is_empty());
    assert_eq!(get(&server, &format!("rooms/{}/state", escape_path(&other))).await.0, 403);
}

/// P23: after a restore from backup a token from the future is accepted, and what came after is gone.
#[tokio::test]
async fn a_roll_back_is_silent() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let kept = server.state(&room, "m.room.topic", "", r#"{"topic":"kept"}"#);
    let backup = server.now();
    let lost = server.state(&room, "m.room.topic", "", r#"{"topic":"lost"}"#);
    let future = server.now();
    server.roll_back(&backup);
    assert_eq!(text(&sync(&server, &format!("since={future}")).await, &["next_batch"]), Some(backup));
    let path = format!("rooms/{}/event/{}", escape_path(&room), escape_path(&lost));
    assert_eq!(get(&server, &path).await.0, 404);
    assert_eq!(server.current_state(&room)[&("m.room.topic".to_owned(), String::new())], kept);
    let again = server.message(&room, ALICE, "again");
    assert_eq!(walk(&server, &room, "", "").await.0[..2], [again, kept]);
}
