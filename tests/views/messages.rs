//! `messages`: each kind of event that is one, and what is none.

use serde_json::{Value, json};

use super::{NULL, send, text};
use crate::support::{homeserver::ALICE, stage::Stage};

/// The columns that depend on the content.
type Shown = [&'static str; 5];

/// `msgtype`, `body`, `formatted_body`, `filename` and `geo_uri` of messages as the specification has them.
fn specified() -> Vec<(&'static str, Value, Shown)> {
    let html = |msgtype: &str| {
        json!({ "msgtype": msgtype, "body": "so *it* is", "format": "org.matrix.custom.html",
            "formatted_body": "so <i>it</i> is" })
    };
    let (url, info) = ("mxc://hs/a", json!({ "size": 1 }));
    let file = |kind: &str, body: &str| json!({ "msgtype": kind, "body": body, "url": url, "info": info });
    let captioned = |msgtype: &str| {
        let mut content = html(msgtype);
        content["filename"] = json!("a.bin");
        content
    };
    let with_html = |msgtype| [msgtype, "so *it* is", "so <i>it</i> is", NULL, NULL];
    let plain = |msgtype, body| [msgtype, body, NULL, NULL, NULL];
    let mut cases = vec![
        ("m.room.message", text("hello"), plain("m.text", "hello")),
        ("m.room.message", html("m.text"), with_html("m.text")),
        ("m.room.message", html("m.notice"), with_html("m.notice")),
        ("m.room.message", html("m.emote"), with_html("m.emote")),
        (
            "m.room.message",
            json!({ "msgtype": "m.text", "body": "b", "format": "org.example", "formatted_body": "[b]" }),
            plain("m.text", "b"),
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.server_notice", "body": "full",
                "server_notice_type": "m.server_notice.usage_limit_reached" }),
            plain("m.server_notice", "full"),
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.key.verification.request", "body": "verify", "from_device": "D",
                "methods": [], "to": ALICE }),
            plain("m.key.verification.request", "verify"),
        ),
        (
            "m.room.message",
            json!({ "msgtype": "org.example.odd", "body": "fallback" }),
            plain("org.example.odd", "fallback"),
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.location", "body": "the tower", "geo_uri": "geo:51.5,-0.12" }),
            ["m.location", "the tower", NULL, NULL, "geo:51.5,-0.12"],
        ),
        (
            "m.sticker",
            json!({ "body": "a landing", "info": {}, "url": "mxc://hs/s" }),
            plain(NULL, "a landing"),
        ),
        // What is beside the ciphertext is not what was said.
        (
            "m.room.encrypted",
            json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "msgtype": "m.text",
                "body": "forged", "m.new_content": text("forged") }),
            [NULL; 5],
        ),
    ];
    for msgtype in ["m.image", "m.file", "m.audio", "m.video"] {
        cases.push(("m.room.message", file(msgtype, "a.bin"), [msgtype, "a.bin", NULL, "a.bin", NULL]));
        cases.push((
            "m.room.message",
            captioned(msgtype),
            [msgtype, "so *it* is", "so <i>it</i> is", "a.bin", NULL],
        ));
    }
    cases
}

