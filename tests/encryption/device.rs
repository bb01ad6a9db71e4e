//! The archive's own device: it is sent the keys of rooms, and loses none.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Encrypted, sender::Sender};
use crate::support::random;

impl Encrypted {
    /// With a device of its own, whose keys were published.
    pub(super) async fn with_device() -> Self {
        let mut stage = Self::new().await.set("BACKSCROLL_ENCRYPTION__DEVICE", "true");
        stage.backscroll.once().await;
        stage.sender.sync().await;
        stage
    }

    pub(super) fn set(self, name: &str, value: &str) -> Self {
        Self { backscroll: self.backscroll.set(name, value), ..self }
    }

    async fn trusts(&self) -> Vec<Vec<String>> {
        self.database.rows("select distinct trust from messages where trust is not null").await
    }

    pub(super) async fn device_id(&self) -> String {
        self.database.value("select device_id from archive.devices").await
    }

    /// Sends a to-device event to the archive's own device as any client may.
    async fn send_to_device(&self, kind: &str, content: &Value) {
        let body = json!({ "messages": { &self.archiver.user_id: { self.device_id().await: content } } });
        let path = format!("/sendToDevice/{kind}/{}", fastrand::u64(..));
        self.synapse
            .call(Method::PUT, &path, Some(&self.alice), Some(body))
            .await
            .expect("a to-device event");
    }
}

/// What was sent before the device existed stays unreadable; what comes after is read as it comes.
#[tokio::test]
async fn live_messages_are_read_with_the_keys_that_their_senders_send() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    stage.sender.say(&room, "before").await;
    let mut stage = stage.set("BACKSCROLL_ENCRYPTION__DEVICE", "true");
    let mut daemon = stage.backscroll.start(&["run"]);
    daemon.says("receiving the keys of encrypted rooms").await;
    stage.sender.sync().await;
    let bob_user = stage.synapse.register("bob").await;
    stage.synapse.join(&bob_user, &room).await;
    let mut bob = Sender::start(&stage.synapse, &bob_user).await;
    stage.sender.rotate(&room).await;
    for number in 0..10 {
        if number % 3 == 2 {
            stage.sender.rotate(&room).await;
        }
        let sender = if number % 2 == 0 { &mut stage.sender } else { &mut bob };
        sender.say(&room, &format!("after {number}")).await;
    }
    let wanted: Vec<String> =
        ["-".to_owned()].into_iter().chain((0..10).map(|number| format!("after {number}"))).collect();
    daemon.until("all is read", async || stage.bodies(&room).await == wanted).await;
    daemon.stop().await;
    assert_eq!(stage.trusts().await, [["device"]]);
    let status = stage.backscroll.run(&["status"]).await;
    assert!(status.stdout.contains(&stage.device_id().await), "{}", status.stdout);
    stage.agrees().await;
}

/// Killed at random moments, again and again: each key that was sent is there.
#[tokio::test]
async fn no_key_is_lost_when_the_daemon_is_killed() {
    let mut random = random::seeded("encryption::device");
    let dose = random::dose();
    let mut stage = Encrypted::with_device().await;
    let rooms = [stage.room().await, stage.room().await];
    let mut sent = [Vec::new(), Vec::new()];
    for _ in 0..8 * dose {
        let daemon = stage.backscroll.start(&["run"]);
        for _ in 0..random.usize(0..4) {
            let place = random.usize(..2);
            if random.bool() {
                stage.sender.rotate(&rooms[place]).await;
            }
            let body = format!("message {}", sent[place].len());
            stage.sender.say(&rooms[place], &body).await;
            sent[place].push(body);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..700))).await;
        daemon.kill().await;
    }
    stage.backscroll.once().await;
    for (room, sent) in rooms.iter().zip(&sent) {
        assert_eq!(stage.bodies(room).await, *sent);
    }
    assert_eq!(stage.trusts().await, [["device"]]);
    let left = stage.database.value("select count(*) from undecryptable").await;
    assert_eq!(left, "0");
}

/// When others have used up the one-time keys, senders take the fallback key. The next run publishes new keys.
#[tokio::test]
async fn the_fallback_key_serves_when_the_one_time_keys_are_used_up() {
    let mut stage = Encrypted::with_device().await;
    let room = stage.room().await;
    let bob_user = stage.synapse.register("bob").await;
    stage.synapse.join(&bob_user, &room).await;
    let mut bob = Sender::start(&stage.synapse, &bob_user).await;
    let device = stage.device_id().await;
    let archiver = stage.archiver.user_id.clone();
    let claim = json!({ "one_time_keys": { &archiver: { &device: "signed_curve25519" } } });
    let claims_fallback = async |stage: &Encrypted| {
        let claimed =
            stage.synapse.call(Method::POST, "/keys/claim", Some(&stage.alice), Some(claim.clone())).await;
        let mut claimed = claimed.expect("a key");
        let keys = claimed["one_time_keys"][&archiver][&device].take();
        keys.as_object().unwrap().values().next().unwrap()["fallback"] == true
    };
    let mut claimed = 1;
    while !claims_fallback(&stage).await {
        claimed += 1;
        assert!(claimed < 1000, "it has more one-time keys than it publishes");
    }
    stage.sender.say(&room, "from alice").await;
    bob.say(&room, "from bob").await;
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, ["from alice", "from bob"]);
    assert_eq!(stage.trusts().await, [["device"]]);
    assert!(!claims_fallback(&stage).await);
}

