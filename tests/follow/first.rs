//! The first response, which may be large, late to end, and never come to its end.

use std::time::Duration;

use crate::support::{
    homeserver::{ALICE, Fault, Json},
    stage::Stage,
};

const ROOMS: usize = 40;

/// Rooms whose states are larger together than what is stored at once.
fn large_rooms(stage: &Stage) -> Vec<String> {
    let padding = "x".repeat(50_000);
    let room = |_| {
        let room = stage.room(3);
        stage.server.state(&room, "org.example.large", "", &format!(r#"{{"padding":"{padding}"}}"#));
        room
    };
    (0..ROOMS).map(room).collect()
}

async fn are_archived(stage: &Stage, rooms: &[String]) {
    for room in rooms {
        assert_eq!(stage.difference(room).await, None, "{room}");
    }
}

/// Has the next response stop half way, and waits until there is what is stored of it.
async fn interrupted(stage: &Stage, is_stored: &str) {
    stage.server.inject(Fault::stall_in_body().on("/sync").times(1));
    let mut daemon = stage.follow();
    daemon.until("a part is stored", async || stage.database.value(is_stored).await == "true").await;
    assert_eq!(stage.database.value("select count(since) from archive.accounts").await, "0");
    daemon.kill().await;
    stage.server.heal();
}

#[tokio::test]
async fn a_first_response_is_stored_in_portions_and_a_repeat_changes_nothing() {
    let stage = Stage::new().await;
    let rooms = large_rooms(&stage);
    interrupted(&stage, "select (count(*) > 0)::text from archive.events").await;
    let parts = "select (select count(*) from archive.walks),
        (select count(*) from archive.rooms where bootstrapped)";
    assert_eq!(stage.database.rows(parts).await, [["0", "0"]], "nothing counts on a part");
    stage.once().await;
    are_archived(&stage, &rooms).await;
    assert_eq!(stage.database.value("select count(*) from archive.gaps").await, "0");
    let moves =
        "select count(*) from archive.state_changes group by room_key, type, state_key having count(*) > 1";
    assert!(stage.database.column(moves).await.is_empty(), "no state has moved twice");
}

/// A repeated response finds rooms that the archive knew before and, since, the gap that it opened itself.
#[tokio::test]
async fn a_lost_token_opens_one_gap_a_room_however_often_the_response_breaks() {
    let stage = Stage::new().await;
    let rooms = large_rooms(&stage);
    stage.once().await;
    stage.database.run("update archive.accounts set since = null").await;
    stage.database.run("delete from archive.anchors").await;
    for _ in 0..2 {
        for room in &rooms {
            stage.say(room, "unheard", 3);
        }
        let before = stage.database.value("select count(*) from archive.events").await;
        interrupted(&stage, &format!("select (count(*) > {before})::text from archive.events")).await;
    }
    stage.once().await;
    are_archived(&stage, &rooms).await;
    let gaps = "select distinct count(*) from archive.gaps group by room_key";
    assert_eq!(stage.database.column(gaps).await, ["1"]);
}

/// Some servers write the token last.
#[tokio::test]
async fn a_token_may_come_last() {
    let stage = Stage::new().await;
    let rooms = large_rooms(&stage);
    stage.server.inject(
        Fault::change(|reply| {
            let answer = Json::from_bytes(&reply.body).expect("an answer");
            if let Some(token) = answer.get("next_batch").cloned() {
                let last = answer.without("next_batch").with("next_batch", token);
                reply.body = last.write().into_bytes();
            }
        })
        .on("/sync"),
    );
    stage.once().await;
    are_archived(&stage, &rooms).await;
    for room in &rooms {
        stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"{}"}}"#, "y".repeat(50_000)));
        stage.server.message(room, ALICE, "later");
    }
    stage.once().await;
    are_archived(&stage, &rooms).await;
    assert_eq!(stage.database.value("select count(*) from archive.gaps").await, "0");
}

/// A later response is stored in one transaction, which holds the locks of its rooms.
#[tokio::test]
async fn a_later_response_that_stalls_holds_no_locks() {
    let stage = Stage::new().await;
    let rooms = large_rooms(&stage);
    stage.once().await;
    let padding = "y".repeat(50_000);
    for room in &rooms {
        for _ in 0..3 {
            stage.server.message(room, ALICE, &padding);
        }
    }
    let before = stage.server.requests("/sync").len();
    stage.server.inject(Fault::stall_in_body().on("/sync").times(1));
    let daemon = stage.follow();
    stage.server.has_been_asked("/sync", before + 1).await;
    // Half of the response, about 3 MiB, would be stored by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.database.run("select from archive.rooms for update nowait").await;
    daemon.kill().await;
    stage.server.heal();
    stage.once().await;
    are_archived(&stage, &rooms).await;
}
