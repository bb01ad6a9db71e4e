//! The server-side key backup, as matrix-sdk makes it.

use reqwest::Method;
use serde_json::{Value, json};

use super::Encrypted;
use crate::support::archive;

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
        let path = format!("/room_keys/keys?version={version}");
        self.synapse.call(Method::PUT, &path, user, Some(vector["keys"].clone())).await.expect("keys");
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
        let log = read.stderr + &again.stderr + &archive::dump(stage.database.url()).await.join("\n");
        assert!(!log.contains(opens));

        let stage = stage.with_recovery("another passphrase");
        stage.database.run("update archive.encryption_settings set backup_etag = null").await;
        let refused = stage.backscroll.once().await;
        assert!(refused.stderr.contains("the passphrase does not open it"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("another passphrase"), "{}", refused.stderr);
    }
}
