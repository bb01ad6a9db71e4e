//! A client that sends encrypted messages: matrix-nio in `sender.py`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::support::synapse::{Synapse, User};

const VERSION: &str = "0.26.0";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/encryption/sender.py");
pub(crate) const PASSPHRASE: &str = "correct horse";

/// The running client of a user.
pub(crate) struct Sender {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    _store: tempfile::TempDir,
    access_token: String,
}

fn python() -> PathBuf {
    let installed = || {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        cache.unwrap_or_default().join("backscroll").join(format!("nio-{VERSION}"))
    };
    let place = env::var_os("BACKSCROLL_TEST_NIO").map_or_else(installed, PathBuf::from);
    let python = place.join("bin/python");
    assert!(
        python.exists(),
        "this test needs matrix-nio in {}: run ./deploy/nio.sh install",
        place.display()
    );
    python
}

impl Sender {
    /// Logs in. The password of a user is its name.
    pub(crate) async fn start(synapse: &Synapse, user: &User) -> Self {
        let store = tempfile::tempdir().unwrap();
        let name = user.user_id.trim_start_matches('@').split(':').next().unwrap();
        let mut command = Command::new(python());
        command.args([PROGRAM, synapse.url(), &user.user_id, name]).arg(store.path());
        Self::run(command, store).await
    }

    /// A client on matrix-sdk instead, as Element is.
    pub(crate) async fn start_matrix_sdk(synapse: &Synapse, user: &User) -> Self {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache =
            cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache"))).unwrap_or_default();
        let program = cache.join("backscroll/matrix-sdk/debug/encryption-matrix-sdk");
        assert!(
            program.exists(),
            "this test needs {}: run ./deploy/matrix-sdk.sh install",
            program.display()
        );
        let name = user.user_id.trim_start_matches('@').split(':').next().unwrap();
        let mut command = Command::new(program);
        command.args([synapse.url(), &user.user_id, name]);
        Self::run(command, tempfile::tempdir().unwrap()).await
    }

    async fn run(mut command: Command, store: tempfile::TempDir) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let stdout = BufReader::new(stdout).lines();
        let mut sender = Self { _child: child, stdin, stdout, _store: store, access_token: String::new() };
        let token = sender.answer().await["access_token"].take();
        token.as_str().unwrap_or_default().clone_into(&mut sender.access_token);
        sender
    }

    /// The access token of its device.
    pub(crate) fn access_token(&self) -> &str {
        &self.access_token
    }

    async fn answer(&mut self) -> Value {
        let line = self.stdout.next_line().await.unwrap().expect("the client has ended");
        serde_json::from_str(&line).unwrap()
    }

    async fn call(&mut self, command: Value) -> Value {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
        self.answer().await
    }

    /// Sends an event, encrypted if the room is. Returns its id.
    pub(crate) async fn send(&mut self, room: &str, kind: &str, content: Value) -> String {
        let sent = self.call(json!({ "do": "send", "room": room, "type": kind, "content": content })).await;
        sent["event_id"].as_str().unwrap().to_owned()
    }

    /// Sends a message.
    pub(crate) async fn say(&mut self, room: &str, body: &str) -> String {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": body })).await
    }

    /// The content of an encrypted event, which it does not send.
    pub(crate) async fn encrypt(&mut self, room: &str, body: &str) -> Value {
        self.encrypt_as(room, "m.room.message", json!({ "msgtype": "m.text", "body": body })).await
    }

    /// The same of an event of any type.
    pub(crate) async fn encrypt_as(&mut self, room: &str, kind: &str, content: Value) -> Value {
        let command = json!({ "do": "encrypt", "room": room, "type": kind, "content": content });
        self.call(command).await["content"].take()
    }

    /// Its sessions as entries of a key backup.
    pub(crate) async fn backup_entries(&mut self, public_key: &str) -> Value {
        self.call(json!({ "do": "backup", "public_key": public_key })).await
    }

    /// Begins a new session with the next message.
    pub(crate) async fn rotate(&mut self, room: &str) {
        self.call(json!({ "do": "rotate", "room": room })).await;
    }

    /// Learns of new rooms.
    pub(crate) async fn sync(&mut self) {
        self.call(json!({ "do": "sync" })).await;
    }

    /// Exports all its sessions.
    pub(crate) async fn export(&mut self, file: &Path) {
        self.call(json!({ "do": "export", "file": file, "passphrase": PASSPHRASE })).await;
    }

    /// Sets up cross-signing, secret storage and a key backup. Returns the recovery key. Only of matrix-sdk.
    pub(crate) async fn set_up_recovery(&mut self) -> String {
        self.call(json!({ "do": "recovery" })).await["recovery_key"].as_str().unwrap().to_owned()
    }

    /// Deletes the key backup and secret storage. Only of matrix-sdk.
    pub(crate) async fn forget_recovery(&mut self) {
        self.call(json!({ "do": "forget" })).await;
    }

    /// Waits until all its sessions are in the backup. Only of matrix-sdk.
    pub(crate) async fn back_up(&mut self) {
        self.call(json!({ "do": "backup" })).await;
    }

    /// What the homeserver says of a device. Only of matrix-sdk.
    pub(crate) async fn device(&mut self, user: &User, device: &str) -> Value {
        self.call(json!({ "do": "device", "user": user.user_id, "device": device })).await
    }

    /// The texts of a room as this client reads them.
    pub(crate) async fn read(&mut self, room: &str) -> Vec<String> {
        serde_json::from_value(self.call(json!({ "do": "read", "room": room })).await["bodies"].take())
            .unwrap()
    }
}
