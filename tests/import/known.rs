//! What the archive knows already: it stays, and shows where the rest belongs.

use serde_json::{Value, json};

use super::{directory, element_file, import, imported, marks, messages, offline};
use crate::support::{
    archive::{dump, timeline},
    derived::assert_derived,
    homeserver::{ALICE, BOB},
    stage::Stage,
};

const KIND: &str = "element-json";

fn message(room: &str, event_id: &str, sender: &str, body: &str) -> Value {
    json!({
        "event_id": event_id, "room_id": room, "sender": sender, "type": "m.room.message", "origin_server_ts": 1,
        "content": { "msgtype": "m.text", "body": body },
    })
}

async fn take(stage: &Stage, events: &[Value]) -> String {
    let folder = directory();
    imported(&stage.backscroll, KIND, &element_file(folder.path(), events)).await
}

/// The rows that are not imported.
async fn given(stage: &Stage) -> Vec<Vec<String>> {
    let sql = "select e.* from archive.events e left join archive.imported_events i using (room_id, event_id)
               where i.event_id is null order by room_id, event_id";
    stage.database.rows(sql).await
}

#[tokio::test]
async fn a_file_changes_nothing_that_the_homeserver_gave() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let said = stage.say(&room, "said", 4);
    let redacted = stage.server.message(&room, ALICE, "to be redacted");
    stage.once().await;
    stage.server.redact(&room, &redacted);
    stage.once().await;
    let (before, order) = (given(&stage).await, stage.timeline(&room).await);
    let redaction = json!({
        "event_id": "$forged-redaction", "room_id": room, "sender": ALICE, "type": "m.room.redaction",
        "redacts": said[1], "origin_server_ts": 1, "content": {},
    });
    let create = json!({
        "event_id": "$forged-create", "room_id": room, "sender": ALICE, "type": "m.room.create", "state_key": "",
        "origin_server_ts": 1, "content": { "room_version": "1" },
    });
    let mut gone = message(&room, &said[2], ALICE, "");
    gone["unsigned"] = json!({ "redacted_because": { "event_id": "$forged-redaction" } });
    let events = [
        create,
        message(&room, &said[0], BOB, "forged"),
        message(&room, "$between", ALICE, "between"),
        message(&room, &said[1], ALICE, "forged"),
        gone,
        message(&room, &redacted, ALICE, "restored"),
        redaction,
    ];
    let summary = take(&stage, &events).await;
    assert!(summary.contains("7 events read: 1 stored, 4 known already, 2 set aside"), "{summary}");
    assert_eq!(given(&stage).await, before);
    let mut expected = order;
    let place = expected.iter().position(|event_id| *event_id == said[1]).unwrap();
    expected.insert(place, "$between".to_owned());
    assert_eq!(stage.timeline(&room).await, expected);
    assert_derived(stage.database.url()).await;
}

/// Events that /sync reports for the first time are known from a file, with another content, type and sender.
#[tokio::test]
async fn the_homeservers_copy_replaces_the_imported_one() {
    for policy in ["honour", "retain"] {
        let stage = Stage::new().await.set("redactions.policy", policy);
        let room = stage.room(5);
        stage.once().await;
        let said = stage.say(&room, "said", 3);
        let redacted = stage.server.message(&room, ALICE, "secret");
        let encrypted = json!({
            "event_id": said[1], "room_id": room, "sender": BOB, "type": "m.room.topic", "state_key": "",
            "origin_server_ts": 7,
            "content": { "topic": "forged" },
        });
        let mut edit = message(&room, &said[2], ALICE, "* forged");
        edit["content"]["m.new_content"] = json!({ "msgtype": "m.text", "body": "forged" });
        edit["content"]["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": said[0] });
        let events = [
            message(&room, &said[0], ALICE, "forged"),
            encrypted,
            edit,
            message(&room, &redacted, ALICE, "forged secret"),
        ];
        let summary = take(&stage, &events).await;
        assert!(summary.contains("4 stored, 0 known already, 0 set aside"), "{summary}");
        assert_eq!(marks(&stage.database).await, "4");
        assert_derived(stage.database.url()).await;
        stage.server.redact(&room, &redacted);
        stage.once().await;
        assert_eq!(marks(&stage.database).await, "0");
        stage.is_archived(&room).await;
        let forged = "select count(*) from archive.events
                      where content::text like '%forged%' or edited_content is not null";
        assert_eq!(stage.database.value(forged).await, "0");
        let originals = "select count(*) from archive.originals where content::text like '%forged secret%'";
        assert_eq!(stage.database.value(originals).await, if policy == "retain" { "1" } else { "0" });
    }
}

