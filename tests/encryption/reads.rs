//! What the client could read is read, whenever the keys come.

use serde_json::json;

use super::{Encrypted, PASSPHRASE};

/// Sessions that change, in two rooms. Before the keys come, nothing is read and nothing is wrong.
#[tokio::test]
async fn what_the_client_can_read_is_read_in_the_rooms_order() {
    let mut stage = Encrypted::new().await;
    let rooms = [stage.room().await, stage.room().await];
    for number in 0..30 {
        let room = &rooms[number % 2];
        if number % 10 == 9 {
            stage.sender.rotate(room).await;
        }
        stage.sender.say(room, &format!("message {number}")).await;
    }
    stage.backscroll.once().await;
    for room in &rooms {
        assert_eq!(stage.bodies(room).await, vec!["-"; 15]);
    }
    let ledger = "select sum(events), count(*), min(reason) from undecryptable";
    assert_eq!(stage.database.rows(ledger).await, [["30", "5", "no key"]]);
    let status = stage.backscroll.run(&["status"]).await;
    assert!(status.stdout.contains("30 of 30 encrypted unreadable"), "{}", status.stdout);

    let imported = stage.import().await;
    assert!(imported.stdout.starts_with("Sessions of 2 rooms: 5 new, 0 better"), "{}", imported.stdout);
    assert!(imported.stdout.contains("decrypts messages of 5 sessions"), "{}", imported.stdout);
    stage.backscroll.once().await;
    for room in &rooms {
        let theirs = stage.sender.read(room).await;
        assert_eq!(theirs.len(), 15);
        assert_eq!(stage.bodies(room).await, theirs);
    }
    assert_eq!(stage.database.rows("select * from undecryptable").await, Vec::<Vec<String>>::new());
    let how = "select distinct type, msgtype, is_encrypted, trust from messages";
    assert_eq!(stage.database.rows(how).await, [["m.room.message", "m.text", "t", "file"]]);
    let whole =
        "select session_keys, queued_sessions, encrypted_messages, readable_messages from encryption_status";
    assert_eq!(stage.database.rows(whole).await, [["5", "0", "30", "30"]]);
    assert_eq!(stage.found("\"message 17\"").await.len(), 1);
    stage.agrees().await;
    let again = stage.import().await;
    assert!(again.stdout.contains("0 new, 0 better than before, 5 known, 0 unreadable"), "{}", again.stdout);
}

