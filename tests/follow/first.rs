//! The first response, which may be large, late to end, and never come to its end.

use std::time::Duration;

use crate::support::{
    homeserver::{ALICE, Fault, Json},
    postgres::on_citus,
    stage::Stage,
};

/// Half of their states is larger than what is stored at once, 1 MiB.
const ROOMS: usize = 60;

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

/// Has the responses stop half way, and waits until there is what is stored of one.
async fn interrupted(stage: &Stage, is_stored: &str) {
    // Each time: on a busy machine the daemon may have asked again before this looks.
    stage.server.inject(Fault::stall_in_body().on("/sync"));
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
        "select count(*) from archive.state_changes group by room_id, type, state_key having count(*) > 1";
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
    let gaps = "select distinct count(*) from archive.gaps group by room_id";
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
    let mut daemon = stage.follow();
    stage.server.has_been_asked("/sync", before + 1).await;
    // Half of the response, about 4 MiB, would be stored by then. What the start looks at in a room takes a moment.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let unlocked = "select count(*) from (select from archive.rooms for update skip locked) unlocked";
    let all = ROOMS.to_string();
    let asked = stage.server.requests("/sync").len();
    // Citus locks the rows of one room in a query.
    if !on_citus() {
        daemon.until("no room is locked", async || stage.database.value(unlocked).await == all).await;
    }
    assert_eq!(stage.server.requests("/sync").len(), asked, "it still waits for the rest");
    daemon.kill().await;
    stage.server.heal();
    stage.once().await;
    are_archived(&stage, &rooms).await;
}