/// Extensible events (MSC1767), polls (MSC3381) and locations (MSC3488), by their stable and their older
/// names.
fn extensible() -> Vec<(&'static str, Value, Shown)> {
    let plain = |body| [NULL, body, NULL, NULL, NULL];
    let poll = json!({
        "m.text": [{ "body": "Lunch?\n1. yes" }],
        "m.poll": { "question": { "m.text": [{ "body": "Lunch?" }] },
            "answers": [{ "m.id": "y", "m.text": [{ "body": "yes" }] }] },
    });
    let unstable_poll = json!({
        "org.matrix.msc1767.text": "Dinner?\n1. yes",
        "org.matrix.msc3381.poll.start": {
            "kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
            "question": { "org.matrix.msc1767.text": "Dinner?", "body": "Dinner?", "msgtype": "m.text" },
            "answers": [{ "id": "y", "org.matrix.msc1767.text": "yes" }],
        },
    });
    vec![
        (
            "m.message",
            json!({ "m.text": [{ "mimetype": "text/html", "body": "<i>hi</i>" }, { "body": "hi" }] }),
            [NULL, "hi", "<i>hi</i>", NULL, NULL],
        ),
        (
            "m.message",
            json!({ "m.text": [7, { "mimetype": "text/plain" }, { "body": 1 },
                { "mimetype": "text/plain", "body": "third" }, { "body": "later" }] }),
            plain("third"),
        ),
        (
            "m.message",
            json!({ "m.text": [{ "mimetype": "text/html", "body": "<b>only</b>" }] }),
            [NULL, NULL, "<b>only</b>", NULL, NULL],
        ),
        (
            "org.example.temperature",
            json!({ "m.text": [{ "body": "22 degrees" }], "org.example.value": 22 }),
            plain("22 degrees"),
        ),
        (
            "org.matrix.msc1767.emote",
            json!({ "org.matrix.msc1767.message": [{ "mimetype": "text/plain", "body": "waves" }] }),
            plain("waves"),
        ),
        (
            "org.example.old",
            json!({ "org.matrix.msc1767.text": "text", "org.matrix.msc1767.html": "<u>text</u>" }),
            [NULL, "text", "<u>text</u>", NULL, NULL],
        ),
        (
            "m.room.message",
            json!({ "msgtype": "m.audio", "org.matrix.msc1767.text": "voice.ogg", "body": "Voice message",
                "org.matrix.msc3245.voice": {} }),
            ["m.audio", "Voice message", NULL, "Voice message", NULL],
        ),
        ("m.poll.start", poll, plain("Lunch?")),
        ("org.matrix.msc3381.poll.start", unstable_poll, plain("Dinner?")),
        (
            "m.poll.end",
            json!({ "m.text": [{ "body": "The poll has ended." }],
                "m.relates_to": { "rel_type": "m.reference", "event_id": "$poll" } }),
            plain("The poll has ended."),
        ),
        (
            "org.matrix.msc3488.location",
            json!({ "org.matrix.msc1767.text": "here", "org.matrix.msc3488.location": { "uri": "geo:1,2" } }),
            [NULL, "here", NULL, NULL, "geo:1,2"],
        ),
        (
            "m.location",
            json!({ "m.text": [{ "body": "there" }], "m.location": { "uri": "geo:3,4" } }),
            [NULL, "there", NULL, NULL, "geo:3,4"],
        ),
    ]
}

/// Fields of other types than the specification's: as if they were not there.
fn mistyped() -> Vec<(&'static str, Value, Shown)> {
    let odd = [json!(7), json!(true), json!(null), json!(["a"]), json!({ "a": "b" })];
    let mut cases = Vec::new();
    for value in odd {
        cases.push(("m.room.message", json!({ "msgtype": value, "body": value }), [NULL; 5]));
        cases.push(("m.sticker", json!({ "body": value, "m.relates_to": value }), [NULL; 5]));
        cases.push((
            "m.room.message",
            json!({ "msgtype": "m.image", "body": "b", "filename": value, "format": value,
                "formatted_body": value, "m.relates_to": value }),
            ["m.image", "b", NULL, "b", NULL],
        ));
        cases.push((
            "m.room.message",
            json!({ "msgtype": "m.text", "body": "b", "format": "org.matrix.custom.html",
                "formatted_body": value, "m.relates_to": { "rel_type": value, "event_id": value,
                    "m.in_reply_to": value, "is_falling_back": value } }),
            ["m.text", "b", NULL, NULL, NULL],
        ));
        cases.push((
            "m.room.message",
            json!({ "msgtype": "m.location", "body": "b", "geo_uri": value }),
            ["m.location", "b", NULL, NULL, NULL],
        ));
        cases.push(("m.poll.start", json!({ "m.poll": value, "m.text": value }), [NULL; 5]));
        cases.push((
            "org.matrix.msc3381.poll.start",
            json!({ "org.matrix.msc3381.poll.start": { "question": value, "answers": value } }),
            [NULL; 5],
        ));
        cases.push((
            "org.example.odd",
            json!({ "m.text": [value], "org.matrix.msc1767.text": "text" }),
            [NULL, "text", NULL, NULL, NULL],
        ));
    }
    cases
}

