//! Rooms that come and go.

use std::time::Duration;

use crate::support::{
    daemon::Daemon,
    homeserver::{ALICE, ARCHIVER, BOB, Fault, StateAfter},
    postgres::rows,
    stage::Stage,
};

async fn membership(stage: &Stage, room: &str) -> String {
    let sql = format!("select coalesce(max(membership), 'none') from rooms where room_id = '{room}'");
    stage.database.value(&sql).await
}

/// A daemon that follows one room already, so that others come by deltas.
async fn following() -> (Stage, Daemon) {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let daemon = stage.followed(&room).await;
    (stage, daemon)
}

#[tokio::test]
async fn a_room_joined_while_running_comes_with_its_past() {
    let (stage, mut daemon) = following().await;
    let room = stage.server.create_room_by("10", ALICE);
    stage.say(&room, "long before", 35);
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "live", 5);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(membership(&stage, &room).await, "join");
}

#[tokio::test]
async fn leaving_keeps_what_was_there() {
    let (stage, mut daemon) = following().await;
    let room = stage.room(25);
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.say(&room, "last words", 2);
    stage.server.leave(&room, ARCHIVER);
    stage.say(&room, "unheard", 5);
    daemon.until("it has left", async || membership(&stage, &room).await == "leave").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.timeline(&room).await.len(), 32);
}

#[tokio::test]
async fn a_kick_and_a_ban_keep_what_was_there() {
    let (stage, mut daemon) = following().await;
    let room = stage.room(25);
    stage.agrees_in_order(&mut daemon, &room).await;
    let mut expected = stage.timeline(&room).await;
    expected.push(stage.server.kick(&room, ARCHIVER));
    daemon.until("it was kicked", async || membership(&stage, &room).await == "leave").await;
    stage.agrees_in_order(&mut daemon, &room).await;

    expected.push(stage.server.join(&room, ARCHIVER));
    daemon.until("it is back", async || membership(&stage, &room).await == "join").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    expected.push(stage.server.ban(&room, ARCHIVER));
    daemon.until("it was banned", async || membership(&stage, &room).await == "ban").await;
    assert_eq!(stage.timeline(&room).await, expected);
    assert_eq!(stage.history(&room).await, "complete", "as it was");
    daemon.stop().await;
}

