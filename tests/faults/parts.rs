//! Answers of which a part cannot be read: the rest is taken, the part is kept and said, and what it held is fetched.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use crate::support::{
    archive::mentions,
    daemon::Daemon,
    homeserver::{ALICE, BOB, Fault, StateAfter},
    stage::Stage,
};

/// The true answers to `/sync`, changed where `change` says that it has done so, so many times.
fn changed(times: usize, change: impl Fn(&mut Value) -> bool + Send + Sync + 'static) -> Fault {
    let done = AtomicUsize::new(0);
    let fault = Fault::change(move |reply| {
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
        if done.load(Ordering::Relaxed) < times && change(&mut answer) {
            done.fetch_add(1, Ordering::Relaxed);
            reply.body = answer.to_string().into_bytes();
        }
    });
    fault.on("/sync")
}

/// The room's part of an answer, if its timeline has events.
fn news<'a>(answer: &'a mut Value, room: &str) -> Option<&'a mut Value> {
    let part = answer.get_mut("rooms")?.get_mut("join")?.get_mut(room)?;
    let has_events = part["timeline"]["events"].as_array().is_some_and(|events| !events.is_empty());
    has_events.then_some(part)
}

/// Lets the answer change from now on: the request in hand was made before.
async fn inject(stage: &Stage, daemon: &mut Daemon, room: &str, fault: Fault) {
    stage.server.inject(fault);
    stage.say(room, "ends the request in hand", 1);
    stage.agrees(daemon, room).await;
}

async fn set_aside(stage: &Stage, room: &str) -> Vec<String> {
    let sql = format!(
        "select reason from archive.quarantine join archive.rooms using (room_id) where room_id = '{room}'"
    );
    stage.database.column(&sql).await
}

const NO_ID: &str = "the id of a room of a sync response is none";

/// For as long as they stand, which may be for ever.
#[tokio::test]
async fn rooms_without_an_id_cost_the_others_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let ids =
        [format!("!{}:hs", "x".repeat(290)), String::new(), "nothing:hs".to_owned(), "!r\0:hs".to_owned()];
    stage.server.inject(changed(usize::MAX, move |answer| {
        for section in ["join", "invite", "leave", "knock"] {
            for id in &ids {
                let part = json!({"timeline": {"events": [{"event_id": "$x", "unsigned": {"age": 5}}]}});
                answer["rooms"][section][id.as_str()] = part;
            }
        }
        true
    }));
    let mut daemon = stage.followed(&room).await;
    for number in 0..3 {
        stage.say(&room, &format!("live {number}"), 2);
        stage.agrees_in_order(&mut daemon, &room).await;
    }
    let kept =
        "select count(*) || ' ' || min(reason) || ' ' || count(nullif(room_id, '')) from archive.quarantine";
    assert_eq!(stage.database.value(kept).await, format!("4 {NO_ID} 0"), "each id once");
    let status = stage.backscroll.run(&["status"]).await;
    assert!(status.stdout.contains("4 quarantined"), "{}", status.stdout);
    assert_eq!(daemon.stderr().matches(NO_ID).count(), 1, "said once for all");
    assert_eq!(stage.database.value("select count(*) from archive.rooms").await, "1");
    daemon.stop().await;
}

type Spoil = fn(&mut Value);

/// What may be wrong with a room's part, and whether that leaves the timeline's events where they are.
fn spoilt() -> Vec<(&'static str, bool, Spoil)> {
    vec![
        ("a number for the room", false, |part| *part = json!(7)),
        ("null for the room", false, |part| *part = json!(null)),
        ("a list for the room", false, |part| *part = json!([])),
        ("a text for the timeline", false, |part| part["timeline"] = json!("none")),
        ("a list for the timeline", false, |part| part["timeline"] = json!([])),
        ("an object for the events", false, |part| part["timeline"]["events"] = json!({"0": 1})),
        ("false for the events", false, |part| part["timeline"]["events"] = json!(false)),
        ("a text for limited", true, |part| part["timeline"]["limited"] = json!("false")),
        ("a number for the token", true, |part| part["timeline"]["prev_batch"] = json!(5)),
        ("a number for limited and the token", true, |part| {
            part["timeline"]["limited"] = json!(0);
            part["timeline"]["prev_batch"] = json!({});
        }),
        ("a list for the state", true, |part| part["state_after"] = json!([1])),
        ("a text for the state's events", true, |part| part["state_after"] = json!({"events": "none"})),
        ("too many numbers for the events", false, |part| {
            part["timeline"]["events"] = json!(vec![7; 10_001]);
        }),
        ("too many numbers for the state", true, |part| {
            part["state_after"]["events"] = json!(vec![7; 10_001]);
        }),
    ]
}

