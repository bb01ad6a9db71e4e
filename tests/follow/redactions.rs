//! Redactions: whichever comes first, in every room version, in every place that the content went.

use crate::support::{
    archive::mentions,
    homeserver::{ALICE, ARCHIVER, BOB, Event, Fault, Json, Reply},
    stage::Stage,
};

const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];
/// In every text that must vanish.
const SECRET: &str = "canary-of-redaction";

/// The archive is the model's, and the secret is nowhere in the database.
async fn is_pruned(stage: &Stage, rooms: &[String]) {
    for room in rooms {
        stage.is_archived(room).await;
    }
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
}

/// Events of every kind that the rules treat apart.
fn tell_secrets(stage: &Stage, room: &str) -> Vec<String> {
    let topic = format!(r#"{{"topic":"{SECRET}"}}"#);
    let levels = format!(
        r#"{{"users":{{"{ALICE}":100}},"invite":50,"x":"{SECRET}","ban":123456789012345678901234567890}}"#
    );
    let member = format!(
        r#"{{"membership":"join","displayname":"{SECRET}","join_authorised_via_users_server":"@a:b",
            "third_party_invite":{{"signed":{{"token":"t"}},"display_name":"{SECRET}"}}}}"#
    );
    let rules = format!(r#"{{"join_rule":"restricted","allow":[{{"type":"x"}}],"x":"{SECRET}"}}"#);
    vec![
        stage.server.message(room, ALICE, SECRET),
        stage.server.message(room, ALICE, &format!("{SECRET}\0")),
        stage.server.state(room, "m.room.topic", "", &topic),
        stage.server.state(room, "m.room.power_levels", "", &levels),
        stage.server.append(room, Event::state("m.room.member", BOB, member).from(BOB)),
        stage.server.state(room, "m.room.join_rules", "", &rules),
        stage.server.state(room, "org.example", "key", &topic),
        stage.server.state(
            room,
            "m.room.aliases",
            "model.test",
            &format!(r##"{{"aliases":["#a:model.test"],"x":"{SECRET}"}}"##),
        ),
        stage.server.state(
            room,
            "m.room.history_visibility",
            "",
            &format!(r#"{{"history_visibility":"shared","x":"{SECRET}"}}"#),
        ),
        stage
            .server
            .append(room, Event::message(SECRET).with("com.example.unknown", &format!(r#""{SECRET}""#))),
    ]
}

/// The next value of every state key that was reported a secret, so that `prev_content` repeats it.
fn overwrite(stage: &Stage, room: &str) {
    for (kind, key) in
        [("m.room.topic", ""), ("m.room.power_levels", ""), ("m.room.member", BOB), ("org.example", "key")]
    {
        stage.server.state(room, kind, key, r#"{"membership":"leave","topic":"harmless"}"#);
    }
}

#[tokio::test]
async fn what_is_redacted_live_is_pruned_everywhere() {
    let stage = Stage::new().await;
    // Synapse goes on serving the old prev_content until it is restarted (P65).
    stage.server.behave(|habits| habits.stale_prev_content = true);
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    let secrets: Vec<_> = rooms.iter().map(|room| tell_secrets(&stage, room)).collect();
    for room in &rooms {
        overwrite(&stage, room);
    }
    let mut daemon = stage.follow();
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    assert!(!mentions(&stage.database, SECRET).await.is_empty(), "the secrets are there before");
    for (room, secrets) in rooms.iter().zip(&secrets) {
        for secret in secrets {
            stage.server.redact(room, secret);
        }
    }
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    daemon.stop().await;
    is_pruned(&stage, &rooms).await;
    let shown = "select count(*), count(body), bool_and(redacted) from messages";
    let messages = (3 * VERSIONS.len()).to_string();
    assert_eq!(stage.database.rows(shown).await, [[&*messages, "0", "t"]]);

    // The walk gets the stale prev_content again.
    for room in &rooms {
        let walked = stage.backscroll.run(&["backfill", room]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
    }
    is_pruned(&stage, &rooms).await;
}

#[tokio::test]
async fn what_was_redacted_before_is_archived_pruned() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.stale_prev_content = true);
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    for room in &rooms {
        let secrets = tell_secrets(&stage, room);
        overwrite(&stage, room);
        stage.say(room, "between", 15);
        for secret in &secrets {
            stage.server.redact(room, secret);
        }
    }
    stage.once().await;
    is_pruned(&stage, &rooms).await;
}

/// A server shows what a state event replaced, and who redacted that, also to those who may not see it.
#[tokio::test]
async fn redacted_content_that_only_a_successor_repeats_is_pruned() {
    let stage = Stage::new().await;
    stage.server.behave(|habits| habits.stale_prev_content = true);
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    let unseen = |room: &String| {
        let secret = stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"{SECRET}"}}"#));
        stage.server.conceal(room, &secret);
        stage.server.state(room, "m.room.topic", "", r#"{"topic":"harmless"}"#);
        secret
    };
    let secrets: Vec<_> = rooms.iter().map(unseen).collect();
    let mut daemon = stage.follow();
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    assert_eq!(mentions(&stage.database, SECRET).await, ["events"], "it is there before");
    for (room, secret) in rooms.iter().zip(&secrets) {
        stage.server.redact(room, secret);
        stage.agrees_in_order(&mut daemon, room).await;
    }
    daemon.stop().await;
    is_pruned(&stage, &rooms).await;

    // And where the redaction is reported first.
    for room in &rooms {
        let secret = stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"{SECRET}"}}"#));
        stage.server.conceal(room, &secret);
        stage.server.redact(room, &secret);
        stage.server.state(room, "m.room.topic", "", r#"{"topic":"harmless again"}"#);
    }
    stage.once().await;
    is_pruned(&stage, &rooms).await;
}

/// The server learns the target only later, by federation; and by then serves it pruned.
#[tokio::test]
async fn a_redaction_may_come_before_its_target() {
    let stage = Stage::new().await;
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    let mut hidden = Vec::new();
    for room in &rooms {
        let secret = stage.server.message(room, ALICE, SECRET);
        stage.server.hide(room, &secret);
        stage.say(room, "between", 3);
        stage.server.redact(room, &secret);
        hidden.push(secret);
    }
    stage.once().await;
    is_pruned(&stage, &rooms).await;
    for (room, secret) in rooms.iter().zip(&hidden) {
        stage.server.reveal(room, secret);
        let walked = stage.backscroll.run(&["backfill", room]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
    }
    is_pruned(&stage, &rooms).await;
}

/// The page as a cache still has it: no event on it is redacted yet.
fn unredacted(reply: &mut Reply) {
    let page = Json::from_bytes(&reply.body).unwrap();
    let Some(Json::Array(events)) = page.get("chunk").cloned() else { return };
    let restored = events.into_iter().map(|event| {
        if event.at(&["unsigned", "redacted_because"]).is_none() {
            return event;
        }
        let content = format!(r#"{{"msgtype":"m.text","body":"{SECRET}","topic":"{SECRET}"}}"#);
        let unsigned = Json::parse(r#"{"age":1}"#).unwrap();
        let event = ["redacted_because", "redacted_by"].iter().fold(event, |event, name| event.without(name));
        event.with("content", Json::parse(&content).unwrap()).with("unsigned", unsigned)
    });
    let restored = Json::Array(restored.collect());
    reply.body = page.with("chunk", restored).write().into_bytes();
}

/// P80, P154: the redaction is known, and the copy of its target that comes after does not show it.
#[tokio::test]
async fn a_copy_that_is_not_redacted_yet_is_pruned_all_the_same() {
    let stage = Stage::new().await;
    stage.server.inject(Fault::change(unredacted).on("/messages"));
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    for room in &rooms {
        let topic = stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"{SECRET}"}}"#));
        let secret = stage.server.message(room, ALICE, SECRET);
        stage.server.state(room, "m.room.topic", "", r#"{"topic":"harmless"}"#);
        // On another page than the targets, and on the page before.
        stage.say(room, "between", 12);
        stage.server.redact(room, &secret);
        stage.server.redact(room, &topic);
    }
    stage.once().await;
    is_pruned(&stage, &rooms).await;
    for room in &rooms {
        let walked = stage.backscroll.run(&["backfill", room]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
    }
    is_pruned(&stage, &rooms).await;
}

/// The same on a page so long that the redactions that wait are read at once, instead of each event's looked up.
#[tokio::test]
async fn a_long_page_meets_the_redactions_that_wait() {
    let stage = Stage::new().await.set("backfill.page_size", "1000");
    stage.server.inject(Fault::change(unredacted).on("/messages"));
    let room = stage.room(0);
    let topic = stage.server.state(&room, "m.room.topic", "", &format!(r#"{{"topic":"{SECRET}"}}"#));
    let secret = stage.server.message(&room, ALICE, SECRET);
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"harmless"}"#);
    // Pages of 100, 200 and 400 end above the secrets; they are on one of more than 500.
    stage.say(&room, "between", 1300);
    for target in [&topic, &secret, &secret, &secret] {
        stage.server.redact(&room, target);
    }
    stage.once().await;
    is_pruned(&stage, std::slice::from_ref(&room)).await;
    let longest = "select max(count) from (select count(*) from archive.events group by received_at) pages";
    let longest: usize = stage.database.value(longest).await.parse().unwrap();
    assert!(longest > 500, "{longest}");
    let first = format!(
        "select redacted_by = (select redaction_event_id from archive.redactions
                               where target_event_id = '{secret}'
                               order by recorded_at, redaction_event_id limit 1)
         from archive.events where event_id = '{secret}'"
    );
    assert_eq!(stage.database.value(&first).await, "t");
}

#[tokio::test]
async fn a_redacted_redaction_redacts_nevertheless() {
    let stage = Stage::new().await;
    let rooms: Vec<_> = VERSIONS.iter().map(|version| stage.server.create_room(version)).collect();
    let mut daemon = stage.follow();
    for room in &rooms {
        let secret = stage.server.message(room, ALICE, SECRET);
        let redaction = stage.server.redact(room, &secret);
        // Up to version 10 a redacted redaction names no target any more (P78): once both are reported, a walk alone helps.
        stage.agrees_in_order(&mut daemon, room).await;
        stage.server.redact(room, &redaction);
        stage.agrees_in_order(&mut daemon, room).await;
    }
    daemon.stop().await;
    is_pruned(&stage, &rooms).await;
}

/// A redaction that names an event of another room, or the create event, does nothing (P74, P75).
#[tokio::test]
async fn redactions_that_do_not_count_do_nothing() {
    let stage = Stage::new().await;
    for version in VERSIONS {
        let (room, other) = (stage.server.create_room(version), stage.server.create_room(version));
        let spoken = stage.server.message(&room, ALICE, "stays");
        let create = stage.server.visible_ids(&room)[0].clone();
        stage.server.redact(&other, &spoken);
        stage.server.redact(&room, &create);
        stage.once().await;
        for room in [&room, &other] {
            stage.is_archived(room).await;
        }
    }
    let redacted = "select count(*) from events where redacted_by is not null";
    assert_eq!(stage.database.value(redacted).await, "0");
}

#[tokio::test]
async fn a_redacted_edit_gives_back_what_was_before() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let original = stage.server.message(&room, ALICE, "original");
    let edit = |body: &str, sender: &str| {
        let content = format!(
            r#"{{"msgtype":"m.text","body":"* {body}","m.new_content":{{"msgtype":"m.text","body":"{body}"}},
                "m.relates_to":{{"rel_type":"m.replace","event_id":"{original}"}}}}"#
        );
        stage.server.append(&room, Event::new("m.room.message", content).from(sender))
    };
    let mut daemon = stage.followed(&room).await;
    let (first, second) = (edit("first edit", ALICE), edit("second edit", ALICE));
    edit("not by the sender", BOB);
    let body = format!("select body || ', ' || edit_count from messages where event_id = '{original}'");
    for (redacted, expected) in
        [(None, "second edit, 2"), (Some(second), "first edit, 1"), (Some(first), "original, 0")]
    {
        if let Some(edit) = redacted {
            stage.server.redact(&room, &edit);
        }
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value(&body).await, expected);
    }
}

#[tokio::test]
async fn with_retain_the_original_is_kept_out_of_sight() {
    let stage = Stage::new().await.set("redactions.policy", "retain");
    let room = stage.server.create_room("10");
    let secret = stage.server.message(&room, ALICE, SECRET);
    let mut daemon = stage.followed(&room).await;
    stage.server.redact(&room, &secret);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(mentions(&stage.database, SECRET).await, ["originals"]);
    let kept = "select content ->> 'body' from archive.originals";
    assert_eq!(stage.database.value(kept).await, SECRET);
}

/// Precedence of copies: what was served pruned without a reason is replaced by a fuller copy, and never the other way.
#[tokio::test]
async fn a_fuller_copy_replaces_a_poorer_one() {
    for version in VERSIONS {
        let stage = Stage::new().await;
        let room = stage.server.create_room(version);
        stage.say(&room, "full", 15);
        let secret = stage.server.message(&room, ALICE, SECRET);
        let full = "select count(*) from messages where body like 'full %'";
        stage.server.inject(Fault::emptied_messages().on("/messages"));
        stage.once().await;
        assert_eq!(stage.database.value(full).await, "0");
        stage.server.heal();
        stage.server.redact(&room, &secret);
        stage.once().await;
        // The redaction is known; a full copy that does not show it is no fuller one.
        stage.server.inject(Fault::change(unredacted).on("/messages"));
        for faulty in [true, false] {
            let walked = stage.backscroll.run(&["backfill", &room]).await;
            assert!(walked.status.success(), "{}", walked.stderr);
            assert_eq!(stage.database.value(full).await, "15");
            if faulty {
                stage.server.heal();
                stage.server.inject(Fault::emptied_messages().on("/messages"));
            }
        }
        is_pruned(&stage, &[room]).await;
    }
}

/// What cannot be an event, and so not be pruned, is forgotten; whichever comes first.
#[tokio::test]
async fn what_is_in_quarantine_can_be_redacted() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let malformed = |number: u32| {
        let raw = format!(
            r#"{{"event_id":"$bad{number}","type":7,"sender":"{BOB}","content":{{"body":"{SECRET}"}}}}"#
        );
        stage.server.append_raw(&room, &format!("$bad{number}"), raw);
    };
    malformed(1);
    stage.once().await;
    assert_eq!(mentions(&stage.database, SECRET).await, ["quarantine"]);
    stage.server.redact(&room, "$bad1");
    stage.server.redact(&room, "$bad2");
    stage.once().await;
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
    malformed(2);
    stage.once().await;
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
}

/// Redacted while the account was away, and hidden from it: only the event itself reports, once the account is back.
#[tokio::test]
async fn what_was_redacted_out_of_sight_is_pruned_after_a_return() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    stage.server.state(&room, "m.room.history_visibility", "", r#"{"history_visibility":"joined"}"#);
    let secret = stage.server.message(&room, ALICE, SECRET);
    stage.say(&room, "between", 60);
    let mut daemon = stage.followed(&room).await;
    assert_eq!(mentions(&stage.database, SECRET).await, ["events"]);
    stage.server.leave(&room, ARCHIVER);
    let gone = format!("select count(*) from rooms where room_id = '{room}' and membership = 'leave'");
    daemon.until("it is gone", async || stage.database.value(&gone).await == "1").await;
    stage.server.redact(&room, &secret);
    stage.say(&room, "unseen", 5);
    stage.server.join(&room, ARCHIVER);
    stage.say(&room, "seen", 5);
    stage.agrees(&mut daemon, &room).await;
    daemon.stop().await;
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
}

/// A homeserver redacts the message and not its edits, which hold its text. Whoever redacts a message means that.
#[tokio::test]
async fn the_edits_of_a_redacted_message_go_with_it() {
    let stage = Stage::new().await;
    for version in ["1", "6", "11"] {
        let room = stage.server.create_room(version);
        let edit = |original: &str, sender: &str, body: &str| {
            let content = format!(
                r#"{{"msgtype":"m.text","body":"* {body}",
                    "m.new_content":{{"msgtype":"m.text","body":"{body}"}},
                    "m.relates_to":{{"rel_type":"m.replace","event_id":"{original}"}}}}"#
            );
            stage.server.append(&room, Event::new("m.room.message", content).from(sender))
        };
        let early = stage.server.message(&room, ALICE, "early");
        let secret = edit(&early, ALICE, SECRET);
        edit(&secret, ALICE, &format!("{SECRET}, an edit of an edit"));
        let by_another = edit(&early, BOB, "not by the sender");
        stage.say(&room, "between", 25);
        stage.server.redact(&room, &early);
        let live = stage.server.message(&room, ALICE, "live");
        edit(&live, ALICE, SECRET);
        let mut daemon = stage.follow();
        let known = format!(
            "select count(*) from events join rooms using (room_id) where event_id = '{live}'
             and history_state = 'complete'"
        );
        daemon.until("the history is there", async || stage.database.value(&known).await == "1").await;
        // One edit before the redaction, one after it, and one in another response than it.
        stage.server.redact(&room, &live);
        edit(&live, ALICE, &format!("{SECRET}, after the redaction"));
        let seen = stage.server.message(&room, ALICE, "seen");
        let seen = format!("select count(*) from events where event_id = '{seen}'");
        daemon.until("the redaction is there", async || stage.database.value(&seen).await == "1").await;
        edit(&live, ALICE, &format!("{SECRET}, in a later response"));
        let last = stage.server.message(&room, ALICE, "last");
        daemon
            .until("all is there", async || {
                let here = format!(
                    "select count(*) from events join rooms using (room_id) where event_id = '{last}'
                     and history_state = 'complete'"
                );
                stage.database.value(&here).await == "1"
            })
            .await;
        daemon.stop().await;
        let settled = async || {
            assert_eq!(mentions(&stage.database, SECRET).await, [""; 0], "{version}");
            let shown = format!(
                "select count(*) from messages where room_id = '{room}'
                 and (redacted or body is null or edit_count > 0)"
            );
            assert_eq!(stage.database.value(&shown).await, "2", "{version}: the two messages themselves");
            let others = format!("select content ->> 'body' from events where event_id = '{by_another}'");
            assert_eq!(stage.database.value(&others).await, "* not by the sender", "{version}");
            let edits = format!(
                "select count(*) from events e where room_id = '{room}' and rel_type = 'm.replace'
                 and redacted_by is not null and content = '{{}}'
                 and exists (select 1 from archive.redactions r
                             where r.room_id = e.room_id and r.target_event_id = e.event_id
                               and r.redaction_event_id = e.redacted_by and r.state = 'applied')"
            );
            assert_eq!(stage.database.value(&edits).await, "5", "{version}");
        };
        settled().await;
        // The homeserver serves the edits in full, again and again.
        let walked = stage.backscroll.run(&["backfill", &room]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
        settled().await;
    }
}

