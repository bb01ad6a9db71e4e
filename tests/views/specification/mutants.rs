//! Each example with every field removed, nulled, or of another JSON type: no view fails, and a field of
//! another type counts as absent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Example, FILES, Ids, Room, make_rooms, rooms, send};
use crate::support::{
    derived::assert_derived,
    homeserver::{ALICE, Event},
    stage::Stage,
};

/// A field, and what stands in its place; `None`: nothing.
struct Mutant {
    field: String,
    value: Option<Value>,
    content: Value,
    /// Whether the value is of another type than the field's.
    is_mistyped: bool,
}

fn replacements() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(7),
        json!(-1.5),
        json!(1e300),
        json!(""),
        json!("text"),
        json!([]),
        json!(["text"]),
        json!([{ "body": 7 }]),
        json!({}),
        json!({ "text": "text" }),
    ]
}

/// JSON pointers to all fields and items in a value.
fn fields(value: &Value, path: &str, fields: &mut Vec<String>) {
    let names: Vec<String> = match value {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
        _ => return,
    };
    for name in names {
        let field = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        self::fields(value.pointer(&field[path.len()..]).unwrap(), &field, fields);
        fields.push(field);
    }
}

fn remove(content: &mut Value, field: &str) {
    let (parent, name) = field.rsplit_once('/').unwrap();
    match content.pointer_mut(parent).unwrap() {
        Value::Object(members) => {
            members.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        Value::Array(items) => {
            items.remove(name.parse().unwrap());
        }
        _ => unreachable!("{field}"),
    }
}

fn mutants(content: &Value) -> Vec<Mutant> {
    let mut paths = Vec::new();
    fields(content, "", &mut paths);
    let mut mutants = Vec::new();
    for field in paths {
        let original = content.pointer(&field).unwrap();
        let mut removed = content.clone();
        remove(&mut removed, &field);
        mutants.push(Mutant { field: field.clone(), value: None, content: removed, is_mistyped: false });
        for value in replacements() {
            let mut changed = content.clone();
            *changed.pointer_mut(&field).unwrap() = value.clone();
            let is_mistyped =
                !original.is_null() && std::mem::discriminant(&value) != std::mem::discriminant(original);
            mutants.push(Mutant { field: field.clone(), value: Some(value), content: changed, is_mistyped });
        }
    }
    mutants
}

/// What was sent of an example's field: without it, and with values of other types.
#[derive(Default)]
struct Sent {
    without: String,
    mistyped: Vec<(Value, String)>,
}

/// Sends an example's mutants. Votes and reactions are each by another user, of whom the first counts.
fn send_mutants(stage: &Stage, room: &str, example: &Example, ids: &Ids) -> BTreeMap<String, Sent> {
    let mut sent: BTreeMap<String, Sent> = BTreeMap::new();
    for (number, mutant) in mutants(&ids.put_in(&example.content)).into_iter().enumerate() {
        let mut event = example.event(&mutant.content, ids);
        if matches!(event.kind.rsplit('.').next(), Some("reaction" | "response")) {
            event = event.from(&format!("@voter{number}:model.test"));
        }
        let id = stage.server.append(room, event);
        let sent = sent.entry(mutant.field).or_default();
        match mutant.value {
            None => sent.without = id,
            Some(value) if mutant.is_mistyped => sent.mistyped.push((value, id)),
            Some(_) => {}
        }
    }
    sent
}

/// What is shown of each event that is no state, but for what differs between any two.
const SHOWN: &str = "
    select event_id, jsonb_agg(shown order by shown)::text
    from (
        select event_id, to_jsonb(v) - '{event_id,position,sent_at,edited_at,sender,sender_name,sender_name_then}'::text[]
        from messages v
        union all
        select version_id,
               to_jsonb(v) - '{version_id,event_id,version,is_shown,position,sent_at,sender,sender_name}'::text[]
        from message_versions v
        union all
        select event_id, to_jsonb(v) - '{event_id,position,sent_at,sender,sender_name}'::text[] from files v
        union all
        select event_id, to_jsonb(v) - '{event_id,position,sent_at,sender,sender_name}'::text[] from reactions v
        union all
        select event_id, to_jsonb(v) - '{event_id,position,sent_at,sender,sender_name}'::text[] from poll_votes v
        union all
        select poll_id, to_jsonb(v) - '{poll_id,position,sent_at,sender,sender_name}'::text[] from polls v
        union all
        select shown_by.event_id, shown_by.shown from shown_by
    ) shown (event_id, shown)
    group by event_id";

/// Puts each state event in force, one after the other, and keeps what the views show then.
const EACH_STATE_EVENT: &str = "
    create table if not exists shown_by (event_id text, shown jsonb);
    truncate shown_by;
    do $$
    declare
        e record;
    begin
        for e in select * from archive.events where state_key is not null and position is not null order by room_id, position
        loop
            update archive.current_state s set event_id = e.event_id
            where s.room_id = e.room_id and s.type = e.type and s.state_key = e.state_key;
            if e.type = 'm.room.member' then
                perform archive.refresh_members(e.room_id, array[e.state_key]);
            end if;
            insert into shown_by
            select e.event_id, jsonb_build_object(
                'rooms', (select to_jsonb(r) from rooms r where r.room_id = e.room_id),
                'members', (select jsonb_agg(to_jsonb(m) - '{event_id,sent_at}'::text[] order by m.user_id)
                            from members m where m.room_id = e.room_id),
                'pins', (select jsonb_agg(to_jsonb(p) - '{pinned_at,pin_event_id}'::text[] order by p.place)
                         from pins p where p.room_id = e.room_id),
                'conversations', (select count(*) from conversations c),
                'beacons', (select jsonb_agg(to_jsonb(b) - '{beacon_id,position,sent_at,started_at,expires_at}'::text[])
                            from beacons b where b.room_id = e.room_id and b.beacon_id = e.event_id),
                'polls', (select count(*) from poll_results p where p.room_id = e.room_id));
        end loop;
    end $$";

/// The functions for readers, on every room.
const FUNCTIONS: &str = "
    select count(s.*) from archive.rooms r cross join lateral state_at(r.room_id, 9223372036854775807) s
    union all
    select count(m.*) from archive.rooms r cross join lateral members_at(r.room_id, 9223372036854775807) m
    union all
    select count(*) from search('text', max_results => 1000)";

#[tokio::test]
async fn no_field_of_any_type_makes_a_view_fail_and_a_mistyped_one_counts_as_absent() {
    let stage = Stage::new().await.set("backfill.page_size", "1000");
    let mut differences = BTreeSet::new();
    for (file, examples) in FILES {
        let rooms = rooms(examples);
        let ids = send(&stage, &rooms);
        let mut sent = Vec::new();
        for room in &rooms {
            for example in &room.events {
                sent.push((&example.name, send_mutants(&stage, ids.room(room), example, &ids)));
            }
        }
        stage.once().await;
        stage.read_all_views().await;
        assert_derived(stage.database.url()).await;
        stage.database.run(EACH_STATE_EVENT).await;
        stage.database.rows(FUNCTIONS).await;
        let shown: BTreeMap<String, String> = stage
            .database
            .rows(SHOWN)
            .await
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        for (name, sent) in sent {
            for (field, sent) in sent {
                let without = shown.get(&sent.without);
                for (value, id) in sent.mistyped {
                    let with = shown.get(&id);
                    if with != without && !is_another_form(&field, &value) {
                        differences.insert(format!(
                            "{file}: {name} {field} = {value}: {with:?}, without: {without:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}: {differences:#?}", differences.len());
}

/// Where another type is another form of the same: text blocks were a string before they were an array.
fn is_another_form(field: &str, value: &Value) -> bool {
    field.ends_with("/m.text") && value.is_string()
        || field.ends_with("/org.matrix.msc1767.text") && value.is_array()
}

/// A room for each mutant of a create event.
#[tokio::test]
async fn no_create_event_makes_a_view_fail() {
    let stage = Stage::new().await;
    let files = FILES.iter().flat_map(|(_, file)| rooms(file));
    let rooms: Vec<Room> =
        files.filter(|room| room.create.is_some() || room.name == "the old room").collect();
    let ids = make_rooms(&stage, &rooms);
    for room in &rooms {
        let Some(create) = &room.create else { continue };
        for mutant in mutants(&ids.put_in(create)) {
            let id = stage.server.create_room_of(&room.version, ALICE, &mutant.content.to_string());
            stage.server.append(&id, Event::member(crate::support::homeserver::ARCHIVER, "join"));
            // So that it is looked at as a successor, too.
            let tombstone = json!({ "replacement_room": id }).to_string();
            stage.server.state(ids.room(&rooms[0]), "m.room.tombstone", "", &tombstone);
        }
    }
    stage.once().await;
    stage.read_all_views().await;
    stage.database.rows(FUNCTIONS).await;
    let archived = "select count(*) from rooms where creator = '@alice:model.test'";
    assert!(stage.database.value(archived).await.parse::<usize>().unwrap() > 50);
}