/// A token whose device has keys of another client is refused, and so is a device without its key.
#[tokio::test]
async fn the_keys_of_another_client_are_left_alone() {
    let stage = Encrypted::new().await.set("BACKSCROLL_ENCRYPTION__DEVICE", "true");
    let other = Sender::start(&stage.synapse, &stage.archiver).await;
    stage.backscroll.write_token(other.access_token());
    let refused = stage.backscroll.run(&["run", "--once"]).await;
    assert_eq!(refused.status.code(), Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("another client has published keys"), "{}", refused.stderr);
    assert!(refused.stderr.contains("backscroll login"), "{}", refused.stderr);
    let (checked, code) = stage.checked().await;
    assert!(code == Some(78) && checked.contains("another client has published keys"), "{checked}");

    stage.backscroll.write_token(&stage.archiver.access_token);
    stage.backscroll.once().await;
    let key = stage.backscroll.path().join("data/device.key");
    let text = std::fs::read_to_string(&key).unwrap();
    for other in [None, Some("0".repeat(64))] {
        match other {
            None => std::fs::remove_file(&key).unwrap(),
            Some(other) => std::fs::write(&key, other).unwrap(),
        }
        let refused = stage.backscroll.run(&["run", "--once"]).await;
        assert_eq!(refused.status.code(), Some(78), "{}", refused.stderr);
        assert!(refused.stderr.contains("device.key"), "{}", refused.stderr);
    }
    std::fs::write(&key, &text).unwrap();
    stage.backscroll.once().await;
    let (checked, code) = stage.checked().await;
    assert!(code == Some(0) && checked.contains("which is not signed by the account"), "{checked}");
    // Nothing secret is in clear in the database.
    let secret = "select account from archive.devices";
    assert!(!stage.database.value(secret).await.contains(&text));
}

/// What a sender withholds has a reason, and what nobody can use does no harm.
#[tokio::test]
async fn withheld_keys_have_reasons_and_bad_to_device_events_do_no_harm() {
    let mut stage = Encrypted::new().await;
    let room = stage.room().await;
    let event_id = stage.sender.say(&room, "not for you").await;
    let mut stage = stage.set("BACKSCROLL_ENCRYPTION__DEVICE", "true");
    stage.backscroll.once().await;
    let session = stage.database.value("select session_id from undecryptable").await;
    let algorithm = "m.megolm.v1.aes-sha2";
    stage
        .send_to_device(
            "m.room_key.withheld",
            &json!({ "algorithm": algorithm, "room_id": room, "session_id": session, "sender_key": "k",
                     "code": "m.unverified", "reason": "not verified" }),
        )
        .await;
    let curve25519 = stage.database.value("select curve25519 from archive.devices").await;
    for content in [
        json!({}),
        json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2" }),
        json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": curve25519,
                "ciphertext": { &curve25519: { "type": 0, "body": "AwogAA" } } }),
        json!({ "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": [],
                "ciphertext": { &curve25519: { "type": 7, "body": "x" } } }),
    ] {
        stage.send_to_device("m.room.encrypted", &content).await;
    }
    stage.send_to_device("org.example.other", &json!({ "a": 1 })).await;
    stage.sender.sync().await;
    stage.sender.rotate(&room).await;
    stage.sender.say(&room, "for you").await;
    let once = stage.backscroll.once().await;
    assert!(once.stderr.contains("to-device events cannot be used"), "{}", once.stderr);
    assert_eq!(stage.decryption(&event_id).await, "withheld: m.unverified (not verified)");
    let reasons = stage.database.column("select reason from undecryptable").await;
    assert_eq!(reasons, ["withheld: m.unverified (not verified)"]);
    assert_eq!(stage.bodies(&room).await, ["-", "for you"]);
}

/// Whoever sends keys of rooms that are not archived fills the table up to a limit, and delays no key of an archived room.
#[tokio::test]
async fn keys_of_rooms_that_are_not_archived_are_limited() {
    let mut stage = Encrypted::with_device().await;
    let [other, room] = [stage.room().await, stage.room().await];
    let mut stage = stage.set("BACKSCROLL_ROOMS__EXCLUDE", &other);
    stage.sender.say(&other, "one").await;
    stage.backscroll.once().await;
    let of_other = format!("select count(*) from archive.megolm_sessions where room_id = '{other}'");
    assert_eq!(stage.database.value(&of_other).await, "1");
    let alice = &stage.alice.user_id;
    stage
        .database
        .run(&format!(
            "delete from archive.rooms where room_id = '{other}';
             insert into archive.megolm_sessions (first_index, room_id, session_id, key_sha256, session_key, origin, senders)
             select 0, '!r' || n, n::text, '', '', 'device', array['{alice}'] from generate_series(1, 9999) n"
        ))
        .await;
    for room in [&other, &room] {
        stage.sender.rotate(room).await;
        stage.sender.say(room, "two").await;
    }
    let once = stage.backscroll.once().await;
    assert!(once.stderr.contains("their sender has sent too many"), "{}", once.stderr);
    assert_eq!(stage.database.value(&of_other).await, "1");
    assert_eq!(stage.bodies(&room).await, ["two"]);
}
