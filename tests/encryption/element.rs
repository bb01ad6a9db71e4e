//! With a client on matrix-sdk, as Element is, beside matrix-nio. It takes minutes to build and to run, so `tests/long.sh`
//! runs these.

use std::time::{Duration, Instant};

use super::{Encrypted, sender::Sender};
use crate::support::random;

const MESSAGES: u64 = 10_000;
const SESSIONS: u64 = 50;
const KILLS: u64 = 200;

impl Encrypted {
    /// A message in a room, whose key another client of the account has put into a key backup. Returns the room, that client,
    /// and the recovery key.
    async fn backed_up(&mut self, body: &str) -> (String, Sender, String) {
        let room = self.room().await;
        let mut element = Sender::start_matrix_sdk(&self.synapse, &self.archiver).await;
        let recovery_key = element.set_up_recovery().await;
        self.sender.sync().await;
        self.sender.say(&room, body).await;
        element.sync().await;
        element.back_up().await;
        (room, element, recovery_key)
    }
}

/// What comes by the backup within two minutes.
async fn arrives(stage: &Encrypted, room: &str, wanted: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while stage.bodies(room).await != wanted {
        assert!(Instant::now() < deadline, "not readable: {:?}", stage.bodies(room).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The account's other client has keys that this device never gets: they come by the backup, those of before and those of
/// now. Others see the device as signed.
#[tokio::test]
#[ignore = "needs a client on matrix-sdk: tests/long.sh"]
async fn the_backup_of_another_client_and_the_signature_of_the_device() {
    let mut stage = Encrypted::new().await;
    let (room, mut element, recovery_key) = stage.backed_up("before").await;
    let mut stage = stage.with_recovery(&recovery_key);
    let daemon = stage.backscroll.start(&["run"]);
    arrives(&stage, &room, &["before".to_owned()]).await;
    // Its own device has no keys of encryption yet: the other client's upload is what makes this readable.
    stage.sender.rotate(&room).await;
    stage.sender.say(&room, "while it runs").await;
    element.sync().await;
    element.back_up().await;
    arrives(&stage, &room, &["before".to_owned(), "while it runs".to_owned()]).await;
    daemon.stop().await;

    let stage = stage.set("BACKSCROLL_ENCRYPTION__DEVICE", "true");
    stage.backscroll.once().await;
    let device_id = stage.device_id().await;
    let carol = stage.synapse.register("carol").await;
    stage.synapse.join(&carol, &room).await;
    let mut carol = Sender::start_matrix_sdk(&stage.synapse, &carol).await;
    let seen = carol.device(&stage.archiver, &device_id).await;
    assert_eq!(seen["is_known"], true, "{seen}");
    assert_eq!(seen["is_signed"], true, "{seen}");
}

/// The account's backup is deleted and made anew, with another key, while the daemon runs: with the new recovery key in the
/// file, what comes by it is readable. And a key file of the other client has the same keys.
#[tokio::test]
#[ignore = "needs a client on matrix-sdk: tests/long.sh"]
async fn a_backup_that_is_made_anew_and_a_key_file() {
    let mut stage = Encrypted::new().await;
    let (room, mut element, first) = stage.backed_up("in the first backup").await;
    let mut stage = stage.with_recovery(&first);
    let mut daemon = stage.backscroll.start(&["run"]);
    let mut wanted = vec!["in the first backup".to_owned()];
    arrives(&stage, &room, &wanted).await;

    element.forget_recovery().await;
    daemon.says("the account has no key backup").await;
    let second = element.set_up_recovery().await;
    assert_ne!(first, second);
    stage.sender.rotate(&room).await;
    stage.sender.say(&room, "in the second").await;
    element.sync().await;
    element.back_up().await;
    daemon.says("the recovery key does not open it").await;
    stage.write("recovery", &second);
    wanted.push("in the second".to_owned());
    arrives(&stage, &room, &wanted).await;
    daemon.stop().await;

    stage.database.run("delete from archive.decrypted_events; delete from archive.megolm_sessions").await;
    let file = stage.backscroll.path().join("element.txt");
    element.export(&file).await;
    stage.import_file(&file).await;
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, wanted);
    let origins = stage.database.column("select distinct origin from archive.megolm_sessions").await;
    assert_eq!(origins, ["file"]);
}

/// 10,000 messages in at least 50 sessions, while the daemon is killed 200 times: all that was sent is read, in the room's order.
#[tokio::test]
#[ignore = "takes some ten minutes: tests/long.sh"]
async fn no_key_of_ten_thousand_messages_is_lost() {
    let mut random = random::seeded("encryption::element");
    let mut stage = Encrypted::with_device().await;
    let room = stage.room().await;
    let mut sent = Vec::new();
    for kill in 0..KILLS {
        let daemon = stage.backscroll.start(&["run"]);
        while (sent.len() as u64) < MESSAGES * (kill + 1) / KILLS {
            if (sent.len() as u64).is_multiple_of(MESSAGES / SESSIONS) {
                stage.sender.rotate(&room).await;
            }
            let body = format!("message {}", sent.len());
            stage.sender.say(&room, &body).await;
            sent.push(body);
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
        daemon.kill().await;
    }
    stage.backscroll.once().await;
    assert_eq!(stage.bodies(&room).await, sent);
    // The client also begins a session of its own accord after 100 messages.
    let named = "select count(distinct archive.megolm_session(content)) from archive.events
                 where type = 'm.room.encrypted'";
    let named = stage.database.value(named).await;
    assert!(named.parse::<u64>().unwrap() >= SESSIONS, "{named} sessions");
    let sent_here = "select count(*) from archive.megolm_sessions where origin = 'device'";
    assert_eq!(stage.database.value(sent_here).await, named);
    assert_eq!(stage.database.value("select count(*) from undecryptable").await, "0");
}
