//! Events of the federation format in the client format, which is the one that the archive stores.

use serde_json::value::RawValue;

use super::{json, proof::SignedEvent};

/// The members of an event that only servers need (specification, "Event format" of the room versions).
const OF_SERVERS: [&str; 7] =
    ["auth_events", "depth", "hashes", "origin", "prev_events", "prev_state", "signatures"];

/// The event in the client format, with its id. From room version 3 on, the id is a hash of the event, and
/// the federation format does not contain it. `None`: the id cannot be computed. The event is then as it was.
pub(crate) fn client_format(
    room_id: &str,
    room_version: Option<&str>,
    raw: &RawValue,
) -> Option<Box<RawValue>> {
    let members = json::members(raw)?;
    let mut kept = Vec::with_capacity(members.len() + 1);
    if !members.iter().any(|member| member.name.is("event_id")) {
        let event_id = SignedEvent::read(room_id, room_version?, raw).ok()?.event_id;
        kept.push(format!("\"event_id\":{}", serde_json::to_string(&event_id).ok()?));
    }
    let is_of_clients = |member: &&json::Member<'_>| !OF_SERVERS.iter().any(|name| member.name.is(name));
    kept.extend(members.iter().filter(is_of_clients).map(|member| member.whole.to_owned()));
    RawValue::from_string(format!("{{{}}}", kept.join(","))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "!r:hs";

    fn converted(version: Option<&str>, event: &str) -> Option<String> {
        let raw: Box<RawValue> = serde_json::from_str(event).expect("JSON");
        client_format(ROOM, version, &raw).map(|raw| raw.get().to_owned())
    }

    const SIGNED: &str = r#"{"auth_events":["$a"],"prev_events":["$p"],"depth":2,"origin":"hs",
        "hashes":{"sha256":"aGFzaA"},"signatures":{},"type":"m.x","sender":"@a:hs","room_id":"!r:hs","origin_server_ts":1,"content":{"n":1.5e3},
        "unsigned":{"age":1.5}"#;

    #[test]
    fn an_id_of_the_event_itself_is_kept() {
        let event = format!(r#"{SIGNED},"event_id":"$e:hs"}}"#);
        let expected = r#"{"type":"m.x","sender":"@a:hs","room_id":"!r:hs","origin_server_ts":1,"#.to_owned()
            + r#""content":{"n":1.5e3},"unsigned":{"age":1.5},"event_id":"$e:hs"}"#;
        assert_eq!(converted(None, &event), Some(expected));
    }

    #[test]
    fn a_missing_id_is_computed_by_the_rules_of_the_room_version() {
        let event = format!("{SIGNED}}}").replace("1.5e3", "1");
        let id = |version| {
            let text = converted(version, &event)?;
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            value["event_id"].as_str().map(str::to_owned)
        };
        let [third, tenth] = [id(Some("3")), id(Some("10"))].map(|id| id.expect("an id"));
        assert!(third.starts_with('$') && third.len() == 44, "{third}");
        assert_ne!(third, tenth, "version 3 has another alphabet or other rules");
        assert_eq!((id(None), id(Some("org.example"))), (None, None));
    }
}
