//! The server-side key backup, as matrix-sdk makes it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::Encrypted;
use crate::support::{archive, daemon::Backscroll};

/// What a Synapse held of an account after a client on matrix-sdk had set up secret storage, cross-signing and a backup.
const VECTORS: [&str; 2] = [
    include_str!("vectors/matrix-sdk-recovery-key.json"),
    include_str!("vectors/matrix-sdk-passphrase.json"),
];

impl Encrypted {
    /// Gives the account on this homeserver the secret storage and the backup of a vector.
    async fn restore_vector(&self, vector: &Value) {
        let user = Some(&self.archiver);
        for (kind, content) in vector["account_data"].as_object().unwrap() {
            if kind.starts_with("m.secret_storage") || content["encrypted"].is_object() {
                let path = format!("/user/{}/account_data/{kind}", self.archiver.user_id);
                self.synapse
                    .call(Method::PUT, &path, user, Some(content.clone()))
                    .await
                    .expect("account data");
            }
        }
        let version = json!({ "algorithm": vector["version"]["algorithm"], "auth_data": vector["version"]["auth_data"] });
        let made = self.synapse.call(Method::POST, "/room_keys/version", user, Some(version)).await;
        let version = made.expect("a backup")["version"].as_str().unwrap().to_owned();
        self.back_up(&version, vector["keys"].clone()).await;
    }

    /// Adds entries to the account's backup.
    async fn back_up(&self, version: &str, keys: Value) {
        let path = format!("/room_keys/keys?version={version}");
        self.synapse.call(Method::PUT, &path, Some(&self.archiver), Some(keys)).await.expect("keys");
    }

    /// What `check` says, and its exit code.
    pub(super) async fn checked(&self) -> (String, Option<i32>) {
        let checked = self.backscroll.run(&["check"]).await;
        (checked.stdout + &checked.stderr, checked.status.code())
    }

    pub(super) fn with_recovery(self, text: &str) -> Self {
        let path = self.write("recovery", text);
        let backscroll =
            self.backscroll.set("BACKSCROLL_ENCRYPTION__RECOVERY_KEY_FILE", path.to_str().unwrap());
        Self { backscroll, ..self }
    }

    async fn origins(&self) -> Vec<Vec<String>> {
        self.database.rows("select origin, count(*) from archive.megolm_sessions group by 1").await
    }
}

/// With a recovery key or a passphrase, every session of the backup is stored once, and what has not changed is not read
/// again.
#[tokio::test]
async fn the_backup_is_read_with_a_recovery_key_or_a_passphrase() {
    for vector in VECTORS {
        let vector: Value = serde_json::from_str(vector).unwrap();
        let opens = vector["passphrase"].as_str().or(vector["recovery_key"].as_str()).unwrap();
        let stage = Encrypted::new().await.with_recovery(opens);
        let without = stage.backscroll.once().await;
        assert!(without.stderr.contains("the account has no key backup"), "{}", without.stderr);
        stage.restore_vector(&vector).await;
        let read = stage.backscroll.once().await;
        assert!(read.stderr.contains("read the key backup"), "{}", read.stderr);
        assert_eq!(stage.origins().await, [["backup", "3"]]);
        let again = stage.backscroll.once().await;
        assert!(!again.stderr.contains("read the key backup"), "{}", again.stderr);
        let (checked, code) = stage.checked().await;
        assert!(code == Some(0) && checked.contains("which the recovery key opens"), "{checked}");
        let status = stage.backscroll.run(&["status"]).await;
        assert!(status.stdout.contains("key backup read"), "{}", status.stdout);
        let log = read.stderr + &again.stderr + &archive::dump(stage.database.url()).await.join("\n");
        assert!(!log.contains(opens));

        let stage = stage.with_recovery("another passphrase");
        stage.database.run("update archive.encryption_settings set backup_etag = null").await;
        let refused = stage.backscroll.once().await;
        assert!(refused.stderr.contains("the passphrase does not open it"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("another passphrase"), "{}", refused.stderr);
        let (checked, code) = stage.checked().await;
        assert!(code == Some(78) && checked.contains("the passphrase does not open it"), "{checked}");
        let status = stage.backscroll.run(&["status"]).await;
        assert!(status.stdout.contains("key backup unread"), "{}", status.stdout);
        assert!(status.stdout.contains("The key backup cannot be read: the passphrase"), "{}", status.stdout);
    }
}

/// Passes connections on, and lets a request for the whole backup wait.
async fn relay(listener: TcpListener, target: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = TcpStream::connect(&target).await.unwrap();
        connections.spawn(async move {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let requests = async {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                    if String::from_utf8_lossy(&bytes[..count]).contains("/room_keys/keys?version") {
                        tokio::time::sleep(Duration::from_secs(4)).await;
                    }
                    to_server.write_all(&bytes[..count]).await.unwrap();
                }
            };
            let responses = tokio::io::copy(&mut from_server, &mut to_client);
            tokio::select! {
                () = requests => {}
                _ = responses => {}
            }
        });
    }
}

/// A backup that takes long to read is not read again at each change. The keys of new messages are asked for one by one.
#[tokio::test]
async fn wanted_keys_of_a_large_backup_are_asked_for() {
    let vector: Value = serde_json::from_str(VECTORS[0]).unwrap();
    let mut stage = Encrypted::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut relays = JoinSet::new();
    relays.spawn(relay(listener, stage.synapse.url().trim_start_matches("http://").to_owned()));
    stage.backscroll = Backscroll::new(&url, &stage.archiver.access_token, Some(stage.database.url()));
    let mut stage = stage.with_recovery(vector["recovery_key"].as_str().unwrap());
    let room = stage.room().await;
    stage.restore_vector(&vector).await;
    let mut daemon = stage.backscroll.start(&["run"]);
    daemon.says("read the key backup").await;
    stage.sender.say(&room, "with a key that comes later").await;
    let public_key = vector["version"]["auth_data"]["public_key"].as_str().unwrap();
    let entries = stage.sender.backup_entries(public_key).await;
    stage.back_up("1", entries).await;
    daemon.says("read wanted keys from the key backup").await;
    daemon.until("it is read", async || stage.bodies(&room).await == ["with a key that comes later"]).await;
    daemon.stop().await;
    assert_eq!(stage.origins().await, [["backup", "4"]]);
}
