//! What is not what it claims to be is never shown, and the archive says why.

use serde_json::json;

use super::{Encrypted, PASSPHRASE};

/// A key file may have sessions of rooms that the archive does not have (yet). They wait, and count nowhere.
#[tokio::test]
async fn keys_may_come_before_the_room() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    stage.sender.say(&room, "hello").await;
    let imported = stage.import().await;
    assert!(
        imported.stdout.contains("1 new") && !imported.stdout.contains("decrypts"),
        "{}",
        imported.stdout
    );
    let status = "select session_keys, queued_sessions, oldest_queued_at from encryption_status";
    assert_eq!(stage.database.rows(status).await, [["1", "0", "∅"]]);
    let waiting = "select room_id from archive.decryption_queue";
    assert_eq!(stage.database.column(waiting).await, [&*room]);
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["hello"]);
    assert_eq!(stage.database.column(waiting).await, [""; 0]);
}

/// Each fault is forged from a genuine message.
#[tokio::test]
async fn forged_messages_are_never_shown() {
    let mut stage = Encrypted::new().await;
    let [room, other] = [stage.room().await, stage.room().await];
    let genuine = stage.sender.encrypt(&room, "genuine").await;
    let original = stage.post(&room, &genuine).await;
    let replayed = stage.post(&room, &genuine).await;
    let elsewhere = stage.post(&other, &genuine).await;
    let altered = |content: &serde_json::Value, at: usize| {
        let mut content = content.clone();
        let mut text = content["ciphertext"].as_str().unwrap().to_owned();
        let letter = if &text[at..=at] == "A" { "B" } else { "A" };
        text.replace_range(at..=at, letter);
        content["ciphertext"] = json!(text);
        content
    };
    let next = stage.sender.encrypt(&room, "next").await;
    let changed = stage.post(&room, &altered(&next, 40)).await;
    let cut =
        json!({ "algorithm": next["algorithm"], "session_id": next["session_id"], "ciphertext": "AwgB" });
    let cut = stage.post(&room, &cut).await;
    let mut unknown = next.clone();
    unknown["algorithm"] = json!("m.megolm.v9");
    let unknown = stage.post(&room, &unknown).await;
    let mut body = stage.sender.encrypt(&room, "after").await;
    body["body"] = json!("in the clear");
    let beside = stage.post(&room, &body).await;
    // State is never encrypted.
    let hidden = stage.sender.encrypt(&room, "as state").await;
    let as_state = stage.synapse.send_state(&stage.alice, &room, "m.room.encrypted", "", hidden).await;
    stage.import().await;
    stage.backscroll.once().await;

    // The room's key does not decrypt in another room; only what names its session there is looked at.
    for (event, says) in [
        (&original, "ok"),
        (&beside, "ok"),
        (&replayed, &*format!("bad: it repeats message 0 of its session, which is the event {original}")),
        (&elsewhere, "no key"),
        (&changed, "bad: The signature on the message was invalid"),
        (&cut, "bad: its ciphertext cannot be read"),
        (&unknown, "bad: it is not encrypted by m.megolm.v1.aes-sha2"),
    ] {
        let decryption = stage.decryption(event).await;
        assert!(decryption.starts_with(says), "{says}: {decryption}");
    }
    assert_eq!(stage.decryption(&as_state).await, "∅");
    assert_eq!(stage.bodies(&room).await, ["genuine", "-", "-", "-", "-", "after"]);
    assert_eq!(stage.bodies(&other).await, ["-"]);
    assert_eq!(stage.database.value("select sum(events) from undecryptable").await, "5");

    // With a copy of the session for the other room, which a file can claim.
    let claim = format!(
        "insert into archive.megolm_sessions
             select first_index, imported_at, '{other}', session_id, key_sha256, session_key, null, null, 'file'
             from archive.megolm_sessions where room_id = '{room}'"
    );
    stage.database.run(&claim).await;
    stage.backscroll.once().await;
    assert_eq!(stage.decryption(&elsewhere).await, "bad: it was encrypted for another room");
    assert_eq!(stage.bodies(&other).await, ["-"]);

    // When the message is redacted, its repetition does not take its place.
    stage.synapse.redact(&stage.alice, &room, &original, json!({})).await;
    stage.post(&room, &genuine).await;
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["-", "-", "-", "-", "-", "after", "-"]);
}

