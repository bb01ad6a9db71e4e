//! `backscroll rooms`: rooms chosen while the daemon runs.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    daemon::Daemon,
    homeserver::{ALICE, ARCHIVER, Fault, Request},
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

/// The account is taken out of the room, and the archive knows.
async fn leaves(stage: &Stage, daemon: &mut Daemon, room: &str) {
    stage.server.kick(room, ARCHIVER);
    let left = format!("select membership from archive.rooms where room_id = '{room}'");
    daemon.until("it has left", async || stage.database.value(&left).await == "leave").await;
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

/// No `/sync` reports the room any more when it is resumed.
#[tokio::test]
async fn what_happens_before_a_leave_during_a_pause_is_archived_after_it() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(25), stage.room(3));
    let mut daemon = stage.followed(&room).await;
    stage.agrees(&mut daemon, &other).await;
    stage.rooms(&["pause", &room]).await;
    stage.say(&room, "unheard", 130);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"unheard"}"#);
    leaves(&stage, &mut daemon, &room).await;
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
    let open = "select count(*) from pg_stat_activity
                where datname = current_database() and state like 'idle in transaction%'
                  and application_name <> 'backscroll lease'";
    assert_eq!(stage.database.value(open).await, "0", "what was in hand holds no lock");
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

/// All that was chosen is as it was when the last response was stored, but the room was unwatched between.
#[tokio::test]
async fn what_is_undone_before_the_next_response_leaves_no_room_out() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    stage.rooms(&["add", &room]).await;
    stage.once().await;
    for (end, undo) in [("pause", "resume"), ("remove", "add")] {
        stage.rooms(&[end, &room]).await;
        assert!(!stage.watched(&room).await);
        stage.say(&room, "unheard", 25);
        stage.rooms(&[undo, &room]).await;
        stage.once().await;
        assert!(stage.watched(&room).await, "after {undo}");
        stage.is_archived(&room).await;
    }
    assert_eq!(stage.gaps(&room).await, ["the room was not watched: closed"; 2]);
}

/// The response was asked for before, and says nothing of the room, as none does that the account has left.
#[tokio::test]
async fn a_room_resumed_while_a_whole_state_is_stored_is_not_left_out() {
    let stage = Stage::new().await;
    let (room, locked, paused) = (stage.room(15), stage.room(3), stage.room(3));
    let mut daemon = stage.followed(&room).await;
    stage.agrees(&mut daemon, &locked).await;
    stage.agrees(&mut daemon, &paused).await;
    leaves(&stage, &mut daemon, &room).await;

    let mut lock = PgConnection::connect(stage.database.url()).await.unwrap();
    let sql = format!("begin; select from archive.rooms where room_id = '{locked}' for no key update");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut lock).await.unwrap();
    stage.rooms(&["pause", &paused]).await;
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0";
    daemon.until("it is being stored", async || stage.database.value(waiting).await == "1").await;
    stage.rooms(&["pause", &room]).await;
    stage.rooms(&["resume", &room]).await;
    lock.close().await.unwrap();

    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert!(!stage.watched(&paused).await);
    daemon.stop().await;
}

#[tokio::test]
async fn an_alias_that_a_room_gets_while_it_is_followed_decides_about_it() {
    let stage = Stage::new().await.set("rooms.include", "#*:model.test").set("rooms.exclude", "#secret:*");
    let (room, other) = (stage.room(15), stage.room(3));
    let call = |room: &str, content: &str| stage.server.state(room, "m.room.canonical_alias", "", content);
    call(&other, r##"{"alias":"#other:model.test"}"##);
    let mut daemon = stage.followed(&other).await;
    assert_eq!(stage.count(&room).await, "0");
    let is_full = |request: &Request| request.query("full_state") == Some("true");
    let full = || stage.server.requests("/sync").into_iter().filter(is_full).count();
    let before = full();

    call(&room, r##"{"alt_aliases":["#named:model.test"]}"##);
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;

    call(&room, r##"{"alias":"#secret:model.test"}"##);
    daemon.until("it is left out", async || !stage.watched(&room).await).await;
    let kept = stage.count(&room).await;
    stage.say(&room, "unheard", 25);
    goes_on(&stage, &mut daemon, &other).await;
    assert_eq!(stage.count(&room).await, kept);

    call(&room, r##"{"alias":"#named:model.test"}"##);
    daemon.until("it is watched", async || stage.watched(&room).await).await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.gaps(&room).await, ["the room was not watched: closed"]);
    assert_eq!(full() - before, 3, "each is asked about once");
    daemon.stop().await;
}

/// A new archive would hold it too, but no `/sync` reports it a second time.
#[tokio::test]
async fn a_room_left_before_it_was_wanted_is_archived_up_to_the_leave() {
    let stage = Stage::new().await;
    let (room, secret, other) = (stage.room(25), stage.room(5), stage.room(3));
    stage.server.state(&secret, "m.room.canonical_alias", "", r##"{"alias":"#secret:model.test"}"##);
    stage.server.kick(&room, ARCHIVER);
    stage.server.kick(&secret, ARCHIVER);
    stage.say(&room, "unheard", 5);
    let stage = stage.set("rooms.include", &other);
    stage.once().await;
    assert_eq!(stage.count(&room).await, "0");

    let stage = stage.set("rooms.include", "*").set("rooms.exclude", "#secret:*");
    stage.once().await;
    stage.is_archived(&room).await;
    let version = format!("select room_version from archive.rooms where room_id = '{room}'");
    assert_eq!(stage.database.value(&version).await, "10");
    assert!(!stage.watched(&secret).await, "its alias came to light in time");
    assert_eq!(stage.count(&secret).await, "0");
    assert_eq!(stage.database.value("select count(*) from archive.rooms where state_suspect").await, "0");
}

#[tokio::test]
async fn an_erased_room_is_not_added() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    assert!(stage.backscroll.run(&["erase", "--room", &room]).await.status.success());
    let refused = stage.backscroll.run(&["rooms", "add", &room]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("erased"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_room_left_before_it_was_wanted_may_be_refused() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(25), stage.room(3));
    stage.server.kick(&room, ARCHIVER);
    let stage = stage.set("rooms.include", &other);
    stage.once().await;
    stage.server.forget(&room);
    let stage = stage.set("rooms.include", "*");
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert!(stage.reason(&room).await.contains("M_FORBIDDEN"), "{}", stage.reason(&room).await);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
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