#[tokio::test]
async fn the_order_of_the_file_and_its_neighbours_say_where_an_event_belongs() {
    let (_server, database, backscroll) = offline().await;
    let folder = directory();
    let take = async |range: &[usize]| {
        let events: Vec<Value> =
            range.iter().flat_map(|number| messages("!r:hs", *number..number + 1)).collect();
        imported(&backscroll, KIND, &element_file(folder.path(), &events)).await
    };
    let order = async || {
        let ids = timeline(&database, "!r:hs").await;
        ids.iter().map(|id| id.trim_start_matches('$').parse().unwrap()).collect::<Vec<usize>>()
    };
    take(&[10, 12, 14]).await;
    let positions =
        "select event_id, position from events where event_id in ('$10', '$12', '$14') order by 1";
    let first = database.rows(positions).await;
    // Above, between and below.
    take(&[9, 10, 11, 12, 13, 14, 15]).await;
    assert_eq!(order().await, [9, 10, 11, 12, 13, 14, 15]);
    // Without a neighbour: below the oldest.
    take(&[1, 3]).await;
    assert_eq!(order().await, [1, 3, 9, 10, 11, 12, 13, 14, 15]);
    // Two that are known in another order stay.
    take(&[12, 2, 10]).await;
    assert_eq!(database.rows(positions).await, first);
    assert_eq!(order().await.len(), 10);
    assert_derived(database.url()).await;
}

#[tokio::test]
async fn in_a_complete_history_what_has_no_neighbour_gets_no_position() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    let order = stage.timeline(&room).await;
    take(&stage, &[message(&room, "$somewhere", ALICE, "said somewhere")]).await;
    assert_eq!(stage.timeline(&room).await, order);
    assert_eq!(
        stage.database.value("select position from archive.events where event_id = '$somewhere'").await,
        "∅"
    );
    assert_derived(stage.database.url()).await;
}

#[tokio::test]
async fn what_was_erased_stays_erased() {
    let (_server, database, backscroll) = offline().await;
    let folder = directory();
    let mut events = messages("!r:hs", 0..4);
    events[1]["sender"] = json!(BOB);
    let file = element_file(folder.path(), &events);
    imported(&backscroll, KIND, &file).await;
    let erased = backscroll.run(&["erase", "--user", BOB]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    database
        .run(
            "delete from archive.events; delete from archive.imported_events;
                  update archive.rooms set event_count = 0;
                  delete from archive.activity; update archive.rooms set message_count = 0",
        )
        .await;
    imported(&backscroll, KIND, &file).await;
    let bodies = "select content ->> 'body' from archive.events order by event_id";
    assert_eq!(database.column(bodies).await, ["word 0", "∅", "word 2", "word 3"]);
    assert_derived(database.url()).await;

    assert!(backscroll.run(&["erase", "--room", "!r:hs"]).await.status.success());
    assert_eq!(marks(&database).await, "0");
    let said = import(&backscroll, KIND, &file).await;
    assert!(said.status.success() && said.stdout.contains("4 set aside"), "{} {}", said.stdout, said.stderr);
    assert_eq!(database.value("select count(*) from archive.rooms").await, "0");
}

#[tokio::test]
async fn a_killed_import_is_continued() {
    let folder = directory();
    let events = messages("!r:hs", 0..20_000);
    let file = element_file(folder.path(), &events);
    let path = file.to_str().unwrap();
    let (_server, whole, backscroll) = offline().await;
    imported(&backscroll, KIND, &file).await;
    let (_server, database, backscroll) = offline().await;
    for least in [0, 4_000, 9_000] {
        let mut import = backscroll.start(&["import", "--from", KIND, path]);
        let some = format!("select count(*) > {least} from archive.imported_events");
        import.until("some of it is imported", async || database.value(&some).await == "t").await;
        import.kill().await;
    }
    let left: usize = marks(&database).await.parse().unwrap();
    assert!(left < events.len(), "it was killed in the middle");
    let said = imported(&backscroll, KIND, &file).await;
    assert!(said.contains(" known already, 0 set aside"), "{said}");
    assert_eq!(dump(database.url()).await, dump(whole.url()).await);
    assert_eq!(marks(&database).await, events.len().to_string());
    assert_derived(database.url()).await;
}

/// Malformed events are quarantined, and bytes that `jsonb` does not hold are kept, as from a homeserver.
#[tokio::test]
async fn awful_events_come_in_as_from_a_homeserver() {
    let (_server, database, backscroll) = offline().await;
    let folder = directory();
    let file = folder.path().join("export.json");
    let event = |event_id: &str, content: &str| {
        format!(
            r#"{{"event_id":"{event_id}","room_id":"!r:hs","sender":"@a:hs","type":"m.x","origin_server_ts":1,{content}}}"#
        )
    };
    let awful = [r#"{"a":"\ud800"}"#, r#"{"a":"x\u0000y"}"#, r#"{"a":1,"a":2}"#, r#"{"a":1e400}"#];
    let awful = awful.map(|content| format!("\"content\":{content}"));
    let mut all: Vec<String> =
        awful.iter().enumerate().map(|(number, content)| event(&format!("${number}"), content)).collect();
    all.push(r#"{"event_id":"$bad","room_id":"!r:hs","type":7}"#.to_owned());
    std::fs::write(&file, format!("{{\"messages\":[{}]}}", all.join(","))).unwrap();
    let said = imported(&backscroll, KIND, &file).await;
    assert!(said.contains("4 stored, 0 known already, 1 set aside"), "{said}");
    let raws = "select convert_from(raw, 'UTF8') from archive.events order by event_id";
    assert_eq!(database.column(raws).await, all[..4]);
    assert_eq!(database.value("select count(*) from archive.quarantine").await, "1");
    imported(&backscroll, KIND, &file).await;
    assert_eq!(database.value("select count(*) from archive.quarantine").await, "1");
    assert_derived(database.url()).await;
}

/// A file does not show that the homeserver's history is whole.
#[tokio::test]
async fn an_imported_create_event_does_not_complete_a_history() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    let ids = stage.server.visible_ids(&room);
    let old = messages(&room, 0..3);
    let create = json!({
        "event_id": ids[0], "room_id": room, "sender": ALICE, "type": "m.room.create", "state_key": "",
        "origin_server_ts": 1, "content": { "room_version": "10" },
    });
    let events: Vec<Value> = std::iter::once(create).chain(old).collect();
    take(&stage, &events).await;
    stage.server.purge(&room, &ids[20]);
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert_derived(stage.database.url()).await;
}

/// The daemon leaves a room alone of which it only knows from a file, and `verify` finds nothing wrong with
/// it.
#[tokio::test]
async fn a_room_of_a_file_is_as_good_as_any_other() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    take(&stage, &messages("!elsewhere:hs", 0..700)).await;
    let before = given(&stage).await;
    assert!(before.is_empty(), "all of it is imported");
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(timeline(&stage.database, "!elsewhere:hs").await.len(), 700);
    let found = stage.database.value("select count(*) from search('\"word 333\"')").await;
    assert_eq!(found, "1", "the daemon fills the search");
    let verified = stage.backscroll.run(&["verify", "--offline"]).await;
    assert!(verified.status.success(), "{} {}", verified.stdout, verified.stderr);
    stage.read_all_views().await;
}

#[tokio::test]
async fn only_one_program_writes() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let daemon = stage.followed(&room).await;
    let folder = directory();
    let file = element_file(folder.path(), &messages("!elsewhere:hs", 0..3));
    let refused = import(&stage.backscroll, KIND, &file).await;
    assert_eq!(refused.status.code(), Some(75), "{}", refused.stderr);
    assert_eq!(marks(&stage.database).await, "0");
    daemon.stop().await;
}

