//! The process: tokens that die, settings that change, signals, and power cuts.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    archive::mentions,
    daemon::Daemon,
    homeserver::{ALICE, BOB, Fault, Request},
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

/// What the server has reported and lost stays; what it has is all there, in its order and in force.
async fn has_all_of(stage: &Stage, daemon: &mut Daemon, room: &str) {
    let difference = async || {
        let visible = stage.server.visible_ids(room);
        let open = "select reason from gaps where state <> 'closed'
                    union all select history_state from rooms where history_state <> 'complete'";
        let mut archived = stage.timeline(room).await;
        archived.retain(|event_id| visible.contains(event_id));
        let open = stage.database.column(open).await;
        (archived != visible || !open.is_empty())
            .then(|| format!("{archived:?} and not {visible:?}, {open:?}"))
            .or(stage.state_difference(room).await)
    };
    daemon.settles(difference).await;
}

/// P23: the numbers of the stream are given out again, and `since` is taken for one of the future.
#[tokio::test]
async fn a_server_back_from_a_backup_is_asked_from_the_start() {
    for while_down in [true, false] {
        let stage = Stage::new().await;
        let (room, other) = (stage.room(5), stage.room(5));
        let mut daemon = stage.followed(&room).await;
        stage.agrees(&mut daemon, &other).await;
        let backup = stage.server.now();
        stage.server.state(&room, "m.room.topic", "", r#"{"topic":"lost"}"#);
        stage.say(&room, "lost", 3);
        stage.agrees(&mut daemon, &room).await;
        let before = stage.timeline(&room).await;
        let following = if while_down {
            daemon.stop().await;
            None
        } else {
            let asked = stage.server.requests("/sync").len();
            stage.server.inject(Fault::bad_gateway().on("/sync"));
            // Ends the request that waits.
            stage.server.message(&room, ALICE, "lost too");
            stage.server.has_been_asked("/sync", asked + 2).await;
            Some(daemon)
        };
        stage.server.roll_back(&backup);
        for room in [&room, &other] {
            stage.say(room, "anew", 4);
        }
        stage.server.heal();
        let mut daemon = following.unwrap_or_else(|| stage.follow());
        for room in [&room, &other] {
            has_all_of(&stage, &mut daemon, room).await;
        }
        assert!(stage.timeline(&room).await.starts_with(&before), "what it sent is kept");
        let reasons = stage.database.column("select distinct reason from gaps").await;
        assert_eq!(reasons, ["the sync token was lost"]);
        // What it reports now it knows.
        daemon.stop().await;
        stage.once().await;
        assert_eq!(stage.database.value("select count(*) from gaps").await, "2");
    }
}

/// A server that does not answer for single events, that has purged one, or that fails, was not rolled back.
#[tokio::test]
async fn a_server_that_has_lost_nothing_is_followed_on() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    stage.say(&room, "live", 3);
    stage.once().await;
    let unknown = |status, code| Fault::error(status, code, "no").on("/event/");
    let create = stage.server.visible_ids(&room)[0].clone();
    for fault in [
        unknown(404, "M_UNRECOGNIZED"),
        unknown(403, "M_FORBIDDEN"),
        unknown(500, "M_UNKNOWN"),
        Fault::reply(404, &[], "<html>").on("/event/"),
        Fault::bad_gateway().on("/event/").times(2),
        // As after a purge, or where messages are kept for a while only.
        unknown(404, "M_NOT_FOUND").when(move |request: &Request| !request.path().contains(&create)),
    ] {
        stage.server.inject(fault);
        stage.say(&room, "more", 2);
        stage.once().await;
        stage.is_archived(&room).await;
        stage.server.heal();
    }
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
}

/// P103: what an ignored user has said is hidden from then on, which is no sign of a backup.
#[tokio::test]
async fn a_server_that_hides_an_ignored_user_has_lost_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    stage.server.message(&room, BOB, "the last");
    stage.once().await;
    let before = stage.timeline(&room).await;
    stage.server.ignore(BOB);
    stage.once().await;
    assert_eq!(stage.timeline(&room).await, before, "what it sent is kept");
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
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
    let writer = "select pid from pg_locks
                  where relation = 'archive.writer_lock'::regclass
                    and mode = 'ShareUpdateExclusiveLock' and granted
                    and database = (select oid from pg_database where datname = current_database())";
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
