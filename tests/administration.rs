//! What its administrator does to a real Synapse: brings it back from a backup, purges what is old, deletes a room.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    agreement::{assert_agrees, assert_settled, difference},
    archive::timeline,
    daemon::Backscroll,
    postgres::{TestDatabase, rows},
    synapse::{Synapse, User, segment},
};

/// Alice's server, a room of hers, and an archive of it.
struct Stage {
    synapse: Synapse,
    alice: User,
    archiver: User,
    room: String,
}

impl Stage {
    async fn new() -> Self {
        let synapse = Synapse::start().await;
        let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
        let room = synapse.create_room(&alice, "10", json!({ "preset": "public_chat" })).await;
        synapse.join(&archiver, &room).await;
        Self { synapse, alice, archiver, room }
    }

    async fn say(&self, what: &str, count: usize) -> Vec<String> {
        let mut said = Vec::new();
        for number in 0..count {
            let body = json!({ "msgtype": "m.text", "body": format!("{what} {number}") });
            said.push(self.synapse.send(&self.alice, &self.room, "m.room.message", body).await);
        }
        said
    }

    async fn topic(&self, topic: &str) -> String {
        self.synapse.send_state(&self.alice, &self.room, "m.room.topic", "", json!({ "topic": topic })).await
    }

    fn backscroll(&self, database: &TestDatabase) -> Backscroll {
        Backscroll::new(self.synapse.url(), &self.archiver.access_token, Some(database.url()))
            .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10")
            .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1s")
    }
}

/// P23: the token of a server that was rolled back lies in its future, and what it says then is easily missed.
#[tokio::test]
async fn a_server_that_comes_back_from_a_backup_is_followed_anew() {
    let mut stage = Stage::new().await;
    stage.say("before", 25).await;
    let database = TestDatabase::new().await;
    let backup = stage.synapse.back_up().await;
    let backscroll = stage.backscroll(&database);
    let mut daemon = backscroll.start(&["run"]);
    let mut gone = stage.say("forgotten", 15).await;
    gone.push(stage.topic("forgotten").await);
    let (url, room) = (database.url(), &stage.room);
    daemon.settles(async || difference(url, &stage.synapse, &stage.archiver, room, &[]).await).await;

    stage.synapse.restore(&backup).await;
    // Fewer events than were lost: the archive's token stays in the future.
    stage.topic("remembered").await;
    stage.say("after", 5).await;
    let room = &stage.room;
    daemon.settles(async || difference(url, &stage.synapse, &stage.archiver, room, &gone).await).await;
    stage.say("long after", 30).await;
    daemon.settles(async || difference(url, &stage.synapse, &stage.archiver, room, &gone).await).await;
    daemon.stop().await;

    let served = stage.synapse.walk(&stage.archiver, room).await;
    let served: Vec<String> = served.into_iter().rev().map(|event| event.event_id).collect();
    let mut archived = timeline(&database, room).await;
    archived.retain(|event_id| !gone.contains(event_id));
    assert_eq!(archived, served);
}