/// The newest messages are decrypted first. So a repetition may be read before what it repeats is known.
#[tokio::test]
async fn a_repetition_gives_way_to_the_message() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let genuine = stage.sender.encrypt(&room, "a heron").await;
    let original = stage.post(&room, &genuine).await;
    let replayed = stage.post(&room, &genuine).await;
    stage.import().await;
    stage.backscroll.once().await;
    // As if the original had come later, from a gap.
    let forget = format!(
        "delete from archive.decrypted_events where room_id = '{room}';
         update archive.events set type = 'hidden' where event_id = '{original}'"
    );
    stage.database.run(&forget).await;
    stage.backscroll.once().await;
    assert_eq!(stage.decryption(&replayed).await, "ok");
    stage
        .database
        .run(&format!("update archive.events set type = 'm.room.encrypted' where event_id = '{original}'"))
        .await;
    stage.backscroll.once().await;
    assert_eq!(stage.decryption(&original).await, "ok");
    assert!(stage.decryption(&replayed).await.starts_with("bad: it repeats"));
    assert_eq!(stage.bodies(&room).await, ["a heron", "-"]);
    assert_eq!(stage.found("heron").await, [&*original]);
    stage.agrees().await;
}

/// An erasure takes what the user's messages say, and the keys by which they could be read again.
#[tokio::test]
async fn an_erasure_takes_plaintext_and_keys() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    stage.sender.say(&room, "a heron").await;
    stage.import().await;
    stage.backscroll.once().await;
    assert_eq!(stage.found("heron").await.len(), 1);
    let erased = stage.backscroll.run(&["erase", "--user", &stage.alice.user_id.clone(), "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    assert!(
        erased.stdout.contains("megolm_sessions") && erased.stdout.contains("decrypted_events"),
        "{}",
        erased.stdout
    );
    assert!(stage.found("heron").await.is_empty());
    stage.agrees().await;
    for table in ["megolm_sessions", "decrypted_events", "decryption_queue"] {
        assert_eq!(
            stage.database.value(&format!("select count(*) from archive.{table}")).await,
            "0",
            "{table}"
        );
    }
    assert_eq!(stage.database.rows("select * from undecryptable").await, Vec::<Vec<String>>::new());

    // An erased room does not come back by a key file.
    let erased = stage.backscroll.run(&["erase", "--room", &room, "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    let imported = stage.import().await;
    assert!(
        imported.stdout.contains("0 new") && imported.stdout.contains("1 session of erased rooms"),
        "{}",
        imported.stdout
    );
}

/// A file that is no key file changes nothing, and the error says what to do. No secret is in it.
#[tokio::test]
async fn a_bad_key_file_is_refused() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    stage.sender.say(&room, "hello").await;
    let file = stage.export("keys.txt").await;
    let text = std::fs::read_to_string(&file).unwrap();
    let good = stage.write("passphrase", PASSPHRASE);
    let wrong = stage.write("wrong", "battery staple");
    let cut = stage.write("cut", &text[..text.len() / 2]);
    let other = stage.write("other", "hello");
    for (file, passphrase, says) in [
        (&file, &wrong, "the passphrase is wrong"),
        (&cut, &good, "it is cut"),
        (&other, &good, "it is no key file"),
    ] {
        let [file, passphrase] = [file, passphrase].map(|path| path.to_str().unwrap());
        let refused = stage.backscroll.run(&["keys", "import", file, "--passphrase-file", passphrase]).await;
        assert_eq!(refused.status.code(), Some(65), "{}", refused.stderr);
        assert!(refused.stderr.contains(says) && refused.stderr.contains(file), "{}", refused.stderr);
        assert!(
            !refused.stderr.contains("battery") && !refused.stderr.contains("horse"),
            "{}",
            refused.stderr
        );
    }
    let missing = stage
        .backscroll
        .run(&["keys", "import", "nowhere", "--passphrase-file", good.to_str().unwrap()])
        .await;
    assert_eq!(missing.status.code(), Some(74), "{}", missing.stderr);
    let asked = stage.backscroll.run(&["keys", "import", file.to_str().unwrap()]).await;
    assert_eq!(asked.status.code(), Some(64), "{}", asked.stderr);
}
