//! Two real Synapses that federate over loopback, one of which is archived: what arrives late, out of order, or loses.

mod script;

use reqwest::Method;
use serde_json::json;

use crate::support::{
    agreement::{assert_agrees, difference},
    daemon::{Backscroll, Daemon},
    postgres::TestDatabase,
    synapse::{Synapse, User, segment},
};

/// Alice's and the archive's server, Bob's, and a room of both.
struct Federation {
    near: Synapse,
    far: Synapse,
    alice: User,
    bob: User,
    archivist: User,
    room: String,
    database: TestDatabase,
    backscroll: Backscroll,
}

impl Federation {
    async fn new() -> Self {
        let (near, far) = tokio::join!(Synapse::start_federating(), Synapse::start_federating());
        let (alice, archivist) = (near.register("alice").await, near.register("archivist").await);
        let bob = far.register("bob").await;
        let levels = json!({ "users": { &alice.user_id: 100, &bob.user_id: 50 } });
        let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let room = near.create_room(&alice, "10", body).await;
        near.join(&archivist, &room).await;
        far.join_through(&bob, &room, &near).await;
        let database = TestDatabase::new().await;
        let backscroll = Backscroll::new(near.url(), &archivist.access_token, Some(database.url()))
            .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1s")
            .set("BACKSCROLL_BACKFILL__REWALK_AFTER", r#"["2s"]"#);
        Self { near, far, alice, bob, archivist, room, database, backscroll }
    }

    async fn say(&self, user: &User, what: &str, count: usize) -> Vec<String> {
        let server = if user.user_id == self.bob.user_id { &self.far } else { &self.near };
        let mut said = Vec::new();
        for number in 0..count {
            let body = json!({ "msgtype": "m.text", "body": format!("{what} {number}") });
            said.push(server.send(user, &self.room, "m.room.message", body).await);
        }
        said
    }

    async fn topic(&self, user: &User, topic: &str) -> String {
        let server = if user.user_id == self.bob.user_id { &self.far } else { &self.near };
        server.send_state(user, &self.room, "m.room.topic", "", json!({ "topic": topic })).await
    }

    /// How the archive differs from what its server shows, `must_hold` included.
    async fn difference(&self, must_hold: &[String]) -> Option<String> {
        let served = self.near.walk(&self.archivist, &self.room).await;
        let has = |event_id: &String| served.iter().any(|event| event.event_id == *event_id);
        if let Some(missing) = must_hold.iter().find(|event_id| !has(event_id)) {
            return Some(format!("the server has not got {missing} yet"));
        }
        difference(self.database.url(), &self.near, &self.archivist, &self.room, &[]).await
    }

    async fn agrees(&self, daemon: &mut Daemon, must_hold: &[String]) {
        daemon.settles(async || self.difference(must_hold).await).await;
    }

    /// The topic in force on a server.
    async fn topic_at(&self, server: &Synapse, user: &User) -> String {
        let path = format!("/rooms/{}/state/m.room.topic/", segment(&self.room));
        let topic = server.call(Method::GET, &path, Some(user), None).await.unwrap();
        topic["topic"].as_str().unwrap().to_owned()
    }
}

/// Finding 2: what the server fetches of an outage lies behind the stream, where `to` hides it.
#[tokio::test]
async fn an_outage_of_the_archived_server_is_filled() {
    let mut federation = Federation::new().await;
    federation.say(&federation.alice, "before", 12).await;
    let mut daemon = federation.backscroll.start(&["run"]);
    federation.agrees(&mut daemon, &[]).await;

    federation.near.stop();
    let mut said = federation.say(&federation.bob, "unheard", 40).await;
    federation.near.restart().await;
    // Something new makes the far server remember, and the near one see what it lacks.
    said.extend(federation.say(&federation.bob, "heard", 2).await);
    federation.agrees(&mut daemon, &said).await;

    // And the other way round: late events from afar, while the near one went on.
    federation.far.stop();
    federation.say(&federation.alice, "meanwhile", 5).await;
    federation.far.restart().await;
    let said = federation.say(&federation.bob, "again", 3).await;
    federation.agrees(&mut daemon, &said).await;
    daemon.stop().await;

    // Whatever order that came in, and has in the archive: the server's is to be had.
    let resequenced = federation.backscroll.run(&["resequence", &federation.room]).await;
    assert!(resequenced.status.success(), "{}", resequenced.stderr);
    let (url, room) = (federation.database.url(), &federation.room);
    assert_agrees(url, &federation.near, &federation.archivist, room).await;
}

/// Findings 5 and 6: of two topics set apart one loses, and a ban takes back the topic of the banned.
#[tokio::test]
async fn state_goes_where_the_server_resolves_it() {
    let mut federation = Federation::new().await;
    federation.topic(&federation.bob, "first").await;
    let mut daemon = federation.backscroll.start(&["run"]);
    federation.agrees(&mut daemon, &[]).await;

    // Each sets a topic while the other is away.
    federation.far.stop();
    let ours = federation.topic(&federation.alice, "near").await;
    federation.agrees(&mut daemon, &[ours]).await;
    federation.near.stop();
    federation.far.restart().await;
    let theirs = federation.topic(&federation.bob, "far").await;
    federation.near.restart().await;
    let said = federation.say(&federation.bob, "together again", 1).await;
    federation.agrees(&mut daemon, &[theirs, said[0].clone()]).await;
    let forked = federation.topic_at(&federation.near, &federation.alice).await;
    let ours = "select content ->> 'topic' from current_state where type = 'm.room.topic'";
    assert_eq!(federation.database.value(ours).await, forked);

    // Bob sets one more and is banned by Alice, who has not seen it.
    let before = federation.say(&federation.alice, "before the ban", 1).await;
    federation.agrees(&mut daemon, &before).await;
    federation.near.stop();
    let lost = federation.topic(&federation.bob, "the topic of the banned").await;
    federation.far.stop();
    federation.near.restart().await;
    federation.near.ban(&federation.alice, &federation.room, &federation.bob).await;
    federation.far.restart().await;
    let said = federation.say(&federation.alice, "after the ban", 2).await;
    federation.agrees(&mut daemon, &said).await;
    assert_ne!(federation.topic_at(&federation.near, &federation.alice).await, "the topic of the banned");
    let in_force = "select count(*) from current_state where event_id = ";
    assert_eq!(federation.database.value(&format!("{in_force}'{lost}'")).await, "0");
    daemon.stop().await;
}
