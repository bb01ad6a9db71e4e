//! A large key backup on a real Synapse, and messages that its keys decrypt: time, processor time and memory.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use reqwest::Method;
use serde_json::{Map, Value, json};
use vodozemac::{
    Curve25519PublicKey, Curve25519SecretKey,
    megolm::{GroupSession, InboundGroupSession, SessionConfig},
    pk_encryption::PkEncryption,
};

use crate::{
    archiver::{Archiver, Run},
    database::Database,
    homeserver::Synapse,
    say,
    table::{self, Row},
};

/// Sessions of one room.
const SESSIONS_PER_ROOM: u64 = 1000;
/// Messages of one session: a client begins a new one after so many.
const MESSAGES_PER_SESSION: u64 = 100;
/// Rows of one `insert`.
const ROWS: usize = 500;
const NAME: &str = "archived";

/// Backs up so many sessions, has them read, then has so many messages decrypted with them.
pub(crate) async fn print(database: &Database, sessions: u64, messages: u64) -> anyhow::Result<()> {
    let synapse = Synapse::start()?;
    let token = synapse.register().await?;
    let url = database.fresh(NAME).await?;
    let archiver = Archiver::with_token(&synapse.url, &token, &url)?;
    let nothing = archiver.once()?;

    let secret = Curve25519SecretKey::new();
    let public = Curve25519PublicKey::from(&secret);
    let version = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
                          "auth_data": { "public_key": public.to_base64(), "signatures": {} } });
    let version = synapse.call(Method::POST, "room_keys/version", version).await?;
    let version = version["version"].as_str().context("a version")?.to_owned();
    let writing = messages.div_ceil(MESSAGES_PER_SESSION);
    anyhow::ensure!(writing <= sessions, "more sessions than in the backup have messages");
    let mut with_messages = Vec::new();
    for room in 0..sessions.div_ceil(SESSIONS_PER_ROOM) {
        let mut entries = Map::new();
        for number in room * SESSIONS_PER_ROOM..sessions.min((room + 1) * SESSIONS_PER_ROOM) {
            let session = GroupSession::new(SessionConfig::version_1());
            entries.insert(session.session_id(), entry(&session, public)?);
            if number < writing {
                with_messages.push((room_id(room), session));
            }
        }
        let keys = json!({ "rooms": { room_id(room): { "sessions": entries } } });
        synapse.call_with(Method::PUT, "room_keys/keys", &format!("&version={version}"), keys).await?;
    }
    say(&format!("  {sessions} sessions are in the backup"));

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), recovery_key(&secret))?;
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600))?;
    let archiver =
        archiver.set("BACKSCROLL_ENCRYPTION__RECOVERY_KEY_FILE", &file.path().display().to_string());
    let read = archiver.once()?;
    let stored = database.number(NAME, "select count(*)::text from archive.megolm_sessions").await?;
    anyhow::ensure!(u64::try_from(stored)? == sessions, "{stored} sessions were stored");

    store(database, with_messages).await?;
    let decrypted = archiver.once()?;
    let readable = "select count(*)::text from archive.decrypted_events where state = 'ok'";
    let readable = database.number(NAME, readable).await?;
    anyhow::ensure!(u64::try_from(readable)? == messages, "{readable} messages were decrypted");

    let rows = [
        row(format!("a backup of {sessions} sessions"), sessions, read, nothing),
        row(format!("{messages} messages decrypted"), messages, decrypted, nothing),
    ];
    table::print(
        &["encryption", "time", "a second", "a second of its processor time", "most resident"],
        &rows,
    );
    Ok(())
}

/// One run, less what a run takes that has nothing to do.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn row(name: String, count: u64, run: Run, nothing: Run) -> Row {
    let rate = |time: Duration| format!("{:.0}", count as f64 / time.as_secs_f64());
    let took = run.took.saturating_sub(nothing.took);
    Row::new(name)
        .cell(format!("{:.1} s", took.as_secs_f64()))
        .cell(rate(took))
        .cell(rate(run.cpu.saturating_sub(nothing.cpu)))
        .cell(format!("{} MiB", run.peak_rss_kib / 1024))
}

fn room_id(number: u64) -> String {
    format!("!keys{number:04}:localhost")
}

/// A session as an entry of a backup.
fn entry(session: &GroupSession, public: Curve25519PublicKey) -> anyhow::Result<Value> {
    let inbound = InboundGroupSession::new(&session.session_key(), SessionConfig::version_1());
    let data = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "sender_key": public.to_base64(),
        "sender_claimed_keys": { "ed25519": public.to_base64() }, "forwarding_curve25519_key_chain": [],
        "session_key": inbound.export_at_first_known_index().to_base64(),
    });
    let message = PkEncryption::from_key(public).encrypt(data.to_string().as_bytes())?;
    Ok(json!({ "first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {
        "ephemeral": message.ephemeral_key.to_base64(), "mac": STANDARD_NO_PAD.encode(&message.mac),
        "ciphertext": STANDARD_NO_PAD.encode(&message.ciphertext) } }))
}

/// The backup's own key as clients show it.
fn recovery_key(secret: &Curve25519SecretKey) -> String {
    let mut bytes = vec![0x8b, 0x01];
    bytes.extend_from_slice(&secret.to_bytes()[..]);
    bytes.push(bytes.iter().fold(0, |parity, byte| parity ^ byte));
    bs58::encode(bytes).into_string()
}

/// Stores encrypted messages as a backfill would, of rooms that the account has left.
async fn store(database: &Database, sessions: Vec<(String, GroupSession)>) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (number, (room_id, mut session)) in sessions.into_iter().enumerate() {
        for index in 0..MESSAGES_PER_SESSION {
            let plain = json!({ "type": "m.room.message", "room_id": room_id, "content": {
                "msgtype": "m.text", "body": format!("message {index} of session {number} says that it can be read") } });
            let ciphertext = session.encrypt(plain.to_string()).to_base64();
            let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "device_id": "DEVICE", "sender_key": "key",
                                  "session_id": session.session_id(), "ciphertext": ciphertext });
            rows.push(format!(
                "({}, 1700000000000, '{room_id}', '$e{number}-{index}', 'm.room.encrypted', '@alice:localhost', '', '{content}')",
                number as u64 * MESSAGES_PER_SESSION + index
            ));
        }
    }
    let rooms = "insert into archive.rooms (room_id, membership, watched)
                 select distinct room_id, 'leave', false from archive.megolm_sessions";
    database.run(NAME, rooms).await?;
    for part in rows.chunks(ROWS) {
        let sql = format!(
            "insert into archive.events (position, origin_server_ts, room_id, event_id, type, sender, stable_sha256, content)
             values {}",
            part.join(", ")
        );
        database.run(NAME, &sql).await?;
    }
    database.run(NAME, "analyze").await
}