/// Edits, replies, files, threads and redactions, as in a room that is not encrypted.
#[tokio::test]
async fn edits_replies_and_files_are_shown_as_if_sent_in_the_clear() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let first = stage.sender.say(&room, "the ferry leaves at nine").await;
    let mut edit = text("* the ferry leaves at ten");
    edit["m.new_content"] = text("the ferry leaves at ten");
    edit["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": first });
    let edit = stage.sender.send(&room, "m.room.message", edit).await;
    let mut reply = text("> <@alice:localhost> the ferry\n\nsee you there");
    reply["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": first } });
    let reply = stage.sender.send(&room, "m.room.message", reply).await;
    let mut threaded = text("in the thread");
    threaded["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": first });
    stage.sender.send(&room, "m.room.message", threaded).await;
    let file = json!({ "msgtype": "m.file", "body": "plan.pdf",
        "file": { "url": "mxc://localhost/plan", "key": { "k": "…" } }, "info": { "size": 12 } });
    stage.sender.send(&room, "m.room.message", file).await;
    let gone = stage.sender.say(&room, "a secret").await;
    stage.import().await;
    stage.backscroll.once().await;
    let all = ["the ferry leaves at ten", "see you there", "in the thread", "plan.pdf"];
    assert_eq!(stage.bodies(&room).await, [&all[..], &["a secret"]].concat());
    let answers = format!("select in_reply_to from messages where event_id = '{reply}'");
    assert_eq!(stage.database.value(&answers).await, first);
    let files = "select filename, size, url, is_encrypted, type, trust from files";
    assert_eq!(
        stage.database.rows(files).await,
        [["plan.pdf", "12", "mxc://localhost/plan", "t", "m.room.message", "file"]]
    );
    let threads = "select root_body, reply_count from threads";
    assert_eq!(stage.database.rows(threads).await, [["the ferry leaves at ten", "1"]]);
    let versions = "select version, is_edit, body, is_valid, is_shown, trust from message_versions \
                    where event_id = (select event_id from threads t, lateral (select t.thread_root as event_id) r) \
                    order by version";
    assert_eq!(
        stage.database.rows(versions).await,
        [
            ["1", "f", "the ferry leaves at nine", "t", "f", "file"],
            ["2", "t", "the ferry leaves at ten", "t", "t", "file"]
        ]
    );
    assert_eq!(stage.found("ferry").await, [&*first]);
    assert_eq!(stage.found("\"at ten\"").await, [&*first]);
    assert!(stage.found("nine").await.is_empty());
    assert_eq!(stage.found("secret").await, [&*gone]);

    stage.agrees().await;

    // A redaction takes the text from the archive and the search; that of an edit brings back what it replaced.
    stage.synapse.redact(&stage.alice, &room, &gone, json!({})).await;
    stage.synapse.redact(&stage.alice, &room, &edit, json!({})).await;
    stage.backscroll.once().await;
    let bodies = stage.bodies(&room).await;
    assert_eq!(bodies, ["the ferry leaves at nine", "-", "see you there", "in the thread", "plan.pdf", "-"]);
    assert!(stage.found("secret").await.is_empty() && stage.found("\"at ten\"").await.is_empty());
    assert_eq!(stage.found("nine").await, [&*first]);
    stage.agrees().await;
    let kept = "select count(*) from archive.decrypted_events d where d::text ~ 'secret|at ten'";
    assert_eq!(stage.database.value(kept).await, "0");
}

/// Polls, their votes and their ends are encrypted, too.
#[tokio::test]
async fn an_encrypted_poll_is_counted() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let answer = |id: &str| json!({ "id": id, "org.matrix.msc1767.text": format!("answer {id}") });
    let poll = json!({ "org.matrix.msc1767.text": "Lunch?", "org.matrix.msc3381.poll.start": {
        "kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
        "question": { "org.matrix.msc1767.text": "Lunch?" }, "answers": [answer("a"), answer("b")] } });
    let poll = stage.sender.send(&room, "org.matrix.msc3381.poll.start", poll).await;
    let related = json!({ "rel_type": "m.reference", "event_id": poll });
    let vote = json!({ "m.relates_to": related, "org.matrix.msc3381.poll.response": { "answers": ["b"] } });
    stage.sender.send(&room, "org.matrix.msc3381.poll.response", vote).await;
    let end = json!({ "m.relates_to": related, "org.matrix.msc3381.poll.end": {},
        "org.matrix.msc1767.text": "The poll has ended" });
    let end = stage.sender.send(&room, "org.matrix.msc3381.poll.end", end).await;
    stage.import().await;
    stage.backscroll.once().await;
    let polls = "select question, end_event_id, trust from polls";
    assert_eq!(stage.database.rows(polls).await, [["Lunch?", &*end, "file"]]);
    let results = "select answer, votes from poll_results order by place";
    assert_eq!(stage.database.rows(results).await, [["answer a", "0"], ["answer b", "1"]]);
    // A vote is no message.
    assert_eq!(stage.bodies(&room).await, ["Lunch?", "The poll has ended"]);
    assert_eq!(stage.found("lunch").await, [poll]);
    stage.agrees().await;
}

