//! Finds event ids in a part of a response that cannot be parsed as events.

use super::{
    identifier::MAX_ID,
    json::{Json, Text},
};

/// The event ids in it. A part of a response may contain several.
pub(crate) fn event_ids(raw: &str) -> Vec<String> {
    let mut event_ids = Vec::new();
    collect_event_ids(&Json::parse(raw), &mut event_ids);
    // Text in the database contains no NUL, and an index entry has a largest size. No redaction can name such an id.
    event_ids.retain(|event_id| !event_id.contains('\0') && event_id.len() <= MAX_ID);
    event_ids
}

fn collect_event_ids(value: &Json<'_>, event_ids: &mut Vec<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| collect_event_ids(item, event_ids)),
        Json::Object(members) => {
            let own = value.get("event_id").and_then(Json::as_text).and_then(Text::as_str);
            event_ids.extend(own.map(str::to_owned));
            for (_, member) in members {
                collect_event_ids(member, event_ids);
            }
        }
        Json::Literal(_) | Json::Number(_) | Json::String(_) | Json::Deep(_) => {}
    }
}
