//! The search and the past on a real Synapse, whose own word they are held against.

use std::collections::BTreeMap;

use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use super::{edit, text};
use crate::support::{
    daemon::{Backscroll, Daemon},
    postgres::TestDatabase,
    random::seeded,
    synapse::{Synapse, User, segment},
};

async fn found(database: &TestDatabase, query: &str) -> Vec<String> {
    let quoted = query.replace('\'', "''");
    database.column(&format!("select event_id from search('{quoted}') order by position")).await
}

/// Messages of a real room, as they stand now: after edits, redactions and the erasure of their sender.
#[tokio::test]
async fn what_synapse_serves_is_found_as_it_stands() {
    let synapse = Synapse::start().await;
    let [archiver, alice, bob] =
        [synapse.register("archiver").await, synapse.register("alice").await, synapse.register("bob").await];
    let room = synapse.create_room(&alice, "11", json!({ "preset": "public_chat" })).await;
    for user in [&archiver, &bob] {
        synapse.join(user, &room).await;
    }
    let say = async |user, body: &str| synapse.send(user, &room, "m.room.message", text(body)).await;
    let old = say(&alice, "The ferry to Köln leaves at nine").await;
    let edited = say(&alice, "Übermorgen um acht, 明天去北京").await;
    let redacted = say(&bob, "Пароль: секрет").await;
    synapse.send(&alice, &room, "m.room.message", edit(&edited, "Heute um sieben, 今日は東京")).await;
    // Of another user, so that it counts for nothing.
    synapse.send(&bob, &room, "m.room.message", edit(&old, "cancelled")).await;
    synapse.redact(&bob, &room, &redacted, json!({ "reason": "mistake" })).await;

    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url()));
    backscroll.once().await;
    for (query, ids) in [
        ("ferry koln", vec![&old]),
        ("\"leaves at nine\"", vec![&old]),
        ("heute", vec![&edited]),
        ("東京", vec![&edited]),
        ("ubermorgen", vec![]),
        ("北京", vec![]),
        ("cancelled", vec![]),
        ("пароль", vec![]),
        ("mistake", vec![]),
    ] {
        assert_eq!(found(&database, query).await, ids.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }

    let mut daemon = backscroll.start(&["run"]);
    let live = say(&bob, "Привет, the ferry is late").await;
    daemon.until("it is found", async || found(&database, "ferry").await == [&*old, &*live]).await;
    synapse.send(&bob, &room, "m.room.message", edit(&live, "the ferry is on time")).await;
    daemon.until("the edit is found", async || found(&database, "\"on time\"").await == [&*live]).await;
    assert!(found(&database, "привет").await.is_empty());
    synapse.redact(&alice, &room, &old, json!({})).await;
    daemon.until("the redaction counts", async || found(&database, "koln").await.is_empty()).await;
    assert_eq!(found(&database, "ferry").await, [&*live]);
    daemon.stop().await;

    let erased = backscroll.run(&["erase", "--user", &bob.user_id, "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    assert!(found(&database, "ferry").await.is_empty());
    // Synapse goes on serving it.
    backscroll.once().await;
    assert!(found(&database, "ferry").await.is_empty());
    assert_eq!(found(&database, "heute").await, [&*edited]);
}

/// A room of which anything may happen next.
struct Story<'s> {
    synapse: &'s Synapse,
    room: String,
    owner: User,
    others: Vec<User>,
    random: Rng,
}

impl Story<'_> {
    async fn tell(&mut self, length: usize) {
        for _ in 0..length {
            self.happen().await;
        }
    }

    /// One thing. Synapse may refuse it: a user who is not in the room cannot leave it.
    async fn happen(&mut self) {
        let (synapse, room) = (self.synapse, self.room.clone());
        let user = self.others[self.random.usize(..self.others.len())].clone();
        let number = self.random.u32(..1000);
        let act = self.random.u32(..14);
        let call = async |by: &User, path: &str, body: Value| {
            drop(
                synapse
                    .call(Method::POST, &format!("/rooms/{}/{path}", segment(&room)), Some(by), Some(body))
                    .await,
            );
        };
        let set = async |by: &User, kind: &str, key: &str, content: Value| {
            drop(synapse.try_send_state(by, &room, kind, key, content).await);
        };
        let owner = &self.owner;
        match act {
            0 | 1 => call(&user, "join", json!({})).await,
            2 => call(&user, "leave", json!({ "reason": format!("reason {number}") })).await,
            3 => call(owner, "kick", json!({ "user_id": user.user_id })).await,
            4 => call(owner, "ban", json!({ "user_id": user.user_id })).await,
            5 | 6 => call(owner, "unban", json!({ "user_id": user.user_id })).await,
            7 => call(owner, "invite", json!({ "user_id": user.user_id })).await,
            8 => {
                let profile = json!({ "membership": "join", "displayname": format!("name {number}"),
                    "avatar_url": format!("mxc://hs/{number}") });
                set(&user, "m.room.member", &user.user_id, profile).await;
            }
            9 => set(owner, "m.room.name", "", json!({ "name": format!("room {number}") })).await,
            10 => set(owner, "m.room.topic", "", json!({ "topic": format!("topic {number}") })).await,
            11 => {
                let levels = json!({ "users": { owner.user_id.as_str(): 100, user.user_id.as_str(): number % 100 },
                    "users_default": number % 5 });
                set(owner, "m.room.power_levels", "", levels).await;
            }
            12 => set(owner, "com.example.odd", &format!("key {}", number % 7), json!({ "n": number })).await,
            _ => {
                drop(synapse.try_send(owner, &room, "m.room.message", text(&format!("said {number}"))).await);
            }
        }
    }
}