/// What an event counts as follows from what it says, once that is known, and no more when it is forgotten.
#[tokio::test]
async fn what_is_no_message_is_not_listed_as_one() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let said = stage.sender.say(&room, "a heron").await;
    let mut reactions = Vec::new();
    for key in ["👍", "🎉"] {
        let content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": key } });
        let reaction = stage.sender.encrypt_as(&room, "m.reaction", content).await;
        reactions.push(stage.post(&room, &reaction).await);
    }
    let call = json!({ "call_id": "1", "version": "1", "lifetime": 1000 });
    let call = stage.sender.encrypt_as(&room, "m.call.invite", call).await;
    stage.post(&room, &call).await;
    let counted = async |stage: &Encrypted| {
        let sql = format!(
            "select r.message_count, sum(a.messages), sum(a.reactions) from archive.rooms r \
             left join activity a using (room_id) where r.room_id = '{room}' group by 1"
        );
        stage.database.rows(&sql).await.concat()
    };
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["-", "-", "-", "-"]);
    assert_eq!(counted(&stage).await, ["4", "4", "0"]);
    stage.agrees().await;

    stage.import().await;
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["a heron"]);
    assert_eq!(counted(&stage).await, ["1", "1", "2"]);
    let shown = "select event_id, key, relates_to from reactions order by position";
    assert_eq!(
        stage.database.rows(shown).await,
        [[&*reactions[0], "👍", &*said], [&*reactions[1], "🎉", &*said]]
    );
    stage.agrees().await;

    stage.synapse.redact(&stage.alice, &room, &reactions[1], json!({})).await;
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["a heron", "-"]);
    assert_eq!(counted(&stage).await, ["1", "1", "1"]);
    stage.agrees().await;

    for (keep, counts) in [("false", ["3", "3", "0"]), ("true", ["1", "1", "1"])] {
        stage.backscroll = stage.backscroll.set("BACKSCROLL_ENCRYPTION__KEEP_PLAINTEXT", keep);
        stage.backscroll.once().await;
        assert_eq!(counted(&stage).await, counts);
        stage.agrees().await;
    }

    // `verify` finds what somebody else has changed, and derives it anew.
    let damage = "update archive.events set hidden_type = null where hidden_type is not null;
                  update archive.decrypted_events set edited_content = '{}' where state = 'ok'";
    stage.database.run(damage).await;
    let found =
        "select kind, count(*) from archive.inconsistencies(null) where kind ~ 'decrypted' group by 1";
    assert_eq!(stage.database.rows(found).await, [["decrypted message differs", "5"]]);
    stage.backscroll.run(&["verify", "--repair"]).await;
    assert_eq!(counted(&stage).await, ["1", "1", "1"]);
    stage.agrees().await;
}

/// The places of a live location are encrypted, and the state event that began it is not.
#[tokio::test]
async fn an_encrypted_place_is_shown() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let begun = json!({ "description": "a walk", "timeout": 600_000, "live": true });
    let key = stage.alice.user_id.clone();
    let beacon =
        stage.synapse.send_state(&stage.alice, &room, "org.matrix.msc3672.beacon_info", &key, begun).await;
    let begun_at = stage.database.value("select (extract(epoch from now()) * 1000)::bigint").await;
    let begun_at: u64 = begun_at.parse().unwrap();
    let place = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": beacon },
        "org.matrix.msc3488.location": { "uri": "geo:51.5,0.1" }, "org.matrix.msc3488.ts": begun_at });
    stage.sender.send(&room, "org.matrix.msc3672.beacon", place).await;
    let shown = "select description, location_count, geo_uri from beacons";
    stage.backscroll.once().await;
    assert_eq!(stage.database.rows(shown).await, [["a walk", "0", "∅"]]);
    stage.import().await;
    stage.backscroll.once().await;
    assert_eq!(stage.database.rows(shown).await, [["a walk", "1", "geo:51.5,0.1"]]);
    assert!(stage.bodies(&room).await.is_empty());
    stage.agrees().await;
}