/// What a server purges stays in an archive that has it; one that comes later says what it cannot have.
#[tokio::test]
async fn what_the_server_purges_stays_in_the_archive() {
    let mut stage = Stage::new().await;
    stage.synapse.make_administrator(&stage.alice).await;
    stage.topic("old").await;
    stage.say("old", 30).await;
    let new = stage.say("new", 20).await;
    let (early, late) = (TestDatabase::new().await, TestDatabase::new().await);
    let backscroll = stage.backscroll(&early);
    backscroll.once().await;
    let (synapse, archiver, room) = (&stage.synapse, &stage.archiver, &stage.room);
    assert_agrees(early.url(), synapse, archiver, room).await;
    let before = timeline(&early, room).await;

    purge(&stage, &new[0]).await;
    let served = synapse.walk(archiver, room).await;
    assert!(served.len() < before.len(), "{} of {}", served.len(), before.len());
    backscroll.once().await;
    let again = backscroll.run(&["backfill", room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(timeline(&early, room).await, before);
    assert_eq!(history(&early, room).await, ["complete", "∅"]);

    stage.backscroll(&late).once().await;
    assert_eq!(timeline(&late, room).await.len(), served.len());
    let [history, reason] = history(&late, room).await;
    assert!(history == "truncated" && reason.contains("purged"), "{history}: {reason}");
}

/// P106: a deleted room is in no later answer, and the server does not say that the account has left it.
#[tokio::test]
async fn a_room_that_the_server_deletes_is_left_with_all_its_rows() {
    let mut stage = Stage::new().await;
    stage.synapse.make_administrator(&stage.alice).await;
    stage.say("doomed", 25).await;
    let other = stage.synapse.create_room(&stage.alice, "11", json!({ "preset": "public_chat" })).await;
    stage.synapse.join(&stage.archiver, &other).await;
    let database = TestDatabase::new().await;
    let backscroll = stage.backscroll(&database);
    backscroll.once().await;
    let before = timeline(&database, &stage.room).await;

    delete(&stage, &stage.room).await;
    let outcome = backscroll.once().await;
    assert!(outcome.stderr.contains("the room was removed on the homeserver"), "{}", outcome.stderr);
    assert_eq!(membership(&database, &stage.room).await, "leave");
    assert_eq!(membership(&database, &other).await, "join");
    assert_eq!(timeline(&database, &stage.room).await, before);
    assert_eq!(history(&database, &stage.room).await, ["complete", "∅"]);
    assert_settled(database.url()).await;
    // Once is enough.
    let outcome = backscroll.once().await;
    assert!(!outcome.stderr.contains("the room was removed on the homeserver"), "{}", outcome.stderr);

    // Not even a daemon that listens is reported.
    let backscroll = backscroll.set("BACKSCROLL_HOMESERVER__SYNC_TIMEOUT", "1s");
    let mut daemon = backscroll.start(&["run"]);
    daemon
        .until("the other room is followed", async || daemon_follows(&stage, &database, &other).await)
        .await;
    delete(&stage, &other).await;
    daemon.until("it is left", async || membership(&database, &other).await == "leave").await;
    daemon.stop().await;
}

/// Says something, and whether the archive has it a little later.
async fn daemon_follows(stage: &Stage, database: &TestDatabase, room: &str) -> bool {
    let body = json!({ "msgtype": "m.text", "body": "are you there?" });
    let event_id = stage.synapse.send(&stage.alice, room, "m.room.message", body).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    timeline(database, room).await.contains(&event_id)
}

/// Removes a room and everybody's memory of it.
async fn delete(stage: &Stage, room: &str) {
    let path = format!("/rooms/{}", segment(room));
    let body = json!({ "purge": true, "block": false });
    stage.synapse.administer(Method::DELETE, &path, &stage.alice, Some(body)).await.unwrap();
}

async fn membership(database: &TestDatabase, room: &str) -> String {
    database.value(&format!("select membership from rooms where room_id = '{room}'")).await
}

/// Removes what is older than an event from the server, local users' messages included.
async fn purge(stage: &Stage, event_id: &str) {
    let path = format!("/purge_history/{}/{}", segment(&stage.room), segment(event_id));
    let body = json!({ "delete_local_events": true });
    let begun = stage.synapse.administer(Method::POST, &path, &stage.alice, Some(body)).await.unwrap();
    let path = format!("/purge_history_status/{}", begun["purge_id"].as_str().unwrap());
    loop {
        let status: Value = stage.synapse.administer(Method::GET, &path, &stage.alice, None).await.unwrap();
        match status["status"].as_str().unwrap() {
            "complete" => return,
            "active" => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            other => panic!("the purge: {other}"),
        }
    }
}

async fn history(database: &TestDatabase, room: &str) -> [String; 2] {
    let query = format!("select history_state, history_reason from rooms where room_id = '{room}'");
    rows(database.url(), &query).await.remove(0).try_into().unwrap()
}
