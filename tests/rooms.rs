//! `backscroll rooms`: rooms chosen while the daemon runs.

use std::time::Duration;

use crate::support::{
    daemon::Daemon,
    homeserver::{ALICE, ARCHIVER, Fault},
    stage::Stage,
};

impl Stage {
    /// `backscroll rooms …`, which must succeed.
    async fn rooms(&self, arguments: &[&str]) -> String {
        let outcome = self.backscroll.run(&[&["rooms"], arguments].concat()).await;
        assert!(outcome.status.success(), "{arguments:?}: {}", outcome.stderr);
        outcome.stdout
    }

    async fn watched(&self, room: &str) -> bool {
        let sql =
            format!("select coalesce(bool_or(watched), false) from archive.rooms where room_id = '{room}'");
        self.database.value(&sql).await == "t"
    }

    async fn count(&self, room: &str) -> String {
        self.database.value(&format!("select count(*) from events where room_id = '{room}'")).await
    }

    async fn gaps(&self, room: &str) -> Vec<String> {
        let sql =
            format!("select reason || ': ' || state from gaps where room_id = '{room}' order by gap_id");
        self.database.column(&sql).await
    }
}

/// Another room gets an event, and that is archived: what was served before it has been dealt with.
async fn goes_on(stage: &Stage, daemon: &mut Daemon, other: &str) {
    stage.server.message(other, ALICE, "still there");
    stage.agrees(daemon, other).await;
}

#[tokio::test]
async fn what_happens_during_a_pause_is_archived_after_it() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(25), stage.room(3));
    let mut daemon = stage.followed(&room).await;
    stage.agrees(&mut daemon, &other).await;

    assert!(stage.rooms(&["pause", &room]).await.contains("is paused."));
    assert!(!stage.watched(&room).await, "at once");
    let before = stage.count(&room).await;
    let spoken = stage.say(&room, "unheard", 130);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"unheard"}"#);
    stage.server.redact(&room, &spoken[3]);
    goes_on(&stage, &mut daemon, &other).await;
    assert_eq!(stage.count(&room).await, before);
    assert!(stage.rooms(&["pause", &room]).await.contains("already"));

    stage.rooms(&["resume", &room]).await;
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.gaps(&room).await, ["the room was not watched: closed"]);
    stage.server.message(&room, ALICE, "live");
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// No `/sync` tells of the room any more when it is resumed.
#[tokio::test]
async fn what_happens_before_a_leave_during_a_pause_is_archived_after_it() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(25), stage.room(3));
    let mut daemon = stage.followed(&room).await;
    stage.agrees(&mut daemon, &other).await;
    stage.rooms(&["pause", &room]).await;
    stage.say(&room, "unheard", 130);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"unheard"}"#);
    stage.server.kick(&room, ARCHIVER);
    let left = format!("select membership from archive.rooms where room_id = '{room}'");
    daemon.until("it has left", async || stage.database.value(&left).await == "leave").await;
    goes_on(&stage, &mut daemon, &other).await;

    stage.rooms(&["resume", &room]).await;
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.gaps(&room).await, ["the room was not watched: closed"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_pause_stops_a_walk_and_a_resume_takes_it_up() {
    let stage = Stage::new().await;
    let room = stage.room(100);
    stage.server.inject(Fault::delay(Duration::from_millis(300)).on("/messages"));
    let mut daemon = stage.follow();
    let pages = "select coalesce(sum(pages), 0) from archive.walks";
    daemon.until("it walks", async || stage.database.value(pages).await != "0").await;
    stage.rooms(&["pause", &room]).await;
    let walked = stage.database.value(pages).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stage.database.value(pages).await, walked, "the walk rests");
    assert_eq!(stage.history(&room).await, "walking");
    let log = daemon.stderr();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    stage.server.heal();
    stage.say(&room, "unheard", 15);
    stage.rooms(&["resume", &room]).await;
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_pause_outlasts_a_restart() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    stage.rooms(&["pause", &room]).await;
    stage.say(&room, "unheard", 5);
    let before = stage.count(&room).await;
    stage.once().await;
    stage.once().await;
    assert_eq!(stage.count(&room).await, before);
    let status = stage.backscroll.run(&["status"]).await.stdout;
    assert!(status.contains("1 room · ") && status.contains(" · 1 paused"), "{status}");
    stage.rooms(&["resume", &room]).await;
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn an_excluded_room_is_added_and_removed_without_a_restart() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(15), stage.room(3));
    stage.server.state(&room, "m.room.canonical_alias", "", r##"{"alias":"#named:model.test"}"##);
    let stage = stage.set("rooms.exclude", "#named:*");
    let mut daemon = stage.followed(&other).await;
    assert_eq!(stage.count(&room).await, "0");

    stage.rooms(&["add", "#named:model.test"]).await;
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;

    stage.rooms(&["remove", "#named:model.test"]).await;
    let kept = stage.count(&room).await;
    stage.say(&room, "unheard", 5);
    goes_on(&stage, &mut daemon, &other).await;
    assert_eq!(stage.count(&room).await, kept, "what is there stays, and no more comes");

    let list = stage.rooms(&["list"]).await;
    assert!(list.lines().any(|line| line.contains(" removed ") && line.contains(&room)), "{list}");
    assert!(list.lines().any(|line| line.contains(" archived ") && line.contains(&other)), "{list}");
    let list: serde_json::Value = serde_json::from_str(&stage.rooms(&["list", "--json"]).await).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn a_room_is_joined_only_if_that_is_said() {
    let stage = Stage::new().await;
    let other = stage.room(3);
    let room = stage.server.create_room_by("10", ALICE);
    stage.say(&room, "long before", 15);
    let mut daemon = stage.followed(&other).await;

    let refused = stage.backscroll.run(&["rooms", "add", &room]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("--join"), "{}", refused.stderr);
    let members = stage.server.current_state(&room);
    assert!(!members.contains_key(&("m.room.member".to_owned(), ARCHIVER.to_owned())));

    stage.rooms(&["add", "--join", &room]).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_room_that_is_not_there_is_a_usage_error() {
    let stage = Stage::new().await;
    stage.once().await;
    let unknown = stage.backscroll.run(&["rooms", "pause", "!nowhere:model.test"]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", unknown.stderr);
    let unknown = stage.backscroll.run(&["rooms", "add", "#nowhere:model.test"]).await;
    assert_ne!(unknown.status.code(), Some(0));
    assert!(unknown.stderr.contains("#nowhere:model.test"), "{}", unknown.stderr);
}

/// Waiting is done by the homeserver and the database, not by asking again and again.
#[tokio::test]
async fn an_idle_daemon_asks_nothing_of_the_database() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let daemon = stage.followed(&room).await;
    let transactions = || async {
        let sql =
            "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
        stage.database.value(sql).await.parse::<i64>().unwrap()
    };
    // PostgreSQL counts what a connection did before when it has been idle for a while; what is asked each second shows
    // in every window.
    let mut least = i64::MAX;
    for _ in 0..6 {
        let before = transactions().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        least = least.min(transactions().await - before);
        if least <= 4 {
            break;
        }
    }
    assert!(least <= 4, "{least} transactions in 5 s, one or two of them of this test");
    daemon.stop().await;
}
