//! Events as they are served.

use super::super::{ALICE, Homeserver, OracleEvent, stable_json};
use super::{escape_path, get, sync, text};

/// Finding 7: one event, three shapes; all of them stable in what counts.
#[tokio::test]
async fn one_event_has_many_shapes_and_one_stable_form() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    server.state(&room, "m.room.topic", "", r#"{"topic":"old"}"#);
    let new = server.state(&room, "m.room.topic", "", r#"{"topic":"\u00e9"}"#);
    let (_, messages, _) =
        get(&server, &format!("rooms/{}/messages?dir=b&limit=1", escape_path(&room))).await;
    let synced = sync(&server, "").await;
    let of_sync = synced.at(&["rooms", "join", &room, "timeline", "events"]).unwrap().items().last().unwrap();
    let of_messages = &messages.get("chunk").unwrap().items()[0];
    assert_eq!(text(of_messages, &["prev_content", "topic"]).as_deref(), Some("old"));
    assert_eq!(text(of_messages, &["user_id"]).as_deref(), Some(ALICE));
    assert!(of_sync.get("room_id").is_none() && of_sync.get("age").is_none());
    assert_eq!(text(of_sync, &["unsigned", "prev_content", "topic"]).as_deref(), Some("old"));
    let (_, again, bytes) =
        get(&server, &format!("rooms/{}/event/{}", escape_path(&room), escape_path(&new))).await;
    assert_ne!(again.get("age"), of_messages.get("age"));
    assert!(bytes.contains(r#"{"topic":"\u00e9"}"#), "what a test writes is served as it stands");
    assert!(server.served(&room, &new, bytes.as_bytes()));
    let stable = server.visible(&room).last().unwrap().stable.clone().unwrap();
    for copy in [of_sync, of_messages, &again] {
        assert_eq!(stable_json("10", copy.write().as_bytes()).as_ref(), Some(&stable));
    }
}

/// P71-P78: redactions empty their target, in whichever order the two arrive, and say so in both places.
#[tokio::test]
async fn redactions_prune_and_point_both_ways() {
    for version in ["1", "3", "10", "11", "12"] {
        let server = Homeserver::start().await;
        let room = server.create_room(version);
        let secret = server.message(&room, ALICE, "secret");
        let redaction = server.redact(&room, &secret);
        let (_, page, bytes) =
            get(&server, &format!("rooms/{}/messages?dir=b&limit=2", escape_path(&room))).await;
        assert!(!bytes.contains("secret"));
        let [newest, target] = page.get("chunk").unwrap().items() else { panic!("two events") };
        assert_eq!(text(newest, &["redacts"]), Some(secret.clone()), "version {version}");
        assert_eq!(text(newest, &["content", "redacts"]), Some(secret));
        assert_eq!(text(target, &["unsigned", "redacted_by"]), Some(redaction.clone()));
        assert_eq!(text(target, &["unsigned", "redacted_because", "event_id"]), Some(redaction));
        let kept = usize::from(version.parse::<u32>().unwrap() >= 11);
        let stable = stable_json(version, newest.write().as_bytes()).unwrap();
        assert_eq!(stable.matches("redacts").count(), kept, "version {version}: {stable}");
    }
}

/// P73: from version 3 on a redaction is withheld until its target is known; then it takes effect at once.
#[tokio::test]
async fn a_redaction_waits_for_its_target() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let secret = server.message(&room, ALICE, "secret");
    server.hide(&room, &secret);
    let redaction = server.redact(&room, &secret);
    assert_eq!(server.visible(&room).len(), 4);
    server.reveal(&room, &secret);
    assert_eq!(server.visible_ids(&room)[4..], [secret, redaction]);
    assert!(!server.visible(&room)[4].stable.as_ref().unwrap().contains("secret"));
}

/// P77: power levels lose `invite` up to version 10 and keep it from version 11 on.
#[tokio::test]
async fn redacted_power_levels_depend_on_the_version() {
    for (version, keeps_invite) in [("10", false), ("11", true)] {
        let server = Homeserver::start().await;
        let room = server.create_room(version);
        let levels = server.visible_ids(&room)[2].clone();
        server.redact(&room, &levels);
        let stable = server.visible(&room)[2].stable.clone().unwrap();
        assert_eq!(stable.contains("invite"), keeps_invite);
        assert!(stable.contains("users"));
    }
}

/// P110-P117: legal but awful JSON goes out byte for byte, and the oracle can still read it.
#[tokio::test]
async fn awful_json_is_served_byte_for_byte() {
    let deep = [r#"{"a":"#.repeat(200), "1".to_owned(), "}".repeat(200)].concat();
    let contents = [
        r#"{"body":"\u0000"}"#,
        r#"{"body":"\ud800"}"#,
        r#"{"n":1e400}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"n":-0.0}"#,
        r#"{"n":123456789012345678901234567890}"#,
        r#"{"body":7, "spaced" : [ ] }"#,
        &deep,
    ];
    let server = Homeserver::start().await;
    let room = server.create_room("5");
    for (n, content) in contents.iter().enumerate() {
        let id = format!("$raw{n}");
        let raw = format!(r#"{{ "type":"m.x","event_id":"{id}","sender":"{ALICE}","content":{content}}}"#);
        server.append_raw(&room, &id, raw.as_bytes());
        let (_, _, page) =
            get(&server, &format!("rooms/{}/messages?dir=b&limit=1", escape_path(&room))).await;
        assert!(page.contains(&raw), "{page}");
        let event: OracleEvent = server.visible(&room).pop().unwrap();
        assert_eq!(event.last_served.as_deref(), Some(raw.as_bytes()));
        let content = content.replace(' ', "");
        assert!(event.stable.unwrap().contains(&content));
    }
}

/// P53, P54: ids as the versions have them, and paths that survive them.
#[tokio::test]
async fn ids_follow_the_version_and_paths_are_decoded() {
    let server = Homeserver::start().await;
    for (version, shape) in [("1", ":model.test"), ("3", "/"), ("4", "$"), ("12", "$")] {
        let room = server.create_room(version);
        let id = server.message(&room, ALICE, "hello");
        assert!(id.starts_with('$') && id.contains(shape), "{id}");
        assert!(version == "1" || id.len() == 44, "{id}");
        let path = |part: &str| format!("rooms/{}/{part}", escape_path(&room));
        assert_eq!(get(&server, &path(&format!("event/{}", escape_path(&id)))).await.0, 200);
        let key = "a/b#c?d é";
        let state = server.state(&room, "com.example/x y", key, r#"{"n":1}"#);
        let target =
            path(&format!("state/{}/{}?format=event", escape_path("com.example/x y"), escape_path(key)));
        assert_eq!(text(&get(&server, &target).await.1, &["event_id"]), Some(state));
    }
    let v12 = server.create_room("12");
    assert_eq!(server.visible_ids(&v12)[0], v12.replacen('!', "$", 1));
}