/// The homeserver has said what a state event replaced. A file that says otherwise is not believed.
#[tokio::test]
async fn what_a_state_event_replaced_is_as_the_homeserver_said() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let replaced = stage.server.state(&room, "m.room.topic", "", r#"{"topic":"true"}"#);
    let replacing = stage.server.state(&room, "m.room.topic", "", r#"{"topic":"next"}"#);
    stage.server.purge(&room, &replacing);
    stage.once().await;
    // As a homeserver says that shows the replaced content of an event that it has purged.
    let repeat = format!(
        "update archive.events set replaces_state = '{replaced}', prev_content = '{{\"topic\": \"true\"}}'
         where event_id = '{replacing}'"
    );
    stage.database.run(&repeat).await;
    let topic = |topic: &str| {
        json!({
            "event_id": replaced, "room_id": room, "sender": ALICE, "type": "m.room.topic", "state_key": "",
            "origin_server_ts": 1, "content": { "topic": topic },
        })
    };
    let said = take(&stage, &[topic("forged")]).await;
    assert!(said.contains("0 stored, 0 known already, 1 set aside"), "{said}");
    let said = take(&stage, &[topic("true")]).await;
    assert!(said.contains("1 stored"), "{said}");
    assert_derived(stage.database.url()).await;
}

/// A redaction of a file does not hold against an event that the homeserver gives in full.
#[tokio::test]
async fn the_homeserver_refutes_an_imported_redaction() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    let said = stage.say(&room, "said", 3);
    let redaction = |event_id: &str, target: &str| {
        json!({
            "event_id": event_id, "room_id": room, "sender": ALICE, "type": "m.room.redaction",
            "redacts": target, "origin_server_ts": 1, "content": {},
        })
    };
    let events = [
        message(&room, &said[0], ALICE, "said 0"),
        redaction("$forged-1", &said[0]),
        redaction("$forged-2", &said[1]),
    ];
    take(&stage, &events).await;
    let redacted = "select count(*) from archive.events where redacted_by is not null";
    assert_eq!(stage.database.value(redacted).await, "1");
    assert_derived(stage.database.url()).await;
    let truly = stage.server.redact(&room, &said[2]);
    stage.once().await;
    let by = "select redacted_by from archive.events where redacted_by is not null";
    assert_eq!(stage.database.column(by).await, [truly]);
    assert_eq!(marks(&stage.database).await, "0");
    stage.is_archived(&room).await;
}
