//! The example events of the client-server specification, and what each view shows of them: exactly what
//! stands in `specification/*.json`, and nothing else.
//!
//! Each file lists rooms. An event has a `name`, its `type`, `content` and, where it is not the usual,
//! `sender`, `state_key` and `redacts`; `shows` has the rows that views must have of it, with the columns
//! that say it best. A view that is not named must show nothing of it. «name» stands for the id of an event,
//! «room name» for that of a room.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::{
    homeserver::{ALICE, ARCHIVER, Event},
    stage::Stage,
};

mod mutants;

const FILES: &[(&str, &str)] = &[
    ("messages", include_str!("specification/messages.json")),
    ("relations", include_str!("specification/relations.json")),
    ("silent", include_str!("specification/silent.json")),
    ("polls", include_str!("specification/polls.json")),
    ("members", include_str!("specification/members.json")),
    ("state", include_str!("specification/state.json")),
];

/// The views with rows of an event, and the column that names it.
const OF_EVENTS: &[(&str, &str)] = &[
    ("events", "event_id"),
    ("messages", "event_id"),
    ("message_versions", "version_id"),
    ("threads", "thread_root"),
    ("reactions", "event_id"),
    ("files", "event_id"),
    ("polls", "poll_id"),
    ("poll_votes", "event_id"),
    ("poll_results", "poll_id"),
    ("pins", "event_id"),
    ("beacons", "beacon_id"),
    ("redacted_events", "event_id"),
    ("membership_history", "joined_event"),
    ("members", "event_id"),
    ("state_events", "event_id"),
    ("state_history", "event_id"),
    ("current_state", "event_id"),
];
/// The views with rows of a room.
const OF_ROOMS: &[&str] = &["rooms", "upgrades", "conversations", "activity"];
/// The views that tell what the archive does.
const OF_THE_ARCHIVE: &[&str] = &[
    "gaps",
    "backfill",
    "state_changes",
    "verifications",
    "only_here",
    "seals",
    "imported_events",
    "search_status",
    "undecryptable",
    "encryption_status",
    "status",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Room {
    name: String,
    version: String,
    /// Content of the create event, if it is not the usual.
    create: Option<Value>,
    events: Vec<Example>,
    #[serde(default)]
    shows: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    name: String,
    r#type: String,
    sender: Option<String>,
    state_key: Option<String>,
    redacts: Option<String>,
    content: Value,
    #[serde(default)]
    shows: Map<String, Value>,
}

/// Names and the ids that they stand for.
#[derive(Default)]
struct Ids(BTreeMap<String, String>);

impl Ids {
    fn put_in(&self, value: &Value) -> Value {
        let mut text = value.to_string();
        for (name, id) in &self.0 {
            text = text.replace(&format!("«{name}»"), id);
        }
        assert!(!text.contains('«'), "no such name: {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn room(&self, room: &Room) -> &str {
        &self.0[&format!("room {}", room.name)]
    }
}

fn rooms(file: &str) -> Vec<Room> {
    serde_json::from_str(file).unwrap()
}

impl Example {
    fn event(&self, content: &Value, ids: &Ids) -> Event {
        let sender = self.sender.as_deref().unwrap_or(ALICE);
        let event = match (&self.state_key, &self.redacts) {
            (Some(state_key), _) => Event::state(&self.r#type, state_key, content.to_string()),
            (None, Some(target)) => {
                let target = ids.put_in(&json!(target));
                Event { content: content.to_string(), ..Event::redaction(target.as_str().unwrap()) }
            }
            (None, None) => Event::new(&self.r#type, content.to_string()),
        };
        event.from(sender)
    }
}

/// Makes the rooms, without the events of the file.
fn make_rooms(stage: &Stage, rooms: &[Room]) -> Ids {
    let mut ids = Ids::default();
    for room in rooms {
        let id = match &room.create {
            Some(content) => {
                let content = ids.put_in(content).to_string();
                let id = stage.server.create_room_of(&room.version, ALICE, &content);
                stage.server.append(&id, Event::member(ARCHIVER, "join"));
                id
            }
            None => stage.server.create_room(&room.version),
        };
        ids.0.insert(format!("room {}", room.name), id);
    }
    ids
}

fn send(stage: &Stage, rooms: &[Room]) -> Ids {
    let mut ids = make_rooms(stage, rooms);
    for room in rooms {
        let room_id = ids.room(room).to_owned();
        for example in &room.events {
            let event = example.event(&ids.put_in(&example.content), &ids);
            let id = stage.server.append(&room_id, event);
            assert_eq!(ids.0.insert(example.name.clone(), id), None, "two are called {}", example.name);
        }
    }
    ids
}

/// The rows that a view must have of an event.
fn expected(room: &Room, example: &Example, view: &str, ids: &Ids) -> Vec<Value> {
    let is_last = || {
        let same =
            |other: &&Example| (&other.r#type, &other.state_key) == (&example.r#type, &example.state_key);
        room.events.iter().rfind(same).is_some_and(|last| last.name == example.name)
    };
    let row = match (example.shows.get(view), view) {
        (Some(rows), _) => ids.put_in(rows),
        (None, "events") => {
            json!({ "type": example.r#type, "state_key": example.state_key })
        }
        (None, "message_versions") => match example.shows.get("messages") {
            Some(Value::Object(message)) if message.get("edit_count").is_none() => {
                let columns = ["type", "body", "formatted_body", "msgtype"];
                let same = message.iter().filter(|(column, _)| columns.contains(&column.as_str()));
                let same: Map<_, _> = same.map(|(column, value)| (column.clone(), value.clone())).collect();
                ids.put_in(&json!(same))
            }
            _ => json!([]),
        },
        (None, "state_events" | "state_history") if example.state_key.is_some() => {
            json!({ "type": example.r#type, "state_key": example.state_key,
                "content": ids.put_in(&example.content) })
        }
        (None, "current_state") if example.state_key.is_some() && is_last() => {
            json!({ "type": example.r#type, "content": ids.put_in(&example.content) })
        }
        (None, _) => json!([]),
    };
    match row {
        Value::Array(rows) => rows,
        row => vec![row],
    }
}

/// What a row lacks of what it should have.
fn missing(row: &Value, wanted: &Value) -> Vec<String> {
    let wanted = wanted.as_object().unwrap();
    let differs = wanted.iter().filter(|(column, value)| row.get(column) != Some(value));
    differs.map(|(column, value)| format!("{column} is {:?}, not {value}", row.get(column))).collect()
}

fn compare(what: &str, rows: &[Value], wanted: &[Value], differences: &mut Vec<String>) {
    if rows.len() == wanted.len() {
        let missing = rows.iter().zip(wanted).flat_map(|(row, wanted)| missing(row, wanted));
        differences.extend(missing.map(|difference| format!("{what}: {difference}")));
    } else {
        differences.push(format!("{what}: {} rows, not {}: {rows:?}", rows.len(), wanted.len()));
    }
}

/// The rows of a view in a room, by the event that they are of.
async fn shown(stage: &Stage, view: &str, key: &str, room_id: &str) -> BTreeMap<String, Vec<Value>> {
    let order = if view == "poll_results" { "place" } else { "1" };
    let sql = format!("select {key}, to_jsonb(v) from {view} v where room_id = '{room_id}' order by {order}");
    let mut shown: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in stage.database.rows(&sql).await {
        shown.entry(row[0].clone()).or_default().push(serde_json::from_str(&row[1]).unwrap());
    }
    shown
}

async fn check(stage: &Stage, room: &Room, ids: &Ids, differences: &mut Vec<String>) {
    let room_id = ids.room(room);
    for (view, key) in OF_EVENTS {
        let shown = shown(stage, view, key, room_id).await;
        for example in &room.events {
            let rows = shown.get(&ids.0[&example.name]).map_or(&[][..], Vec::as_slice);
            let what = format!("{} in {view}", example.name);
            compare(&what, rows, &expected(room, example, view, ids), differences);
        }
    }
    for view in OF_ROOMS {
        let Some(Value::Array(wanted)) = room.shows.get(*view).map(|rows| ids.put_in(rows)) else { continue };
        let sql = format!("select to_jsonb(v) from {view} v where room_id = '{room_id}' order by v::text");
        let rows: Vec<Value> =
            stage.database.column(&sql).await.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        compare(&format!("room {} in {view}", room.name), &rows, &wanted, differences);
    }
}

#[tokio::test]
async fn each_example_of_the_specification_shows_what_a_client_shows() {
    let stage = Stage::new().await.set("backfill.page_size", "1000");
    let files: Vec<Vec<Room>> = FILES.iter().map(|(_, file)| rooms(file)).collect();
    let sent: Vec<Ids> = files.iter().map(|rooms| send(&stage, rooms)).collect();
    stage.once().await;
    let mut differences = Vec::new();
    for (rooms, ids) in files.iter().zip(&sent) {
        for room in rooms {
            check(&stage, room, ids, &mut differences).await;
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    stage.read_all_views().await;
    assert_all_views_are_named(&stage).await;
    assert_types_are_there(&files);
}

/// So that a new view is thought of here.
async fn assert_all_views_are_named(stage: &Stage) {
    // Citus has views of its own there.
    let views = "select viewname from pg_views where schemaname = 'public' and viewname !~ '^citus_'";
    let views: BTreeSet<String> = stage.database.column(views).await.into_iter().collect();
    let named = OF_EVENTS.iter().map(|(view, _)| *view).chain(OF_ROOMS.iter().chain(OF_THE_ARCHIVE).copied());
    let unnamed: Vec<_> = views.difference(&named.map(str::to_owned).collect()).cloned().collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
}

/// Every type that the specification has for the timeline or the state of a room.
fn assert_types_are_there(files: &[Vec<Room>]) {
    let rooms = || files.iter().flatten();
    let mut there: BTreeSet<&str> =
        rooms().flat_map(|room| &room.events).map(|example| example.r#type.as_str()).collect();
    there.extend(rooms().filter(|room| room.create.is_some()).map(|_| "m.room.create"));
    let specified = include_str!("specification/types.txt");
    let missing: Vec<_> = specified.lines().filter(|kind| !there.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
