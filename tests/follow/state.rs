//! The current state: the server's, whatever way it went (P162).

use std::time::Duration;

use crate::support::{
    homeserver::{ALICE, BOB, Fault, StateAfter},
    stage::Stage,
};

const TOPIC: &str = "m.room.topic";

fn topic(text: &str) -> String {
    format!(r#"{{"topic":"{text}"}}"#)
}

async fn moves(stage: &Stage) -> Vec<Vec<String>> {
    let sql = format!(
        "select coalesce(old_event_id, '-'), coalesce(new_event_id, '-'), cause from archive.state_changes
         where type = '{TOPIC}' order by change_id"
    );
    stage.database.rows(&sql).await
}

const SERVERS: [StateAfter; 3] = [StateAfter::Never, StateAfter::Stable, StateAfter::Unstable];

/// Finding 6: a reset leaves no event.
#[tokio::test]
async fn the_state_may_go_back_to_an_older_event() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        let first = stage.server.state(&room, TOPIC, "", &topic("first"));
        let mut daemon = stage.followed(&room).await;
        let second = stage.server.state(&room, TOPIC, "", &topic("second"));
        stage.agrees(&mut daemon, &room).await;
        stage.server.set_state(&room, TOPIC, "", &first);
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value("select topic from rooms").await, "first");
        let [.., back] = &moves(&stage).await[..] else { panic!("the topic has moved") };
        assert_eq!(back[..2], [second, first], "{state_after:?}");
    }
}

/// No later response would ask again.
#[tokio::test]
async fn a_state_that_once_cannot_get_at_first_is_asked_for_again() {
    // A single refusal, too: it may be a proxy's.
    for fault in [Fault::too_many(&[], "1"), Fault::bad_gateway(), Fault::forbidden()] {
        let stage = Stage::new().await;
        let room = stage.room(5);
        stage.server.state(&room, TOPIC, "", &topic("before"));
        stage.once().await;
        stage.server.state(&room, TOPIC, "", &topic("winner"));
        stage.server.fork_state(&room, TOPIC, "", &topic("loser"));
        stage.server.inject(fault.on("/state").times(2));
        stage.once().await;
        assert_eq!(stage.database.value("select topic from rooms").await, "winner");
    }
}

/// Neither an empty list nor one with an unreadable event is a reason to drop what the room's state was.
#[tokio::test]
async fn a_state_that_is_not_whole_removes_nothing() {
    let body = |body: &'static str| Fault::change(move |reply| reply.body = body.into());
    let spoilt = Fault::change(|reply| {
        let state = String::from_utf8(std::mem::take(&mut reply.body)).expect("JSON");
        reply.body = state.replacen(r#""type":"m.room.topic""#, r#""type":7"#, 1).into_bytes();
    });
    for fault in [body("[]"), body("[7]"), spoilt] {
        let stage = Stage::new().await;
        let room = stage.room(5);
        stage.server.state(&room, TOPIC, "", &topic("known"));
        stage.followed(&room).await.stop().await;
        stage.server.inject(fault.on("/state"));
        let before = stage.server.requests("/state").len();
        let mut daemon = stage.follow();
        stage.server.has_been_asked("/state", before + 1).await;
        let marked = "select count(*) from archive.rooms where state_suspect";
        daemon.until("it is looked into", async || stage.database.value(marked).await == "0").await;
        daemon.stop().await;
        assert_eq!(stage.database.value("select topic from rooms").await, "known");
    }
}

/// Finding 5: the loser of a fork is in the timeline, and nothing says that it lost.
#[tokio::test]
async fn the_loser_of_a_fork_is_not_current() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        stage.server.state(&room, TOPIC, "", &topic("before"));
        let mut daemon = stage.followed(&room).await;
        stage.server.state(&room, TOPIC, "", &topic("winner"));
        stage.agrees(&mut daemon, &room).await;
        let before = stage.server.requests("/state").len();
        let loser = stage.server.fork_state(&room, TOPIC, "", &topic("loser"));
        stage.server.message(&room, ALICE, "marker");
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value("select topic from rooms").await, "winner", "{state_after:?}");
        let history = format!("select count(*) from state_history where event_id = '{loser}'");
        assert_eq!(stage.database.value(&history).await, "1", "the loser is history");
        let asked = stage.server.requests("/state").len() - before;
        assert_eq!(
            asked == 0,
            state_after != StateAfter::Never,
            "/state is asked only where sync does not tell"
        );
    }
}

