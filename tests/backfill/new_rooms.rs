//! `backscroll backfill` of rooms that the archive does not have yet.

use crate::support::{
    daemon::Outcome,
    homeserver::{ALICE, ARCHIVER, Fault, Request},
    stage::Stage,
};

impl Stage {
    async fn backfill(&self, arguments: &[&str]) -> Outcome {
        self.backscroll.run(&[&["backfill"], arguments].concat()).await
    }

    /// `backscroll backfill …`, which must succeed.
    async fn backfilled(&self, arguments: &[&str]) {
        let outcome = self.backfill(arguments).await;
        assert!(outcome.status.success(), "{arguments:?}: {}", outcome.stderr);
    }

    /// The same, which must be refused, with these words, and leave nothing.
    async fn refused(&self, arguments: &[&str], words: &[&str]) {
        let outcome = self.backfill(arguments).await;
        assert_eq!(outcome.status.code(), Some(64), "{arguments:?}: {}", outcome.stderr);
        for word in words {
            assert!(outcome.stderr.contains(word), "{arguments:?}: {word:?} is not in {}", outcome.stderr);
        }
        assert_eq!(self.database.value("select count(*) from archive.rooms").await, "0");
    }

    async fn holes(&self, room: &str) -> Vec<String> {
        self.database
            .column(&format!("select state from gaps where room_id = '{room}' order by gap_id"))
            .await
    }

    async fn column(&self, room: &str, column: &str) -> String {
        self.database.value(&format!("select {column} from archive.rooms where room_id = '{room}'")).await
    }

    /// A room of Alice's that everybody may read, with so many messages. The account is not in it.
    fn public_room(&self, count: usize) -> String {
        let room = self.server.create_room_by("10", ALICE);
        self.server.open_to_all(&room);
        self.server.append_many(&room, count);
        room
    }
}

