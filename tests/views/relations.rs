//! Edits, replies and threads in `messages`.

use serde_json::{Value, json};

use super::{NULL, edit, related, send, set, text};
use crate::support::{
    homeserver::{ALICE, BOB, Event},
    stage::Stage,
};

async fn column(stage: &Stage, column: &str, event_id: &str) -> String {
    let sql = format!("select {column} from messages where event_id = '{event_id}'");
    stage.database.rows(&sql).await.into_iter().map(|row| row.join(" | ")).collect()
}

/// Each breaks one requirement (specification, "Validity of replacement events"); the original stays, and the
/// edit is no message of its own.
#[tokio::test]
async fn an_invalid_edit_changes_nothing() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(0), stage.room(0));
    let original = send(&stage, &room, ALICE, "m.room.message", &text("original"));
    let without = |new_content: Option<Value>| {
        let mut content = edit(&original, "bad");
        match new_content {
            Some(value) => content["m.new_content"] = value,
            None => _ = content.as_object_mut().unwrap().remove("m.new_content"),
        }
        content
    };
    let bad = edit(&original, "bad");
    send(&stage, &room, BOB, "m.room.message", &bad);
    send(&stage, &room, ALICE, "m.sticker", &bad);
    send(&stage, &room, ALICE, "m.room.encrypted", &bad);
    send(&stage, &other, ALICE, "m.room.message", &bad);
    set(&stage, &room, ALICE, "m.room.message", "", &bad);
    for value in [None, Some(json!("text")), Some(json!(["a"])), Some(json!(null)), Some(json!(7))] {
        send(&stage, &room, ALICE, "m.room.message", &without(value));
    }
    let redacted = send(&stage, &room, ALICE, "m.room.message", &bad);
    stage.server.redact(&room, &redacted);
    let topic_id = set(&stage, &room, ALICE, "m.room.topic", "", &json!({ "topic": "a topic" }));
    let mut topic = edit(&topic_id, "bad");
    topic["m.new_content"] = json!({ "topic": "bad" });
    send(&stage, &room, ALICE, "m.room.topic", &topic);
    stage.once().await;
    let shown = "select event_id, body, edit_count, edited_at from messages where not redacted";
    assert_eq!(stage.database.rows(shown).await, [[&*original, "original", "0", NULL]]);
    assert_eq!(stage.database.column("select topic from rooms where topic is not null").await, ["a topic"]);
}

#[tokio::test]
async fn the_latest_valid_edit_is_shown_and_keeps_the_relation() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    let target = stage.server.visible_ids(&room).pop().unwrap();
    let reply = related(text("> <@a:hs> hm\n\nfirst"), json!({ "m.in_reply_to": { "event_id": target } }));
    let original = send(&stage, &room, ALICE, "m.room.message", &reply);
    let change = |body: &str, ts: i64| {
        let mut content = edit(&original, body);
        content["m.new_content"]["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": "$forged" } });
        stage.server.append(&room, Event::new("m.room.message", content.to_string()).at(ts))
    };
    change("> my own quotation\n\nlast", 9_000_000_000_000);
    let older = change("older", 1_000);
    // An edit of an edit counts for neither.
    send(&stage, &room, ALICE, "m.room.message", &edit(&older, "an edit of an edit"));
    let nothing = send(&stage, &room, ALICE, "m.room.message", &text("emptied"));
    let mut emptied = edit(&nothing, "");
    emptied["m.new_content"] = json!({});
    send(&stage, &room, ALICE, "m.room.message", &emptied);
    // As another type of message, without the HTML that the edit does not have.
    let html = json!({ "msgtype": "m.text", "body": "b", "format": "org.matrix.custom.html",
        "formatted_body": "<b>b</b>" });
    let html = send(&stage, &room, ALICE, "m.room.message", &html);
    let mut emote = edit(&html, "waves");
    emote["m.new_content"]["msgtype"] = json!("m.emote");
    send(&stage, &room, ALICE, "m.room.message", &emote);
    let secret = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x" });
    let encrypted = send(&stage, &room, ALICE, "m.room.encrypted", &secret);
    let secret = related(secret, json!({ "rel_type": "m.replace", "event_id": encrypted }));
    send(&stage, &room, ALICE, "m.room.encrypted", &secret);
    let mistyped = send(&stage, &room, ALICE, "m.room.message", &text("then a number"));
    let mut number = edit(&mistyped, "");
    number["m.new_content"]["body"] = json!(7);
    send(&stage, &room, ALICE, "m.room.message", &number);
    // Without a target it is no edit, and so a message.
    send(&stage, &room, ALICE, "m.room.message", &related(text("stray"), json!({ "rel_type": "m.replace" })));
    stage.once().await;
    let columns =
        "select msgtype, body, formatted_body, in_reply_to, edit_count from messages order by position";
    let expected = [
        ["m.text", "message 0", NULL, NULL, "0"],
        ["m.text", "> my own quotation\n\nlast", NULL, &target, "2"],
        [NULL, NULL, NULL, NULL, "1"],
        ["m.emote", "waves", NULL, NULL, "1"],
        [NULL, NULL, NULL, NULL, "1"],
        ["m.text", NULL, NULL, NULL, "1"],
        ["m.text", "stray", NULL, NULL, "0"],
    ];
    assert_eq!(stage.database.rows(columns).await, expected);
    let edited_at = column(&stage, "extract(epoch from edited_at)::bigint", &original).await;
    assert_eq!(edited_at, "9000000000", "by origin_server_ts, not by arrival");
    let versions = format!(
        "select version, is_shown, body from message_versions where event_id = '{original}' order by version"
    );
    let expected = [["1", "f", "first"], ["2", "f", "older"], ["3", "t", "> my own quotation\n\nlast"]];
    assert_eq!(stage.database.rows(&versions).await, expected);
}