/// What retain has kept of redacted events goes once redactions are honoured again, without a walk, but for the originals.
#[tokio::test]
async fn after_retain_and_back_only_the_originals_stay() {
    let stage = Stage::new().await.set("redactions.policy", "retain");
    let room = stage.server.create_room("10");
    let malformed = |number: usize| {
        let raw = format!(
            r#"{{"event_id":"$bad{number}","type":7,"sender":"{BOB}",
                "content":{{"body":"{SECRET} {number}"}}}}"#
        );
        stage.server.append_raw(&room, &format!("$bad{number}"), raw);
    };
    (0..140).for_each(malformed);
    let secret = stage.server.message(&room, ALICE, SECRET);
    stage.once().await;
    (0..139).for_each(|number| _ = stage.server.redact(&room, &format!("$bad{number}")));
    stage.server.redact(&room, &secret);
    stage.once().await;
    assert_eq!(mentions(&stage.database, SECRET).await, ["originals", "quarantine"]);
    // As an earlier version has stored them; and one that is no text at all.
    stage
        .database
        .run(
            r"update archive.quarantine set event_ids = null where get_byte(raw_sha256, 0) % 2 = 0;
              insert into archive.quarantine (room_id, raw, raw_sha256, reason)
              select room_id, '\xff00', '\x00', 'test' from archive.rooms",
        )
        .await;
    let stage = stage.set("redactions.policy", "honour");
    stage.once().await;
    // What was not redacted stays.
    let left = "select string_agg(event_ids::text, ' ' order by event_ids) from archive.quarantine";
    assert_eq!(stage.database.value(left).await, "{} {$bad139}");
    let originals = "select count(*) from archive.originals";
    assert_eq!(stage.database.value(originals).await, "1");
}