/// Synapse reports no state of a room that none of its users is in any more (P87).
#[tokio::test]
async fn a_leave_that_only_the_timeline_holds_is_in_force() {
    for (state_after, ban) in [(StateAfter::Stable, false), (StateAfter::Unstable, true)] {
        let stage = Stage::new().await;
        stage.server.behave(|habits| (habits.state_after, habits.drops_left_state) = (state_after, true));
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        stage.server.inject(Fault::delay(Duration::from_millis(300)).on("/sync").times(1));
        stage.server.state(&room, "m.room.topic", "", r#"{"topic":"the last"}"#);
        let (last, gone) = if ban {
            (stage.server.ban(&room, ARCHIVER), "ban")
        } else {
            (stage.server.kick(&room, ARCHIVER), "leave")
        };
        daemon.until("it is gone", async || membership(&stage, &room).await == gone).await;
        if !ban {
            stage.agrees_in_order(&mut daemon, &room).await;
        }
        let own = format!("select membership, event_id from members where user_id = '{ARCHIVER}'");
        assert_eq!(stage.database.rows(&own).await, [[gone.to_owned(), last]]);
        assert_eq!(stage.database.value("select topic from rooms").await, "the last");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn what_was_missed_between_leave_and_rejoin_is_fetched() {
    let (stage, mut daemon) = following().await;
    let room = stage.room(25);
    stage.agrees_in_order(&mut daemon, &room).await;
    for ban in [false, true] {
        if ban {
            stage.server.ban(&room, ARCHIVER);
        } else {
            stage.server.leave(&room, ARCHIVER);
        }
        stage.say(&room, "unheard", 3);
        let gone = if ban { "ban" } else { "leave" };
        daemon.until("it is gone", async || membership(&stage, &room).await == gone).await;
        stage.say(&room, "missed", 35);
        stage.server.state(&room, "m.room.topic", "", r#"{"topic":"missed"}"#);
        stage.server.kick(&room, ARCHIVER);
        stage.server.join(&room, ARCHIVER);
        stage.say(&room, "live again", 5);
        daemon.until("it is back", async || membership(&stage, &room).await == "join").await;
        stage.agrees_in_order(&mut daemon, &room).await;
    }
}

/// The response after the return may begin with what was there before the leave. The gap is above that.
#[tokio::test]
async fn the_gap_of_a_short_absence_is_above_what_was_archived() {
    let (stage, mut daemon) = following().await;
    let room = stage.room(3);
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.server.leave(&room, ARCHIVER);
    daemon.until("it is gone", async || membership(&stage, &room).await == "leave").await;
    stage.say(&room, "missed", 2);
    stage.server.join(&room, ARCHIVER);
    daemon.until("it is back", async || membership(&stage, &room).await == "join").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
    let edges = "select g.lower_position < g.upper_position, above.content ->> 'body'
                 from gaps g join events above on above.room_id = g.room_id and above.event_id = g.upper_event_id
                 where g.reason = 'the account was not in the room'";
    assert_eq!(stage.database.rows(edges).await, [["t", "missed 0"]]);
}

/// Without a return, too: who has left anew, because a ban was lifted or an invite declined, sees the room up to then.
#[tokio::test]
async fn a_second_leave_without_a_return_reveals_what_was_missed() {
    for ban in [true, false] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        let mut daemon = stage.followed(&room).await;
        let (gone, asked) = if ban { ("ban", "ban") } else { ("leave", "invite") };
        if ban {
            stage.server.ban(&room, ARCHIVER);
        } else {
            stage.server.leave(&room, ARCHIVER);
        }
        daemon.until("it is gone", async || membership(&stage, &room).await == gone).await;
        stage.say(&room, "missed", 25);
        stage.server.state(&room, "m.room.topic", "", r#"{"topic":"missed"}"#);
        // So that the token moves on.
        let other = stage.room(3);
        stage.agrees(&mut daemon, &other).await;
        if !ban {
            stage.server.invite(&room, ARCHIVER);
        }
        daemon.until("it is asked", async || membership(&stage, &room).await == asked).await;
        stage.server.kick(&room, ARCHIVER);
        daemon.until("it has left", async || membership(&stage, &room).await == "leave").await;
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// Servers that tell the whole state of a left room only where it is asked for.
#[tokio::test]
async fn a_room_joined_and_left_between_two_responses_is_archived() {
    let stage = Stage::new().await;
    let room = stage.server.create_room_by("10", ALICE);
    stage.say(&room, "before", 30);
    stage.room(3);
    stage.once().await;
    stage.server.invite(&room, ARCHIVER);
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "seen", 20);
    stage.server.kick(&room, ARCHIVER);
    stage.say(&room, "unseen", 5);
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(stage.history(&room).await, "complete");
}

/// The history walk was refused because of the ban; after it, the server gives the rest.
#[tokio::test]
async fn a_history_that_a_ban_cut_off_is_taken_up_again() {
    let stage = Stage::new().await;
    let room = stage.room(55);
    stage.once_for_pages(2).await;
    stage.server.ban(&room, ARCHIVER);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    stage.server.kick(&room, ARCHIVER);
    stage.server.join(&room, ARCHIVER);
    let mut daemon = stage.followed(&room).await;
    stage.agrees_in_order(&mut daemon, &room).await;
}

/// A room with a gap of 45 messages, of which the server gives none yet.
async fn with_a_gap() -> (Stage, String, Daemon) {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.followed(&room).await.stop().await;
    stage.server.behave(|habits| habits.timeline_cap = 5);
    stage.say(&room, "missed", 45);
    stage.server.inject(Fault::bad_gateway().on("/messages"));
    let mut daemon = stage.follow();
    let gaps = "select count(*) from gaps where state = 'open'";
    daemon.until("a gap is open", async || stage.database.value(gaps).await == "1").await;
    (stage, room, daemon)
}

/// As with a history: the walk of the gap was refused because of the ban. Here without a restart.
#[tokio::test]
async fn a_gap_that_a_ban_cut_off_is_taken_up_again() {
    let (stage, room, mut daemon) = with_a_gap().await;
    stage.server.ban(&room, ARCHIVER);
    stage.server.heal();
    let stalled = "select count(*) from archive.walks where state = 'stalled'";
    daemon.until("its walk is refused", async || stage.database.value(stalled).await == "1").await;
    stage.server.kick(&room, ARCHIVER);
    stage.server.join(&room, ARCHIVER);
    daemon.until("it is back", async || membership(&stage, &room).await == "join").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// As before, but `/sync` reports the ban and of the return at once, after the refusal.
#[tokio::test]
async fn a_gap_that_a_ban_between_two_responses_cut_off_is_taken_up_again() {
    let (stage, room, mut daemon) = with_a_gap().await;
    let no_sync = || stage.server.inject(Fault::bad_gateway().on("/sync"));
    no_sync();
    let asked = || stage.server.requests("/sync").len();
    let before = asked();
    // Answers a request that waits for news.
    stage.room(0);
    daemon.until("no request waits", async || asked() > before).await;
    stage.server.ban(&room, ARCHIVER);
    stage.server.heal();
    no_sync();
    let refused = "select count(*) from archive.walks where last_error like '%M_FORBIDDEN%'";
    daemon.until("its walk is refused", async || stage.database.value(refused).await == "1").await;
    stage.server.kick(&room, ARCHIVER);
    stage.server.join(&room, ARCHIVER);
    stage.server.heal();
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

/// Kicked and invited again between two responses: the second part of the answer takes back nothing of the first.
#[tokio::test]
async fn a_room_that_occurs_twice_keeps_what_the_first_says() {
    let (stage, mut daemon) = following().await;
    let event = |kind: &str, sender: &str, key: &str, content: &str| {
        format!(
            r#"{{"type":"{kind}","sender":"{sender}","state_key":"{key}","content":{content},
                "event_id":"${kind}-{sender}","origin_server_ts":1}}"#
        )
    };
    let timeline = [
        event("m.room.create", ALICE, "", r#"{"room_version":"10"}"#),
        event("m.room.member", ARCHIVER, ARCHIVER, r#"{"membership":"join"}"#),
        event("m.room.member", ALICE, ARCHIVER, r#"{"membership":"leave"}"#),
    ];
    let body = format!(
        r#"{{"next_batch":"{}","rooms":{{
            "leave":{{"!twice:model.test":{{"timeline":{{"events":[{}]}}}}}},
            "invite":{{"!twice:model.test":{{"invite_state":{{"events":[{}]}}}}}}}}}}"#,
        stage.server.now(),
        timeline.join(","),
        event("m.room.member", ALICE, ARCHIVER, r#"{"membership":"invite"}"#)
    );
    stage
        .server
        .inject(Fault::reply(200, &[("Content-Type", "application/json")], body).on("/sync").times(1));
    stage.room(0);
    let query = "select membership, bootstrapped, room_version from archive.rooms
        where room_id = '!twice:model.test'";
    daemon.until("it is reported", async || !stage.database.rows(query).await.is_empty()).await;
    assert_eq!(stage.database.rows(query).await, [["invite", "t", "10"]]);
    daemon.stop().await;
}

#[tokio::test]
async fn an_invite_shows_stripped_state_and_nothing_else() {
    let (stage, mut daemon) = following().await;
    let room = stage.server.create_room_by("10", ALICE);
    stage.server.state(&room, "m.room.name", "", r#"{"name":"a\u0000b"}"#);
    stage.say(&room, "before", 15);
    stage.server.invite(&room, ARCHIVER);
    daemon.until("it is invited", async || membership(&stage, &room).await == "invite").await;
    let count = |table: &str| {
        format!(
            "select count(*) from archive.{table} join archive.rooms using (room_id)
             where room_id = '{room}'"
        )
    };
    assert_eq!(stage.database.value(&count("stripped_state")).await, "4");
    for table in ["events", "walks", "current_state", "gaps"] {
        assert_eq!(stage.database.value(&count(table)).await, "0", "{table}");
    }

    stage.server.join(&room, ARCHIVER);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.database.value(&count("stripped_state")).await, "0");
}

#[tokio::test]
async fn an_invite_to_a_room_that_is_not_wanted_shows_nothing() {
    let stage = Stage::new().await.set("rooms.exclude", "#secret:*");
    let other = stage.room(3);
    let mut daemon = stage.followed(&other).await;
    let stripped = "select count(*) from archive.stripped_state";
    let excluded = stage.server.create_room_by("10", ALICE);
    stage.server.state(&excluded, "m.room.canonical_alias", "", r##"{"alias":"#secret:model.test"}"##);
    stage.server.invite(&excluded, ARCHIVER);
    daemon.until("it is invited", async || membership(&stage, &excluded).await == "invite").await;
    assert_eq!(stage.database.value(stripped).await, "0");
    // What was shown before goes with the join.
    let paused = stage.server.create_room_by("10", ALICE);
    stage.server.invite(&paused, ARCHIVER);
    daemon.until("it is invited", async || membership(&stage, &paused).await == "invite").await;
    assert_ne!(stage.database.value(stripped).await, "0");
    let outcome = stage.backscroll.run(&["rooms", "pause", &paused]).await;
    assert!(outcome.status.success(), "{}", outcome.stderr);
    stage.server.join(&paused, ARCHIVER);
    daemon.until("it is joined", async || membership(&stage, &paused).await == "join").await;
    assert_eq!(stage.database.value(stripped).await, "0");
    daemon.stop().await;
}

#[tokio::test]
async fn an_invite_declined_may_be_taken_later() {
    let (stage, mut daemon) = following().await;
    let room = stage.server.create_room_by("10", ALICE);
    stage.say(&room, "before", 15);
    stage.server.invite(&room, ARCHIVER);
    daemon.until("it is invited", async || membership(&stage, &room).await == "invite").await;
    stage.server.leave(&room, ARCHIVER);
    daemon.until("it has declined", async || membership(&stage, &room).await == "leave").await;
    stage.say(&room, "between", 15);
    stage.server.invite(&room, ARCHIVER);
    daemon.until("it is invited", async || membership(&stage, &room).await == "invite").await;
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "live", 5);
    stage.agrees_in_order(&mut daemon, &room).await;
}

#[tokio::test]
async fn an_upgrade_leaves_two_rooms() {
    for version in ["11", "12"] {
        let (stage, mut daemon) = following().await;
        let old = stage.room(15);
        stage.agrees_in_order(&mut daemon, &old).await;
        let new = stage.server.upgrade(&old, version);
        stage.say(&new, "here", 15);
        stage.server.message(&old, BOB, "still there");
        for room in [&old, &new] {
            stage.agrees_in_order(&mut daemon, room).await;
        }
        let sql = format!("select room_version from rooms where room_id = '{new}'");
        assert_eq!(stage.database.value(&sql).await, version);
        assert_eq!(links(&stage, &old).await, ["∅", &*new]);
        assert_eq!(links(&stage, &new).await, [&*old, "∅"]);

        // What only one of two rooms claims, its own past or another's future, is no link.
        let newer = stage.server.upgrade(&old, version);
        let usurper = stage.room(5);
        let claim = format!(r#"{{"body":"follow me","replacement_room":"{newer}"}}"#);
        stage.server.state(&usurper, "m.room.tombstone", "", &claim);
        for room in [&old, &newer, &usurper] {
            stage.agrees_in_order(&mut daemon, room).await;
        }
        assert_eq!(links(&stage, &old).await, ["∅", &*newer]);
        assert_eq!(links(&stage, &newer).await, [&*old, "∅"]);
        for room in [&new, &usurper] {
            assert_eq!(links(&stage, room).await, ["∅", "∅"], "{room}");
        }
    }
}

/// The rooms that a room was upgraded from and to.
async fn links(stage: &Stage, room: &str) -> Vec<String> {
    let sql = format!("select predecessor, successor from rooms where room_id = '{room}'");
    rows(stage.database.url(), &sql).await.remove(0)
}

/// P102: what the account may not see is no hole.
#[tokio::test]
async fn what_happened_unseen_is_not_waited_for() {
    let (stage, mut daemon) = following().await;
    let room = stage.room(15);
    stage.server.state(&room, "m.room.history_visibility", "", r#"{"history_visibility":"joined"}"#);
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.server.leave(&room, ARCHIVER);
    stage.say(&room, "secret", 25);
    daemon.until("it has left", async || membership(&stage, &room).await == "leave").await;
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "live", 5);
    daemon.until("it is back", async || membership(&stage, &room).await == "join").await;
    stage.agrees_in_order(&mut daemon, &room).await;
}

/// Refused while the account was invited or banned, and given again although it does not come back.
#[tokio::test]
async fn a_gap_that_was_refused_for_a_while_is_taken_up_again() {
    for invited in [true, false] {
        let (stage, room, mut daemon) = with_a_gap().await;
        stage.server.kick(&room, ARCHIVER);
        if invited {
            stage.server.invite(&room, ARCHIVER);
        } else {
            stage.server.ban(&room, ARCHIVER);
        }
        stage.server.heal();
        let stalled = "select count(*) from archive.walks where state = 'stalled'";
        daemon.until("its walk is refused", async || stage.database.value(stalled).await == "1").await;
        stage.server.kick(&room, ARCHIVER);
        // The time away may be a gap of its own, which closes soon before or after.
        let open = "select count(*) from gaps where state <> 'closed'";
        daemon.until("every gap is closed", async || stage.database.value(open).await == "0").await;
        let missed = "select count(*) from messages where body like 'missed %' and position is not null";
        assert_eq!(stage.database.value(missed).await, "45");
        daemon.stop().await;
    }
}