/// Of edits of the same time the one with the largest id counts; a redacted edit, or one of a redacted
/// message, does not.
#[tokio::test]
async fn redactions_take_edits_back() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let send_at = |body: &str, original: &str| {
        stage.server.append(&room, Event::new("m.room.message", edit(original, body).to_string()).at(7_000))
    };
    let twice = send(&stage, &room, ALICE, "m.room.message", &text("original"));
    let mut edits = [(send_at("one", &twice), "one"), (send_at("two", &twice), "two")];
    edits.sort();
    let reverted = send(&stage, &room, ALICE, "m.room.message", &text("stands"));
    let gone = send_at("taken back", &reverted);
    let redacted = send(&stage, &room, ALICE, "m.room.message", &text("secret"));
    send_at("secret, too", &redacted);
    stage.server.redact(&room, &gone);
    stage.server.redact(&room, &redacted);
    stage.once().await;
    assert_eq!(column(&stage, "body, edit_count", &twice).await, format!("{} | 2", edits[1].1));
    assert_eq!(column(&stage, "body, edit_count", &reverted).await, "stands | 0");
    assert_eq!(column(&stage, "body, edit_count, redacted", &redacted).await, "∅ | 0 | t");
    let mut expected = [gone, redacted];
    expected.sort();
    let shown = "select event_id from messages where redacted order by event_id";
    assert_eq!(stage.database.column(shown).await, expected, "what was redacted, once");
}

/// The quotation that clients put before a reply until specification v1.13.
#[tokio::test]
async fn a_reply_shows_without_its_fallback() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    let target = stage.server.visible_ids(&room).pop().unwrap();
    let reply = json!({ "m.in_reply_to": { "event_id": target } });
    let quoted = "> <@alice:hs> one\n> two\n\nanswer";
    let html = |body: &str, formatted: &str| {
        json!({ "msgtype": "m.text", "body": body, "format": "org.matrix.custom.html",
            "formatted_body": formatted })
    };
    let mx_reply =
        "<mx-reply><blockquote><a href=\"x\">In reply to</a><br>one\n<b>two</b></blockquote></mx-reply>";
    let cases = [
        (text(quoted), "answer", NULL.to_owned()),
        (
            text("> * <@alice:hs> waves\n\n> quoted by the sender\nanswer"),
            "> quoted by the sender\nanswer",
            NULL.to_owned(),
        ),
        (text("> <@alice:hs> one\nanswer\n> not a fallback"), "answer\n> not a fallback", NULL.to_owned()),
        (text("answer\n> not a fallback"), "answer\n> not a fallback", NULL.to_owned()),
        (text(">no space"), ">no space", NULL.to_owned()),
        (html(quoted, &format!("{mx_reply}<i>answer</i>")), "answer", "<i>answer</i>".to_owned()),
        (
            html(quoted, &format!("{mx_reply}a<mx-reply>b</mx-reply>")),
            "answer",
            "a<mx-reply>b</mx-reply>".to_owned(),
        ),
        // Without mx-reply the quotation is what the sender wrote.
        (
            html("> a thought\n\nanswer", "<blockquote>a thought</blockquote>answer"),
            "> a thought\n\nanswer",
            "<blockquote>a thought</blockquote>answer".to_owned(),
        ),
        (json!({ "msgtype": "m.emote", "body": quoted }), "answer", NULL.to_owned()),
    ];
    let mut sent = Vec::new();
    for (content, ..) in &cases {
        sent.push(send(&stage, &room, ALICE, "m.room.message", &related(content.clone(), reply.clone())));
    }
    let own = send(&stage, &room, ALICE, "m.room.message", &text(quoted));
    stage.once().await;
    for ((content, body, formatted), event_id) in cases.iter().zip(&sent) {
        let sql =
            format!("select body, formatted_body, in_reply_to from messages where event_id = '{event_id}'");
        assert_eq!(stage.database.rows(&sql).await, [[*body, formatted, &target]], "{content}");
    }
    assert_eq!(column(&stage, "body", &own).await, quoted, "no reply, no fallback");
    let served = format!("select content ->> 'body' from events where event_id = '{}'", sent[0]);
    assert_eq!(stage.database.value(&served).await, quoted, "content stays as served");
}