/// Without `state_after`, `/sync` reports the state of the branch that its timeline ends with.
#[tokio::test]
async fn the_state_of_a_branch_is_not_the_rooms() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        let before = stage.server.state(&room, TOPIC, "", &topic("before"));
        let mut daemon = stage.followed(&room).await;
        stage.server.state(&room, TOPIC, "", &topic("in force"));
        stage.agrees(&mut daemon, &room).await;
        stage.server.branched_message(&room, "has not heard of it", &before);
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value("select topic from rooms").await, "in force", "{state_after:?}");
        daemon.stop().await;
    }
}

/// `/sync` leaves out what `/state` reports, also where it is to tell all.
#[tokio::test]
async fn a_full_state_takes_away_nothing_that_is_in_force() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(5), stage.room(5));
    stage.server.state(&room, "m.room.aliases", "model.test", r##"{"aliases":["#a:model.test"]}"##);
    let mut daemon = stage.followed(&room).await;
    let full =
        || stage.server.requests("/sync").iter().filter(|it| it.query("full_state") == Some("true")).count();
    let before = full();
    let paused = stage.backscroll.run(&["rooms", "pause", &other]).await;
    assert!(paused.status.success(), "{}", paused.stderr);
    daemon.until("all state is asked for", async || full() > before).await;
    stage.server.message(&room, ALICE, "after it");
    stage.agrees_in_order(&mut daemon, &room).await;
    let lost = "select count(*) from archive.state_changes where new_event_id is null";
    assert_eq!(stage.database.value(lost).await, "0");
    daemon.stop().await;
}

/// P86 too: of an event and its successor on another branch, the one with the later `origin_server_ts` wins.
#[tokio::test]
async fn a_successor_that_claims_to_be_older_is_not_current() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        stage.server.state(&room, TOPIC, "", &topic("in force"));
        let mut daemon = stage.followed(&room).await;
        stage.server.backdated_state(&room, TOPIC, "", &topic("backdated"));
        stage.server.message(&room, ALICE, "marker");
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value("select topic from rooms").await, "in force", "{state_after:?}");
        daemon.stop().await;
    }
}

/// Several changes between two responses, some of them in the state section only.
#[tokio::test]
async fn state_that_changed_in_a_gap_is_current() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| {
            habits.state_after = state_after;
            habits.timeline_cap = 5;
        });
        let room = stage.room(15);
        stage.server.state(&room, TOPIC, "", &topic("before"));
        stage.followed(&room).await.stop().await;
        for number in 0..5 {
            stage.server.state(&room, TOPIC, "", &topic(&format!("missed {number}")));
            stage.server.state(&room, "org.example", &number.to_string(), "{}");
            stage.say(&room, "between", 3);
        }
        let mut daemon = stage.followed(&room).await;
        stage.agrees_in_order(&mut daemon, &room).await;
    }
}

/// A page of history holds old state, which moves nothing; and a walk from a token between two values neither.
#[tokio::test]
async fn history_moves_no_state() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    for number in 0..25 {
        stage.server.state(&room, TOPIC, "", &topic(&number.to_string()));
        stage.server.state(&room, "org.example", &number.to_string(), "{}");
    }
    stage.once().await;
    stage.is_archived(&room).await;
    let current = "select count(*) from current_state where type = 'org.example'";
    assert_eq!(stage.database.value(current).await, "25");
    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    stage.is_archived(&room).await;
    assert_eq!(moves(&stage).await.len(), 1, "only the bootstrap moved the topic");
}

/// P93: neither a reset nor the loss of a key need be in any answer but a whole state.
#[tokio::test]
async fn a_restart_heals_a_state_that_changed_behind_its_back() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        let first = stage.server.state(&room, TOPIC, "", &topic("first"));
        let second = stage.server.state(&room, TOPIC, "", &topic("second"));
        let lost = stage.server.state(&room, "org.example", "lost", "{}");
        stage.followed(&room).await.stop().await;
        stage.server.unset_state(&room, "org.example", "lost");
        // As if a reset had not been reported.
        stage
            .database
            .run(&format!("update archive.current_state set event_id = '{first}' where type = '{TOPIC}'"))
            .await;
        assert_ne!(stage.state_difference(&room).await, None);
        let mut daemon = stage.followed(&room).await;
        daemon
            .until("the state is the server's", async || stage.state_difference(&room).await.is_none())
            .await;
        let [.., healed] = &moves(&stage).await[..] else { panic!("the topic has moved") };
        assert_eq!(healed[..], [first, second, "reconcile".to_owned()], "{state_after:?}");
        let query = "select old_event_id, coalesce(new_event_id, '-'), cause from archive.state_changes
                    where type = 'org.example' order by change_id desc limit 1";
        assert_eq!(stage.database.rows(query).await, [[lost, "-".to_owned(), "reconcile".to_owned()]]);
        daemon.stop().await;
    }
}