#[tokio::test]
async fn what_a_part_held_is_fetched() {
    let stage = Stage::new().await.set("backfill.concurrency", "32");
    stage.server.behave(|habits| habits.state_after = StateAfter::Stable);
    let rooms: Vec<_> = spoilt().into_iter().map(|spoilt| (stage.room(5), spoilt)).collect();
    let mut daemon = stage.follow();
    for (room, _) in &rooms {
        stage.agrees(&mut daemon, room).await;
    }
    let spoils: Vec<_> = rooms.iter().map(|(room, (_, _, spoil))| (room.clone(), *spoil)).collect();
    let done = Mutex::new(BTreeSet::new());
    let fault = changed(usize::MAX, move |answer| {
        let mut done = done.lock().unwrap();
        let changed = spoils.iter().filter(|(room, spoil)| {
            !done.contains(room) && news(answer, room).map(spoil).is_some() && done.insert(room.clone())
        });
        changed.count() > 0
    });
    let first = &rooms[0].0;
    inject(&stage, &mut daemon, first, fault).await;
    for (room, _) in &rooms {
        stage.say(room, "lost", 3);
        stage.server.state(room, "m.room.topic", "", r#"{"topic":"lost"}"#);
        stage.say(room, "lost too", 3);
    }
    for (room, (what, readable, _)) in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
        assert!(!set_aside(&stage, room).await.is_empty(), "{what}: nothing is set aside");
        let unread = format!(
            "select count(*) from gaps where room_id = '{room}' and reason like '%could not be read'"
        );
        assert_eq!(stage.database.value(&unread).await == "0", *readable, "{what}");
    }
    stage.say(first, "later", 3);
    stage.agrees_in_order(&mut daemon, first).await;
    daemon.stop().await;
}

/// The response does not even say which rooms there was something to tell of.
#[tokio::test]
async fn what_a_section_held_is_fetched_in_every_room() {
    for spoil in [
        (|rooms| *rooms = json!([])) as Spoil,
        |rooms| *rooms = json!("none"),
        |rooms| rooms["join"] = json!(7),
        |rooms| rooms["join"] = json!([{"room_id": "!r:hs"}]),
    ] {
        let stage = Stage::new().await;
        let (busy, quiet) = (stage.room(5), stage.room(5));
        let mut daemon = stage.followed(&busy).await;
        stage.agrees(&mut daemon, &quiet).await;
        let room = busy.clone();
        let fault = changed(2, move |answer| {
            news(answer, &room).is_some() && answer.get_mut("rooms").map(spoil).is_some()
        });
        inject(&stage, &mut daemon, &busy, fault).await;
        stage.say(&busy, "lost", 3);
        stage.server.state(&busy, "m.room.topic", "", r#"{"topic":"lost"}"#);
        let gaps = "select count(distinct room_id) from gaps where reason like '%could not be read'";
        daemon.until("the gaps are there", async || stage.database.value(gaps).await == "2").await;
        stage.say(&busy, "later", 3);
        stage.agrees_in_order(&mut daemon, &busy).await;
        stage.agrees_in_order(&mut daemon, &quiet).await;
        assert_eq!(
            stage.database.value("select count(*) from archive.quarantine where room_id = ''").await,
            "1"
        );
        daemon.stop().await;
    }
}

/// Also of a room that is new, and of one that the account has left.
#[tokio::test]
async fn a_first_response_may_have_bad_parts() {
    let stage = Stage::new().await;
    let (odd, left, room) = (stage.room(15), stage.room(15), stage.room(15));
    stage.server.leave(&left, stage.server.user_id());
    let (bad, gone) = (odd.clone(), left.clone());
    stage.server.inject(changed(usize::MAX, move |answer| {
        let Some(rooms) = answer.get_mut("rooms") else { return false };
        for (section, id) in [("join", &bad), ("leave", &gone)] {
            if let Some(part) = rooms.get_mut(section).and_then(|listed| listed.get_mut(id)) {
                *part = json!("nothing");
            }
        }
        true
    }));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &odd).await;
    stage.agrees_in_order(&mut daemon, &left).await;
    let versions = "select count(*) from archive.rooms where room_version = '10'";
    assert_eq!(stage.database.value(versions).await, "3");
    daemon.stop().await;
}

/// Nothing of what was set aside outlives its redaction.
#[tokio::test]
async fn what_was_set_aside_is_redacted_too() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    let bad = room.clone();
    let fault = changed(1, move |answer| {
        let Some(part) = news(answer, &bad) else { return false };
        let events = part["timeline"]["events"].take();
        part["timeline"]["events"] = json!({ "all": events });
        true
    });
    inject(&stage, &mut daemon, &room, fault).await;
    let secret = stage.server.message(&room, ALICE, "hunter2");
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(mentions(&stage.database, "hunter2").await, ["events", "quarantine"]);
    stage.server.redact(&room, &secret);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert!(mentions(&stage.database, "hunter2").await.is_empty());
    daemon.stop().await;
}

/// One alias that is none does not hide the others, by which a room may be chosen.
#[tokio::test]
async fn a_bad_alias_hides_no_other() {
    let stage = Stage::new().await.set("rooms.include", "#right:*");
    let room = stage.room(5);
    let aliases = r##"{"alias":7,"alt_aliases":[5,null,"#right:model.test"]}"##;
    stage.server.state(&room, "m.room.canonical_alias", "", aliases);
    stage.server.message(&room, BOB, "found");
    stage.once().await;
    stage.is_archived(&room).await;
}