/// A state event, or a member, by its key.
type State = BTreeMap<(String, String), String>;

/// Synapse's own answer: the state after an event.
async fn state_by_synapse(synapse: &Synapse, user: &User, room: &str, event_id: &str) -> Vec<Value> {
    let path = format!("/rooms/{}/context/{}?limit=0", segment(room), segment(event_id));
    let context = synapse.call(Method::GET, &path, Some(user), None).await.expect("context");
    context["state"].as_array().expect("state").clone()
}

fn text_of<'v>(event: &'v Value, pointer: &str) -> &'v str {
    event.pointer(pointer).and_then(Value::as_str).unwrap_or("∅")
}

/// Compares the archive's past at a position with Synapse's; returns how many of the keys it knew from the
/// server.
async fn compare(database: &TestDatabase, theirs: &[Value], room: &str, position: &str) -> usize {
    let state: State = theirs
        .iter()
        .map(|event| ((text_of(event, "/type"), text_of(event, "/state_key")), text_of(event, "/event_id")))
        .map(|((kind, key), id)| ((kind.to_owned(), key.to_owned()), id.to_owned()))
        .collect();
    let sql = format!("select type, state_key, event_id, source from state_at('{room}', {position})");
    let rows = database.rows(&sql).await;
    let ours: State = rows.iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
    let differing: Vec<_> =
        rows.iter().filter(|row| state.get(&(row[0].clone(), row[1].clone())) != Some(&row[2])).collect();
    assert_eq!(ours, state, "at {position}: {differing:?}");

    let mut members: Vec<[&str; 4]> = theirs
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        // A user who has left keeps their last profile in the archive.
        .map(|event| {
            let membership = text_of(event, "/content/membership");
            let keeps = !["leave", "ban"].contains(&membership);
            let name = if keeps { text_of(event, "/content/displayname") } else { "" };
            [text_of(event, "/state_key"), membership, name, text_of(event, "/event_id")]
        })
        .collect();
    members.sort_unstable();
    let sql = format!(
        "select user_id, membership,
                case when membership in ('leave', 'ban') then '' else display_name end, event_id
         from members_at('{room}', {position}) order by user_id collate \"C\""
    );
    assert_eq!(database.rows(&sql).await, members, "members at {position}");
    let levels = theirs.iter().find(|event| event["type"] == "m.room.power_levels").expect("power levels");
    for row in
        database.rows(&format!("select user_id, power_level from members_at('{room}', {position})")).await
    {
        let content = &levels["content"];
        let level = content["users"].get(&row[0]).or(content.get("users_default"));
        assert_eq!(row[1], level.map_or("0".to_owned(), Value::to_string), "{} at {position}", row[0]);
    }
    rows.iter().filter(|row| row[3] == "server").count()
}

async fn until_archived(daemon: &mut Daemon, database: &TestDatabase, event_id: &str) {
    let sql = format!("select count(*) from events where event_id = '{event_id}' and position is not null");
    daemon.until("it is archived", async || database.value(&sql).await == "1").await;
}

/// History that was fetched afterwards, then the same room as it goes on.
#[tokio::test]
async fn the_past_is_as_synapse_has_it_at_random_moments() {
    let random = seeded("the_past_is_as_synapse_has_it_at_random_moments");
    let synapse = Synapse::start().await;
    let archiver = synapse.register("archiver").await;
    let owner = synapse.register("owner").await;
    let mut others = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        others.push(synapse.register(name).await);
    }
    let room = synapse.create_room(&owner, "10", json!({ "preset": "public_chat" })).await;
    synapse.join(&archiver, &room).await;
    let mut story = Story { synapse: &synapse, room: room.clone(), owner: owner.clone(), others, random };
    story.tell(120).await;

    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url()))
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "20");
    backscroll.once().await;
    let history = "select max(position) from events";
    let history: i64 = database.value(history).await.parse().unwrap();
    let mut daemon = backscroll.start(&["run"]);
    daemon.until("it follows", async || synced(&database).await).await;
    for _ in 0..12 {
        story.tell(8).await;
        let last = synapse.send(&owner, &room, "m.room.message", text("a pause")).await;
        until_archived(&mut daemon, &database, &last).await;
    }
    daemon.stop().await;

    let placed = "select event_id, position from events where position is not null order by position";
    let mut moments = database.rows(placed).await;
    assert!(moments.len() > 100, "{}", moments.len());
    // Not before the archiver could see all of it, with what a new room is made of.
    moments.drain(..8);
    story.random.shuffle(&mut moments);
    let mut by_server = 0;
    for moment in moments.iter().take(80) {
        let theirs = state_by_synapse(&synapse, &archiver, &room, &moment[0]).await;
        let known = compare(&database, &theirs, &room, &moment[1]).await;
        assert!(
            known == 0 || moment[1].parse::<i64>().unwrap() >= history,
            "history is known by its order alone"
        );
        by_server += usize::from(known > 0);
    }
    assert!(by_server > 10, "what was archived live is known from the server: {by_server}");
}

async fn synced(database: &TestDatabase) -> bool {
    database.value("select count(*) from archive.accounts where since is not null").await == "1"
}
