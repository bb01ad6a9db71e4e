//! Whatever a server calls an event is kept: as an event that can be given back to the letter, or in quarantine.

pub(crate) mod awful;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    archive::updated_rows,
    homeserver::{ALICE, Fault},
    stage::Stage,
};
use awful::{Awful, Fate, events};

/// Bytes in the archive's quarantine.
async fn quarantined(stage: &Stage) -> Vec<String> {
    stage.database.column("select convert_from(raw, 'UTF8') from archive.quarantine").await
}

/// Each event stands where it belongs, once, and gives back what was served.
async fn is_kept(stage: &Stage, room: &str, all: &[Awful], neighbours: &[String]) {
    let rows = stage.stored(room).await;
    let quarantined = quarantined(stage).await;
    assert_eq!(quarantined.len(), quarantined.iter().collect::<BTreeSet<_>>().len(), "nothing twice");
    for awful in all {
        let in_quarantine = quarantined.contains(&awful.json);
        let row = rows.values().find(|row| row.event_id == awful.id);
        match awful.fate {
            Fate::Quarantine => {
                assert!(in_quarantine, "{}: not in quarantine", awful.what);
                assert!(row.is_none(), "{}: in quarantine and in events", awful.what);
            }
            Fate::Event => {
                assert!(!in_quarantine, "{}: in quarantine", awful.what);
                let row = row.unwrap_or_else(|| panic!("{}: lost", awful.what));
                assert!(row.position.is_some(), "{}: not placed", awful.what);
                let served = stage.server.visible(room).into_iter().find(|event| event.event_id == awful.id);
                match served.unwrap().stable {
                    Some(stable) => {
                        assert_eq!(row.stable, Some(stable), "{}", awful.what);
                    }
                    None => {
                        assert!(stage.server.served(room, &awful.id, &row.bytes), "{}", awful.what);
                    }
                }
            }
        }
    }
    let events: Vec<_> =
        all.iter().filter(|awful| awful.fate == Fate::Event).map(|awful| &awful.id).collect();
    let expected: Vec<_> = stage
        .server
        .visible_ids(room)
        .into_iter()
        .filter(|id| events.contains(&id) || !all.iter().any(|awful| awful.id == *id))
        .collect();
    assert_eq!(stage.timeline(room).await, expected, "the server's order");
    assert!(neighbours.iter().all(|id| rows.contains_key(id)), "the neighbours are there");
}

async fn survives(live: bool) {
    let stage = Stage::new().await;
    let room = stage.server.create_room("1");
    let all = events(&room);
    assert!(all.len() >= 60, "{} events", all.len());
    let mut daemon = None;
    if live {
        daemon = Some(stage.followed(&room).await);
    }
    let mut neighbours = Vec::new();
    for awful in &all {
        neighbours.push(stage.server.message(&room, ALICE, &format!("before {}", awful.what)));
        stage.server.append_raw(&room, &awful.id, awful.json.as_bytes());
    }
    neighbours.push(stage.server.message(&room, ALICE, "after them all"));
    match daemon {
        None => drop(stage.once().await),
        Some(mut daemon) => {
            let last = neighbours.last().unwrap();
            let sql = format!("select count(*) from events where event_id = '{last}'");
            daemon.until("the last is there", async || stage.database.value(&sql).await == "1").await;
            let done = "select count(*) from archive.walks where state <> 'done' and kind <> 'rewalk'";
            daemon.until("every walk is done", async || stage.database.value(done).await == "0").await;
            daemon.stop().await;
        }
    }
    assert_eq!(stage.history(&room).await, "complete");
    is_kept(&stage, &room, &all, &neighbours).await;
    stage.read_all_views().await;
    let reason = stage.reason(&room).await;
    assert!(reason.contains("could not be read"), "a room with events in quarantine says so: {reason}");

    let verified = stage.backscroll.run(&["verify", "--offline"]).await;
    assert!(verified.status.success(), "{}", verified.stdout);
    let before = updated_rows(&stage.database).await;
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    is_kept(&stage, &room, &all, &neighbours).await;
    assert_eq!(updated_rows(&stage.database).await, before, "archiving again changes nothing");
}

#[tokio::test]
async fn awful_history_is_kept() {
    survives(false).await;
}

#[tokio::test]
async fn awful_news_are_kept() {
    survives(true).await;
}