/// The sentence that the program was asked for.
#[tokio::test]
async fn an_empty_archive_takes_a_room_from_a_token() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(31), stage.room(3));
    let token = stage.server.now();
    stage.say(&room, "newer", 15);
    stage.backfilled(&[&room, "--from", &token]).await;
    let all = stage.server.visible_ids(&room);
    assert_eq!(stage.timeline(&room).await, all[..35]);
    assert_eq!(stage.column(&room, "history_state").await, "complete");
    assert_eq!(stage.history(&room).await, "truncated", "as the reader sees it");
    assert!(stage.reason(&room).await.contains("what is newer was not asked for"));
    assert_eq!(stage.holes(&room).await, ["skipped"]);
    assert_eq!(stage.column(&room, "room_version").await, "10");
    assert_eq!(stage.column(&room, "membership").await, "join");
    assert_eq!(stage.database.value("select count(*) from archive.rooms").await, "1", "no other room");
    let list = stage.backscroll.run(&["rooms", "list"]).await.stdout;
    assert!(list.contains(&room) && list.contains(" archived "), "{list}");
    let status = stage.backscroll.run(&["status"]).await.stdout;
    assert!(status.contains("1 skipped"), "{status}");

    // Whoever follows the account's rooms then takes what is newer, and places it above.
    stage.say(&room, "newest", 15);
    stage.once().await;
    stage.is_archived(&room).await;
    stage.is_archived(&other).await;
    stage.say(&room, "live", 5);
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn an_empty_archive_takes_a_whole_room() {
    for newer in [0, 5, 45] {
        let stage = Stage::new().await;
        let room = stage.room(31);
        stage.backfilled(&[&room]).await;
        assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
        assert_eq!(stage.history(&room).await, "complete");
        assert_eq!(stage.state_difference(&room).await, None);
        stage.backfilled(&[&room]).await;
        stage.say(&room, "newer", newer);
        let mut daemon = stage.followed(&room).await;
        stage.say(&room, "live", 3);
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// Wherever it dies: before its first page, or after some.
#[tokio::test]
async fn a_killed_walk_of_a_new_room_is_gone_on_with() {
    for (pages, from_token, by_run) in
        [(0, true, true), (2, true, true), (2, true, false), (0, false, true), (2, false, true)]
    {
        let stage = Stage::new().await;
        let room = stage.room(45);
        let token = stage.server.now();
        stage.say(&room, "newer", 25);
        let stalls =
            Fault::stall().on("/messages").when(|request: &Request| request.query("limit") != Some("1"));
        stage.server.inject(stalls.after(pages));
        let from: &[&str] = if from_token { &["--from", &token] } else { &[] };
        let mut daemon = stage.backscroll.start(&[&["backfill", &room], from].concat());
        let stored = format!("select count(*) = 1 and coalesce(max(pages), 0) = {pages} from archive.walks");
        daemon.until("its pages are stored", async || stage.database.value(&stored).await == "t").await;
        daemon.kill().await;
        stage.server.heal();
        if by_run {
            stage.say(&room, "newest", 25);
            stage.once().await;
            stage.is_archived(&room).await;
        } else {
            stage.backfilled(&[&room]).await;
            assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
            assert_eq!(stage.history(&room).await, "complete");
            assert_eq!(stage.holes(&room).await, ["closed"]);
        }
    }
}

#[tokio::test]
async fn a_piece_of_a_new_room_is_not_taken_for_all_of_it() {
    let stage = Stage::new().await;
    let room = stage.room(31);
    let to = stage.server.now();
    stage.say(&room, "between", 25);
    let from = stage.server.now();
    stage.say(&room, "newer", 15);
    stage.backfilled(&[&room, "--from", &from, "--to", &to]).await;
    let all = stage.server.visible_ids(&room);
    assert_eq!(stage.timeline(&room).await, all[35..60]);
    assert_eq!(stage.history(&room).await, "none");
    assert_eq!(stage.holes(&room).await, ["skipped"]);
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_room_that_everybody_may_read_is_archived_without_being_in_it() {
    let stage = Stage::new().await;
    let (room, other) = (stage.public_room(31), stage.room(3));
    let token = stage.server.now();
    stage.say(&room, "newer", 15);
    stage.backfilled(&[&room, "--from", &token]).await;
    let shown = stage.server.visible_ids(&room);
    assert_eq!(stage.timeline(&room).await, shown[..31]);
    assert_eq!(stage.column(&room, "membership").await, "leave");
    assert_eq!(stage.state_difference(&room).await, None);
    // What is older than its opening is for its members.
    assert_eq!(stage.history(&room).await, "truncated");
    let before = stage.timeline(&room).await;
    stage.once().await;
    stage.once().await;
    stage.is_archived(&other).await;
    assert_eq!(stage.timeline(&room).await, before, "no /sync reports it");

    // From time to time it is walked again, and what is new is found on top.
    stage.say(&room, "newest", 25);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"new"}"#);
    stage.database.run("update archive.walks set not_before = now() where kind = 'rewalk'").await;
    stage.once().await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    assert_eq!(stage.holes(&room).await, ["closed"]);
    stage.say(&room, "last", 25);
    stage.backfilled(&[&room]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    assert_eq!(stage.state_difference(&room).await, None);

    // Who joins sees more, and is reported what comes.
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "with us", 15);
    let mut daemon = stage.followed(&room).await;
    stage.say(&room, "live", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// Followed from the first response on, or later.
#[tokio::test]
async fn a_piece_of_a_public_room_is_made_whole_by_joining() {
    for followed in [false, true] {
        let stage = Stage::new().await;
        let room = stage.public_room(31);
        let to = stage.server.now();
        stage.say(&room, "between", 25);
        let from = stage.server.now();
        stage.say(&room, "newer", 150);
        if followed {
            stage.once().await;
        }
        stage.backfilled(&[&room, "--from", &from, "--to", &to]).await;
        assert_eq!(stage.history(&room).await, "none");
        stage.server.join(&room, ARCHIVER);
        stage.once().await;
        stage.once().await;
        stage.is_archived(&room).await;
    }
}

#[tokio::test]
async fn a_room_that_was_left_is_taken_up_to_the_leave() {
    let stage = Stage::new().await;
    let room = stage.room(31);
    stage.server.leave(&room, ARCHIVER);
    stage.server.message(&room, ALICE, "after");
    stage.backfilled(&[&room]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    assert_eq!(stage.column(&room, "membership").await, "leave");
    stage.once().await;
    stage.is_archived(&room).await;
    stage.server.join(&room, ARCHIVER);
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_new_room_is_called_by_its_alias() {
    let stage = Stage::new().await;
    let room = stage.room(21);
    stage.server.state(&room, "m.room.canonical_alias", "", r##"{"alias":"#named:model.test"}"##);
    let token = stage.server.now();
    stage.backfilled(&["#named:model.test", "--from", &token]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    stage.backfilled(&["#named:model.test"]).await;
}

#[tokio::test]
async fn a_room_that_may_not_be_read_is_refused_with_what_to_do() {
    let stage = Stage::new().await;
    let (private, invited) =
        (stage.server.create_room_by("10", ALICE), stage.server.create_room_by("10", ALICE));
    stage.server.invite(&invited, ARCHIVER);
    let banned = stage.public_room(3);
    stage.server.state(&banned, "m.room.history_visibility", "", r#"{"history_visibility":"shared"}"#);
    stage.server.ban(&banned, ARCHIVER);
    for room in [private.as_str(), &invited, &banned, "!nowhere:model.test"] {
        stage.refused(&[room], &[room, "not in it", "M_FORBIDDEN", "rooms add --join"]).await;
        stage.refused(&[room, "--from", &stage.server.now()], &["rooms add --join"]).await;
    }
    stage.refused(&["#nowhere:model.test"], &["#nowhere:model.test", "alias"]).await;

    let added = stage.backscroll.run(&["rooms", "add", "--join", &private]).await;
    assert!(added.status.success(), "{}", added.stderr);
    stage.backfilled(&[&private]).await;
    assert_eq!(stage.timeline(&private).await, stage.server.visible_ids(&private));
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_no_walk() {
    let stage = Stage::new().await;
    let (room, public) = (stage.room(5), stage.public_room(5));
    for room in [&room, &public] {
        stage.refused(&[room, "--from", "rubbish"], &["token", "prev_batch"]).await;
        stage.refused(&[room, "--from", &stage.server.now(), "--to", "rubbish"], &["token"]).await;
        stage.refused(&[room, "--from", ""], &["token"]).await;
    }
    // Nor in a room that is there: it would begin anew at the newest event.
    stage.once().await;
    let refused = stage.backfill(&[&room, "--from", "rubbish"]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert_eq!(stage.database.value("select count(*) from archive.walks where kind = 'operator'").await, "0");
}

#[tokio::test]
async fn a_new_room_that_is_left_out_is_not_taken_up() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.server.state(&room, "m.room.canonical_alias", "", r##"{"alias":"#secret:model.test"}"##);
    let stage = stage.set("rooms.exclude", "#secret:*");
    stage.refused(&[&room], &["rooms add"]).await;
    assert!(stage.backscroll.run(&["rooms", "add", &room]).await.status.success());
    stage.backfilled(&[&room]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));

    assert!(stage.backscroll.run(&["erase", "--room", &room]).await.status.success());
    stage.refused(&[&room], &["erased"]).await;
}

/// The state reports the room version; without it the walk does, at the room's start.
#[tokio::test]
async fn a_room_whose_state_is_kept_back_is_walked_all_the_same() {
    let stage = Stage::new().await;
    let room = stage.server.create_room_by("10", ALICE);
    stage.say(&room, "said", 25);
    stage.server.join(&room, ARCHIVER);
    stage.server.leave(&room, ARCHIVER);
    stage.server.inject(Fault::forbidden().on("/state"));
    stage.backfilled(&[&room]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
    assert_eq!(stage.column(&room, "room_version").await, "10");
    stage.server.heal();
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn trouble_passes_before_a_room_is_taken_up() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    for path in ["/joined_rooms", "/messages", "/state"] {
        stage.server.inject(Fault::bad_gateway().on(path).times(1));
    }
    stage.backfilled(&[&room]).await;
    assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room));
}