/// A message and its edit become readable one after the other, whichever is first.
#[tokio::test]
async fn an_edit_and_its_message_are_read_in_either_order() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let said = stage.sender.say(&room, "a heron").await;
    stage.sender.rotate(&room).await;
    let edit = json!({ "msgtype": "m.text", "body": "* a stork", "m.new_content": { "msgtype": "m.text", "body": "a stork" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": said } });
    let edit = stage.sender.send(&room, "m.room.message", edit).await;
    stage.backscroll.once().await;
    let session = async |event_id: &str| {
        let sql = format!("select content ->> 'session_id' from events where event_id = '{event_id}'");
        stage.database.value(&sql).await
    };
    let [of_message, of_edit] = [session(&said).await, session(&edit).await];
    assert_ne!(of_message, of_edit);
    for (missing, body) in [(of_message, "-"), (of_edit, "a heron")] {
        stage.import().await;
        stage
            .database
            .run(&format!("delete from archive.megolm_sessions where session_id = '{missing}'"))
            .await;
        stage.backscroll.once().await;
        assert_eq!(stage.bodies(&room).await, [body]);
        stage.agrees().await;
        stage.import().await;
        stage.backscroll.once().await;
        assert_eq!(stage.bodies(&room).await, ["a stork"]);
        assert_eq!((stage.found("stork").await.len(), stage.found("heron").await.len()), (1, 0));
        stage.agrees().await;
        // As it was before the keys came.
        stage.database.run("delete from archive.decrypted_events; delete from archive.megolm_sessions").await;
    }
}

/// A listener reads a live message at once. The key file is read again when it has changed.
#[tokio::test]
async fn a_live_message_is_read_before_it_is_announced() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    stage.sender.say(&room, "before").await;
    let file = stage.export("watched.txt").await;
    let passphrase = stage.write("passphrase", PASSPHRASE);
    for (name, path) in [("KEY_FILES", &file), ("PASSPHRASE_FILE", &passphrase)] {
        let setting = format!("BACKSCROLL_ENCRYPTION__{name}");
        stage.backscroll = stage.backscroll.set(&setting, path.to_str().unwrap());
    }
    let mut daemon = stage.backscroll.start(&["run"]);
    daemon.until("it is read", async || stage.bodies(&room).await == ["before"]).await;
    let mut listener = sqlx::postgres::PgListener::connect(stage.database.url()).await.unwrap();
    listener.listen("backscroll").await.unwrap();
    stage.sender.say(&room, "live").await;
    listener.recv().await.unwrap();
    assert_eq!(stage.bodies(&room).await, ["before", "live"]);
    daemon.until("it is found", async || stage.found("live").await.len() == 1).await;
    let log = daemon.stderr();
    assert!(log.contains("imported a key file") && !log.contains(PASSPHRASE), "{log}");
    daemon.stop().await;
}

/// The daemon is killed again and again while late keys decrypt what has waited.
#[tokio::test]
async fn a_killed_worker_loses_nothing() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    for number in 0..60 {
        if number % 10 == 0 {
            stage.sender.rotate(&room).await;
        }
        stage.sender.say(&room, &format!("message {number}")).await;
    }
    stage.backscroll.once().await;
    stage.import().await;
    for milliseconds in [150, 250, 300, 350, 400, 500] {
        let daemon = stage.backscroll.start(&["run"]);
        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
        daemon.kill().await;
    }
    stage.backscroll.once().await;
    let wanted: Vec<String> = (0..60).map(|number| format!("message {number}")).collect();
    assert_eq!(stage.bodies(&room).await, wanted);
}

/// Without `keep_plaintext` it is only counted what can be read; the setting works both ways.
#[tokio::test]
async fn plaintext_is_kept_as_the_setting_says() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let said = stage.sender.say(&room, "a heron").await;
    stage.import().await;
    stage.backscroll.once().await;
    assert_eq!(
        (stage.bodies(&room).await, stage.found("heron").await),
        (vec!["a heron".to_owned()], vec![said.clone()])
    );
    for (keep, body) in [("false", "-"), ("true", "a heron")] {
        stage.backscroll = stage.backscroll.set("BACKSCROLL_ENCRYPTION__KEEP_PLAINTEXT", keep);
        stage.backscroll.once().await;
        assert_eq!(stage.bodies(&room).await, [body]);
        assert_eq!(stage.decryption(&said).await, "ok");
        assert_eq!(stage.found("heron").await.len(), usize::from(keep == "true"));
        let kept = "select count(*) from archive.decrypted_events where content is not null";
        assert_eq!(stage.database.value(kept).await, u32::from(keep == "true").to_string());
    }
}