/// A number of fifteen bytes may print as a hundred thousand digits: no reader must meet it.
#[tokio::test]
async fn no_event_explodes_on_its_reader() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("1");
    for awful in events(&room) {
        stage.server.append_raw(&room, &awful.id, awful.json.as_bytes());
    }
    stage.once().await;
    let sizes = "select event_id, length(content::text), length(e::text) from events e";
    let sizes = stage.database.rows(sizes).await;
    for awful in events(&room) {
        for row in sizes.iter().filter(|row| row[0] == awful.id) {
            let largest = 3 * awful.json.len() + 2000;
            assert!(
                row[1..].iter().all(|size| size.parse::<usize>().unwrap() < largest),
                "{}: {row:?}",
                awful.what
            );
        }
    }
}

/// Invalid events on every page: so many, of which 3,000 differ in more than their age, and one with an odd id.
fn flood(count: usize) -> Fault {
    let bad = |number: usize| json!({"event_id": format!("$f{}", number % 3_000), "age": number});
    let odd = json!({"event_id": r#"${"é",NULL}\ '"#});
    let flood: Vec<Value> = (0..count).map(bad).chain([odd]).collect();
    let flood = Fault::change(move |reply| {
        let mut page: Value = serde_json::from_slice(&reply.body).unwrap();
        let chunk = page["chunk"].as_array_mut().unwrap();
        let middle = chunk.len() / 2;
        chunk.splice(middle..middle, flood.iter().cloned());
        reply.body = page.to_string().into_bytes();
    });
    flood.on("/messages")
}

#[tokio::test]
async fn a_flood_of_bad_events_is_kept() {
    // Up to 10,000 are kept one by one.
    for (count, parts) in [(9_000, 3_001), (20_000, 1)] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        stage.server.inject(flood(count));
        let outcome = stage.once().await;
        stage.is_archived(&room).await;
        assert_eq!(quarantined(&stage).await.len(), parts, "{count}");
        let line = format!("\"part_count\":{parts},");
        assert_eq!(outcome.stderr.matches(&line).count(), 1, "said once: {}", outcome.stderr);
        let ids = "select count(distinct event_id) from archive.quarantine, unnest(event_ids) as event_id";
        assert_eq!(stage.database.value(ids).await, "3001");
        let odd = r#"select count(*) from archive.quarantine where event_ids @> array['${"é",NULL}\ ''']"#;
        assert_eq!(stage.database.value(odd).await, "1");

        let before = updated_rows(&stage.database).await;
        let again = stage.backscroll.run(&["backfill", &room]).await;
        assert!(again.status.success(), "{}", again.stderr);
        assert_eq!(updated_rows(&stage.database).await, before, "nothing is kept twice");
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_is_kept() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let body = "x".repeat(17 << 20);
    let large = json!({"event_id": "$large:model.test", "type": "m.room.message", "sender": ALICE,
                       "origin_server_ts": 1, "content": {"body": body}});
    let bytes = large.to_string();
    stage.server.append_raw(&room, "$large:model.test", bytes.as_bytes());
    stage.say(&room, "after it", 5);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "complete");
    let kept = "select length(raw) || ' ' || event_ids[1] || ' ' || reason from archive.quarantine";
    let expected = format!("{} $large:model.test larger than an event may be", bytes.len());
    assert_eq!(stage.database.column(kept).await, [expected]);
    let mut others = stage.server.visible_ids(&room);
    others.retain(|id| id != "$large:model.test");
    assert_eq!(stage.timeline(&room).await, others);
}

/// Two state keys that text columns cannot hold stay two, and so do two types.
#[tokio::test]
async fn keys_that_differ_stay_apart() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("1");
    let keys = [r"a\u0000b", r"a\ufffdb", "a\u{f8fe}0b", r"a\ud800b", r"a\ud801b", "ab", r"a\\u0000b"];
    for (number, key) in keys.iter().enumerate() {
        let id = format!("$key{number}:model.test");
        let json = format!(
            r#"{{"type":"org.example","state_key":"{key}","sender":"{ALICE}","event_id":"{id}",
                "origin_server_ts":1,"content":{{"key":"{number}"}}}}"#
        );
        stage.server.append_raw(&room, &id, json);
    }
    stage.once().await;
    let current = "select count(*), count(distinct state_key) from current_state where type = 'org.example'";
    // The model reads a lone surrogate as U+FFFD, so it takes three of these keys for one; the archive holds apart what
    // it is reported.
    let history = "select count(distinct state_key) from state_history where type = 'org.example'";
    assert_eq!(stage.database.value(history).await, keys.len().to_string());
    let counts = &stage.database.rows(current).await[0];
    assert_eq!(counts[0], counts[1]);
}