/// The same without a restart: after a limited timeline.
#[tokio::test]
async fn a_limited_timeline_has_the_state_compared() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        stage.server.state(&room, "org.example", "lost", "{}");
        let mut daemon = stage.followed(&room).await;
        stage.server.unset_state(&room, "org.example", "lost");
        stage.server.federation_gap(&room);
        stage.server.message(&room, ALICE, "after the gap");
        stage.agrees(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// What is live in other rooms does not wait for it, and the server is not asked for ever more.
#[tokio::test]
async fn a_state_that_cannot_be_got_is_asked_for_ever_more_rarely() {
    let stage = Stage::new().await;
    let (damaged, other) = (stage.room(5), stage.room(5));
    stage.once().await;
    stage.server.inject(Fault::bad_gateway().on("/state").in_room(&damaged));
    let mut daemon = stage.follow();
    let asked = || stage.server.requests("/state").iter().filter(|it| it.room() == Some(&damaged)).count();
    for number in 0..20 {
        stage.server.message(&other, ALICE, &format!("live {number}"));
        stage.agrees_in_order(&mut daemon, &other).await;
    }
    assert!((1..10).contains(&asked()), "asked {} times", asked());
    stage.server.heal();
    let suspect = "select count(*) from archive.rooms where state_suspect";
    let settled = async || {
        stage.server.message(&other, ALICE, "more");
        stage.database.value(suspect).await == "0"
    };
    daemon.until("it is compared", settled).await;
    daemon.stop().await;
}

/// A key without an earlier value, of a branch that a ban on another has undone: no response reports that it is gone.
#[tokio::test]
async fn a_ban_may_undo_what_was_there_for_the_first_time() {
    for state_after in SERVERS {
        let stage = Stage::new().await;
        stage.server.behave(|habits| habits.state_after = state_after);
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        stage.server.join(&room, BOB);
        stage.server.state(&room, "m.room.name", "", r#"{"name":"Bob was here"}"#);
        stage.agrees(&mut daemon, &room).await;
        stage.server.unset_state(&room, "m.room.name", "");
        stage.server.ban(&room, BOB);
        stage.agrees(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// Not even where it hangs in more rooms than are asked at once, nor at a start.
#[tokio::test]
async fn a_state_that_never_comes_holds_up_nothing() {
    let stage = Stage::new().await;
    let hanging: Vec<_> = (0..4).map(|_| stage.room(5)).collect();
    let room = stage.room(5);
    stage.once().await;
    for room in &hanging {
        stage.server.inject(Fault::stall().on("/state").in_room(room));
    }
    stage.server.inject(Fault::stall().on("/joined_rooms"));
    let mut daemon = stage.follow();
    stage.server.has_been_asked("/joined_rooms", 2).await;
    for number in 0..2 {
        for room in hanging.iter().chain([&room]) {
            stage.say(room, &format!("live {number}"), 2);
            stage.server.state(room, TOPIC, "", &topic(&number.to_string()));
        }
        for room in hanging.iter().chain([&room]) {
            stage.agrees_in_order(&mut daemon, room).await;
        }
    }
    daemon.stop().await;
}

/// What `/sync` reports while the state is asked for is newer than the answer may be.
#[tokio::test]
async fn an_answer_that_comes_late_undoes_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.server.state(&room, TOPIC, "", &topic("first"));
    stage.once().await;
    let asked = stage.server.requests("/state").len();
    stage.server.inject(Fault::hold(Duration::from_secs(5)).on("/state").times(1));
    let mut daemon = stage.follow();
    stage.server.has_been_asked("/state", asked + 1).await;
    stage.server.state(&room, TOPIC, "", &topic("second"));
    let is_reported = "select count(*) from rooms where topic = 'second'";
    daemon.until("the second topic is there", async || stage.database.value(is_reported).await == "1").await;
    // Asked again, for the answer was of no use.
    stage.server.has_been_asked("/state", asked + 2).await;
    let is_compared = "select count(*) from archive.rooms where not state_suspect";
    daemon.until("the state is compared", async || stage.database.value(is_compared).await == "1").await;
    stage.agrees(&mut daemon, &room).await;
    let moves = moves(&stage).await;
    assert_eq!(moves.iter().filter(|change| change[2] == "reconcile").count(), 0, "{moves:?}");
    daemon.stop().await;
}
