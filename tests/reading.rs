//! Reading: the search, the past, what listeners are told, the cookbook, and plans that use an index.

mod cookbook;
mod listen;
mod past;
mod search;
mod synapse;

use serde_json::{Value, json};

use crate::support::{homeserver::Event, stage::Stage};

fn send(stage: &Stage, room: &str, sender: &str, kind: &str, content: &Value) -> String {
    stage.server.append(room, Event::new(kind, content.to_string()).from(sender))
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn edit(event_id: &str, body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": format!("* {body}"), "m.new_content": text(body),
            "m.relates_to": { "rel_type": "m.replace", "event_id": event_id } })
}
