//! The process: tokens that die, settings that change, signals, and power cuts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    archive::mentions,
    homeserver::{ALICE, Fault},
    stage::Stage,
};

async fn since(stage: &Stage) -> String {
    stage.database.value("select since from archive.accounts").await
}

#[tokio::test]
async fn a_dead_sync_token_is_replaced_and_leaves_no_hole() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(15), stage.room(5));
    let mut daemon = stage.followed(&room).await;
    stage.agrees(&mut daemon, &other).await;
    daemon.stop().await;
    stage.say(&room, "missed", 35);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"missed"}"#);
    stage.server.inject(Fault::dead_token(&since(&stage).await).on("/sync"));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.agrees_in_order(&mut daemon, &other).await;
    let reasons = stage.database.column("select distinct reason from gaps").await;
    assert_eq!(reasons, ["the sync token was lost"]);
    stage.say(&room, "live", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// What only a full state can say (P106 aside): a key that is gone.
#[tokio::test]
async fn a_state_key_that_is_gone_goes_with_the_next_full_state() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.server.state(&room, "org.example", "x", "{}");
    stage.followed(&room).await.stop().await;
    stage.server.unset_state(&room, "org.example", "x");
    stage.server.inject(Fault::dead_token(&since(&stage).await).on("/sync"));
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
}

#[tokio::test]
async fn a_room_may_be_excluded_and_included_again() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(25), stage.room(25));
    let stage = stage.set("rooms.exclude", &room);
    stage.once().await;
    stage.is_archived(&other).await;
    assert_eq!(mentions(&stage.database, "message 3").await, ["events"]);
    let rows = format!("select count(*) from events where room_id = '{room}'");
    assert_eq!(stage.database.value(&rows).await, "0", "nothing of the room is taken");

    // Included while nothing happens in it, and then excluded while much does.
    let stage = stage.set("rooms.exclude", "!no-such:room");
    stage.once().await;
    stage.is_archived(&room).await;
    let before = stage.timeline(&room).await;
    let stage = stage.set("rooms.exclude", &room);
    stage.once().await;
    stage.say(&room, "unwatched", 35);
    stage.once().await;
    assert_eq!(stage.timeline(&room).await, before, "what was there is kept");

    let stage = stage.set("rooms.exclude", "!no-such:room");
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.agrees_in_order(&mut daemon, &other).await;
}

#[tokio::test]
async fn a_second_daemon_says_who_the_first_is() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let daemon = stage.followed(&room).await;
    let writer =
        "select pid from pg_locks join pg_database d on d.oid = database and datname = current_database()
                  where locktype = 'advisory' and granted and objsubid = 1";
    let writer = stage.database.value(writer).await;
    for arguments in [&["run"][..], &["run", "--once"], &["backfill", &room]] {
        let start = Instant::now();
        let second = stage.backscroll.run(arguments).await;
        assert_eq!(second.status.code(), Some(75), "{}", second.stderr);
        assert!(second.stderr.contains(&format!("server process {writer}")), "{}", second.stderr);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    daemon.stop().await;
    stage.once().await;
}

#[tokio::test]
async fn a_signal_ends_it_soon_whatever_it_waits_for() {
    let cases: [(Signal, &str, Fault); 6] = [
        (Signal::SIGTERM, "/messages", Fault::stall().on("/messages")),
        (Signal::SIGINT, "/messages", Fault::stall_in_body().on("/messages")),
        (Signal::SIGTERM, "/messages", Fault::too_many(&[("Retry-After", "600")], "").on("/messages")),
        (Signal::SIGTERM, "/sync", Fault::stall().on("/sync")),
        (Signal::SIGINT, "/state", Fault::stall().on("/state")),
        (Signal::SIGTERM, "/whoami", Fault::stall().on("/whoami")),
    ];
    let stage = Stage::new().await;
    let room = stage.room(25);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"before"}"#);
    for (signal, path, fault) in cases {
        stage.server.inject(fault);
        let asked = stage.server.requests(path).len();
        let mut daemon = stage.follow();
        if path == "/state" {
            stage.agrees(&mut daemon, &room).await;
            stage.server.fork_state(&room, "m.room.topic", "", r#"{"topic":"loser"}"#);
        }
        stage.server.has_been_asked(path, asked + 1).await;
        let start = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait().await;
        assert_eq!(status.code(), Some(0), "{path}: {}", daemon.stderr());
        assert!(start.elapsed() < Duration::from_secs(5), "{path}: {:?}", start.elapsed());
        stage.server.heal();
    }
    stage.once().await;
    assert_eq!(stage.content_difference(&room).await, None);
}

/// A power cut after every so many requests, while rooms are walked, followed, left with gaps and redacted.
#[tokio::test]
async fn power_cuts_lose_nothing_and_double_nothing() {
    let stage = Stage::new().await;
    let rooms = [stage.room(45), stage.room(25)];
    stage.server.behave(|habits| habits.timeline_cap = 8);
    for round in 0..10 {
        let daemon = stage.follow();
        let asked = stage.server.journal().len();
        stage.server.has_been_asked("", asked + 1 + round % 3).await;
        for room in &rooms {
            let spoken = stage.say(room, &format!("round {round}"), 3 + round % 5);
            stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"round {round}"}}"#));
            if round % 3 == 0 {
                stage.server.redact(room, &spoken[1]);
            }
        }
        // Whatever it is at by then: another thing every time.
        tokio::time::sleep(Duration::from_millis(20 * (round as u64 * 7 % 10))).await;
        daemon.kill().await;
    }
    let mut daemon = stage.follow();
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    stage.server.message(&rooms[0], ALICE, "alive");
    stage.agrees_in_order(&mut daemon, &rooms[0]).await;
    daemon.stop().await;
    let doubled = "select count(*) - count(distinct (room_id, event_id)) from events";
    assert_eq!(stage.database.value(doubled).await, "0");
    let counted = "select count(*) from rooms r
                   where event_count <> (select count(*) from events e where e.room_id = r.room_id)";
    assert_eq!(stage.database.value(counted).await, "0", "event_count counts the events");
}
