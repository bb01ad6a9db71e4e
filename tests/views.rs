//! What the views show is what a Matrix client shows: the specification's rules, example by example.

mod members;
mod messages;
mod polls;
mod reactions;
mod relations;
mod rooms;
mod specification;
mod synapse;

use serde_json::{Value, json};

use crate::support::{homeserver::Event, stage::Stage};

const CAROL: &str = "@carol:model.test";

/// What `rows` writes for null.
const NULL: &str = "∅";

fn send(stage: &Stage, room: &str, sender: &str, kind: &str, content: &Value) -> String {
    stage.server.append(room, Event::new(kind, content.to_string()).from(sender))
}

fn set(stage: &Stage, room: &str, sender: &str, kind: &str, state_key: &str, content: &Value) -> String {
    stage.server.append(room, Event::state(kind, state_key, content.to_string()).from(sender))
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// `content` with a relation.
fn related(mut content: Value, relation: Value) -> Value {
    content["m.relates_to"] = relation;
    content
}

/// `m.replace` of an event by another text.
fn edit(event_id: &str, body: &str) -> Value {
    let content = json!({ "msgtype": "m.text", "body": format!("* {body}"), "m.new_content": text(body) });
    related(content, json!({ "rel_type": "m.replace", "event_id": event_id }))
}
