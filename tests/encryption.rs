//! Encrypted rooms, on a real Synapse with a real client as the sender.

mod backup;
mod device;
mod element;
mod faults;
mod reads;
mod sender;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use self::sender::{PASSPHRASE, Sender};
use crate::support::{
    daemon::{Backscroll, Outcome},
    derived::assert_derived,
    postgres::TestDatabase,
    synapse::{Synapse, User},
};

/// Alice's client sends, and the account `archiver` archives.
struct Encrypted {
    synapse: Synapse,
    alice: User,
    archiver: User,
    sender: Sender,
    database: TestDatabase,
    backscroll: Backscroll,
}

impl Encrypted {
    async fn new() -> Self {
        let synapse = Synapse::start().await;
        let [archiver, alice] = [synapse.register("archiver").await, synapse.register("alice").await];
        let sender = Sender::start(&synapse, &alice).await;
        let database = TestDatabase::new().await;
        let backscroll = Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url()));
        Self { synapse, alice, archiver, sender, database, backscroll }
    }

    /// An encrypted room of both.
    async fn room(&mut self) -> String {
        let encryption = json!({ "type": "m.room.encryption", "state_key": "",
            "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
        let body = json!({ "preset": "public_chat", "initial_state": [encryption] });
        let room = self.synapse.create_room(&self.alice, "11", body).await;
        self.synapse.join(&self.archiver, &room).await;
        self.sender.sync().await;
        room
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.backscroll.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The client's key file.
    async fn export(&mut self, name: &str) -> PathBuf {
        let path = self.backscroll.path().join(name);
        drop(fs::remove_file(&path));
        self.sender.export(&path).await;
        path
    }

    async fn import(&mut self) -> Outcome {
        let file = self.export("keys.txt").await;
        self.import_file(&file).await
    }

    /// Imports a client's key file.
    async fn import_file(&self, file: &Path) -> Outcome {
        let passphrase = self.write("passphrase", PASSPHRASE);
        let [file, passphrase] = [file, &passphrase].map(|path| path.to_str().unwrap());
        let imported = self.backscroll.run(&["keys", "import", file, "--passphrase-file", passphrase]).await;
        assert!(imported.status.success(), "{}", imported.stderr);
        imported
    }

    /// The bodies of a room's messages, in its order.
    async fn bodies(&self, room: &str) -> Vec<String> {
        let sql =
            format!("select coalesce(body, '-') from messages where room_id = '{room}' order by position");
        self.database.column(&sql).await
    }

    /// How an event could be read.
    async fn decryption(&self, event_id: &str) -> String {
        self.database.value(&format!("select decryption from events where event_id = '{event_id}'")).await
    }

    async fn found(&self, query: &str) -> Vec<String> {
        self.database.column(&format!("select event_id from search('{query}') order by position")).await
    }

    /// The search and whatever else is derived agree with the events.
    async fn agrees(&self) {
        assert_derived(self.database.url()).await;
    }

    async fn post(&self, room: &str, content: &Value) -> String {
        self.synapse.send(&self.alice, room, "m.room.encrypted", content.clone()).await
    }
}