#[tokio::test]
async fn a_thread_has_one_root_and_answers_of_its_own() {
    let stage = Stage::new().await;
    let room = stage.room(1);
    let opening = stage.server.visible_ids(&room).pop().unwrap();
    let say = |body: &str, relation: Value| {
        send(&stage, &room, BOB, "m.room.message", &related(text(body), relation))
    };
    let fallback = |target: &str| {
        json!({ "rel_type": "m.thread", "event_id": opening, "is_falling_back": true,
            "m.in_reply_to": { "event_id": target } })
    };
    let plain = say("plain", json!({ "rel_type": "m.thread", "event_id": opening }));
    let quoted = "> my own quotation\n\nthreaded";
    let threaded = say(quoted, fallback(&plain));
    let cases = [
        (plain.clone(), "plain", &*opening, NULL),
        (threaded.clone(), quoted, &opening, NULL),
        (
            say(
                "answer",
                json!({ "rel_type": "m.thread", "event_id": opening, "is_falling_back": false,
                    "m.in_reply_to": { "event_id": threaded } }),
            ),
            "answer",
            &opening,
            &*threaded,
        ),
        (
            say(
                "answer, unsaid",
                json!({ "rel_type": "m.thread", "event_id": opening,
                    "m.in_reply_to": { "event_id": plain } }),
            ),
            "answer, unsaid",
            &opening,
            &plain,
        ),
        (
            say(
                "of another type",
                json!({ "rel_type": "m.thread", "event_id": opening, "is_falling_back": "true",
                    "m.in_reply_to": { "event_id": plain } }),
            ),
            "of another type",
            &opening,
            &plain,
        ),
        // What is in a thread is no root.
        (say("nested", json!({ "rel_type": "m.thread", "event_id": plain })), "nested", NULL, NULL),
        (say("rootless", json!({ "rel_type": "m.thread" })), "rootless", NULL, NULL),
        // No thread, so the flag means nothing.
        (
            say("flagged", json!({ "is_falling_back": true, "m.in_reply_to": { "event_id": plain } })),
            "flagged",
            NULL,
            &plain,
        ),
        (
            say("of a reference", json!({ "rel_type": "m.reference", "event_id": opening })),
            "of a reference",
            NULL,
            NULL,
        ),
    ];
    let mut edited = edit(&plain, "plain");
    edited["m.new_content"]["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": threaded });
    send(&stage, &room, BOB, "m.room.message", &edited);
    let redacted = say("redacted", fallback(&plain));
    stage.server.redact(&room, &redacted);
    stage.once().await;
    for (event_id, body, thread_root, in_reply_to) in &cases {
        let sql =
            format!("select body, thread_root, in_reply_to from messages where event_id = '{event_id}'");
        assert_eq!(stage.database.rows(&sql).await, [[*body, *thread_root, *in_reply_to]]);
    }
    assert_eq!(column(&stage, "thread_root, in_reply_to, redacted", &redacted).await, "∅ | ∅ | t");
}