#[tokio::test]
async fn each_kind_shows_what_a_client_shows() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let cases: Vec<_> = [specified(), extensible(), mistyped()].concat();
    let sent: Vec<_> =
        cases.iter().map(|(kind, content, _)| send(&stage, &room, ALICE, kind, content)).collect();
    stage.once().await;
    for ((kind, content, shown), event_id) in cases.iter().zip(&sent) {
        let sql = format!(
            "select msgtype, body, formatted_body, filename, geo_uri, type, redacted from messages
             where event_id = '{event_id}'"
        );
        let expected = [shown as &[&str], &[kind, "f"]].concat();
        assert_eq!(stage.database.rows(&sql).await, [expected], "{kind} {content}");
    }
    stage.is_archived(&room).await;
    stage.read_all_views().await;
}

#[tokio::test]
async fn what_is_no_message_is_not_shown() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    let target = stage.server.visible_ids(&room).pop().unwrap();
    let block = json!([{ "body": "text of something else" }]);
    for kind in [
        "m.reaction",
        "m.poll.response",
        "org.matrix.msc3381.poll.response",
        "m.beacon",
        "org.matrix.msc3672.beacon",
    ] {
        send(
            &stage,
            &room,
            ALICE,
            kind,
            &json!({ "m.text": block, "m.relates_to": { "rel_type": "m.reference", "event_id": target } }),
        );
    }
    send(
        &stage,
        &room,
        ALICE,
        "org.example.silent",
        &json!({ "body": "no block of text", "msgtype": "m.text" }),
    );
    for kind in ["m.room.message", "m.room.topic", "m.sticker", "org.example.state", "m.poll.start"] {
        super::set(
            &stage,
            &room,
            ALICE,
            kind,
            "key",
            &json!({ "m.text": block, "body": "state", "msgtype": "m.text" }),
        );
    }
    stage.once().await;
    assert_eq!(stage.database.column("select body from messages").await, ["message 0"]);
}

/// Of a redacted message only that it was one; bytes that `jsonb` cannot hold are shown replaced, and kept.
#[tokio::test]
async fn redacted_and_unstorable_messages_are_rows() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let kinds = ["m.room.message", "m.sticker", "m.poll.start", "m.room.encrypted"];
    for kind in kinds {
        let content = json!({ "body": "secret", "filename": "secret", "m.text": [{ "body": "secret" }],
            "geo_uri": "geo:0,0", "msgtype": "m.location" });
        let event_id = send(&stage, &room, ALICE, kind, &content);
        stage.server.redact(&room, &event_id);
    }
    let raw = |id: &str, body: &str| {
        let event = format!(
            r#"{{"type":"m.room.message","event_id":"{id}","sender":"{ALICE}","origin_server_ts":5,
                "content":{{"msgtype":"m.text","body":"{body}"}}}}"#
        );
        stage.server.append_raw(&room, id, event);
    };
    raw("$nul", r"a\u0000b");
    raw("$surrogate", r"a\ud800b");
    stage.once().await;
    let redacted = "select type, msgtype, body, formatted_body, filename, geo_uri from messages
        where redacted order by position";
    let expected: Vec<_> = kinds.iter().map(|kind| vec![kind, NULL, NULL, NULL, NULL, NULL]).collect();
    assert_eq!(stage.database.rows(redacted).await, expected);
    let odd = "select m.body, octet_length(e.raw) > 0 from messages m
        join archive.events e using (room_id, event_id)
               where not m.redacted order by m.event_id";
    assert_eq!(stage.database.rows(odd).await, [["a\u{fffd}b", "t"], ["a\u{fffd}b", "t"]]);
    stage.is_archived(&room).await;
}
