//! Pagination tokens that no URL can hold: never stored, and no end where an earlier version has stored them.

use crate::support::{
    homeserver::{Fault, Json, Reply, Request},
    stage::Stage,
};

/// What cannot be sent back, or not be stored.
fn unusable() -> [String; 3] {
    ["x".repeat(70_000), "%/+".repeat(1500), "a\\u0000b".to_owned()]
}

/// Puts `token`, as JSON text, in the place of another, whose key it is, wherever that stands.
fn replaced(reply: &mut Reply, key: &str, token: &str) {
    let text = String::from_utf8(reply.body.clone()).unwrap();
    let name = format!(r#""{key}":""#);
    let mut changed = String::new();
    let mut parts = text.split(&name);
    changed.push_str(parts.next().unwrap());
    for part in parts {
        let (_, rest) = part.split_once('"').unwrap();
        changed.extend([name.as_str(), token, "\"", rest]);
    }
    reply.body = changed.into_bytes();
}

fn with_token(key: &'static str, token: &str) -> Fault {
    let token = token.to_owned();
    Fault::change(move |reply| replaced(reply, key, &token))
}

#[tokio::test]
async fn a_sync_with_a_token_that_cannot_be_sent_is_not_stored() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    for token in unusable() {
        let asked = stage.server.requests("/sync").len();
        stage.server.inject(with_token("next_batch", &token).on("/sync"));
        stage.say(&room, "ends the request that waits", 1);
        daemon.until("it asks on", async || stage.server.requests("/sync").len() > asked).await;
        let since = stage.database.value("select since from archive.accounts").await;
        let said = stage.say(&room, "with that token", 1).remove(0);
        daemon.until("it asks again", async || stage.server.requests("/sync").len() >= asked + 3).await;
        assert_eq!(stage.database.value("select since from archive.accounts").await, since);
        let sql = format!("select count(*) from events where event_id = '{said}'");
        assert_eq!(stage.database.value(&sql).await, "0", "nothing of it is stored");
        assert!(daemon.stderr().contains("`next_batch`: the pagination token cannot be used"));
        stage.server.heal();
        daemon.until("it follows", async || stage.database.value(&sql).await == "1").await;
    }
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
    daemon.stop().await;
}

#[tokio::test]
async fn a_page_with_a_token_that_cannot_be_sent_is_asked_again() {
    let stage = Stage::new().await.set("backfill.concurrency", "8");
    let mut rooms = Vec::new();
    for token in unusable() {
        let room = stage.room(25);
        stage.server.inject(with_token("end", &token).on("/messages").in_room(&room).after(1).times(2));
        rooms.push(room);
    }
    stage.once().await;
    for room in &rooms {
        stage.is_archived(room).await;
    }
}

/// One room's token is not worth the others' events.
#[tokio::test]
async fn a_room_with_a_token_that_cannot_be_sent_is_followed() {
    for token in unusable() {
        let stage = Stage::new().await;
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        stage.server.behave(|habits| habits.timeline_cap = 5);
        stage.server.inject(with_token("prev_batch", &token).on("/sync"));
        stage.say(&room, "more than a timeline holds", 15);
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// As an earlier version has stored it.
#[tokio::test]
async fn a_stored_token_that_cannot_be_sent_counts_as_dead() {
    let stage = Stage::new().await;
    let room = stage.room(35);
    stage.once_for_pages(2).await;
    let long = "'s' || repeat('9', 70000)";
    stage.database.run(&format!("update archive.accounts set since = {long}")).await;
    stage.database.run(&format!("update archive.walks set cursor = {long} where state <> 'done'")).await;
    stage.say(&room, "missed", 25);
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(stage.database.column("select distinct reason from gaps").await, ["the sync token was lost"]);
    for asked in stage.server.journal() {
        assert!(asked.target.len() < 8 << 10, "{} bytes", asked.target.len());
    }
}

/// A proxy's limit is lower than ours.
#[tokio::test]
async fn a_token_that_a_proxy_finds_too_long_is_replaced() {
    for status in [414, 431] {
        let stage = Stage::new().await;
        let room = stage.room(35);
        stage.once_for_pages(2).await;
        let since = stage.database.value("select since from archive.accounts").await;
        let cursor = stage.database.value("select cursor from archive.walks").await;
        stage.say(&room, "missed", 5);
        let too_long = Fault::reply(status, &[("Content-Type", "text/html")], "<html>too long</html>");
        stage.server.inject(too_long.when(move |request: &Request| {
            request.query("since") == Some(&since) || request.query("from") == Some(&cursor)
        }));
        let mut daemon = stage.follow();
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

#[test]
fn a_token_is_replaced_in_the_answer() {
    let mut reply = Reply::ok(r#"{"chunk":[{"x":1}],"end":"t1"}"#);
    replaced(&mut reply, "end", "t2");
    let page = Json::from_bytes(&reply.body).unwrap();
    assert_eq!(page.get("end").and_then(Json::text).as_deref(), Some("t2"));
}
