//! The entries of a server-side key backup (specification, "Server-side key backups",
//! `m.megolm_backup.v1.curve25519-aes-sha2`). Everybody who knows the backup's public key can make an entry, so nothing
//! proves who has.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;
use serde_json::value::RawValue;
use vodozemac::{
    Curve25519SecretKey,
    pk_encryption::{Message, PkDecryption},
};

use super::session::{Entry, Origin, Session};

/// `auth_data` of a backup of the algorithm `m.megolm_backup.v1.curve25519-aes-sha2`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AuthData {
    /// The backup's public key.
    pub(crate) public_key: String,
    pub(super) private_key_salt: Option<String>,
    pub(super) private_key_iterations: Option<u32>,
}

/// The private key of a backup.
pub(crate) struct BackupKey(PkDecryption);

impl BackupKey {
    /// `None`: it is not the key of the backup that `auth` describes.
    pub(super) fn new(key: &SecretSlice<u8>, auth: &AuthData) -> Option<Self> {
        let key = Curve25519SecretKey::from_slice(key.expose_secret().try_into().ok()?);
        let key = PkDecryption::from_key(key);
        let public = key.public_key().to_base64();
        (public == auth.public_key.trim_end_matches('=')).then_some(Self(key))
    }
}

/// Rooms of a response to `GET /room_keys/keys`, not yet decrypted.
#[derive(Deserialize)]
struct Rooms<'a> {
    #[serde(borrow, default)]
    rooms: BTreeMap<String, &'a RawValue>,
}

/// The sessions of one room.
#[derive(Deserialize)]
struct Room<'a> {
    #[serde(borrow)]
    sessions: BTreeMap<String, &'a RawValue>,
}

/// One session, encrypted.
#[derive(Deserialize)]
struct Encrypted {
    session_data: SessionData,
}

/// Its encryption.
#[derive(Deserialize)]
struct SessionData {
    ephemeral: String,
    ciphertext: String,
    mac: String,
}

/// The decrypted sessions of a part of a backup.
#[derive(Debug, Default)]
pub(crate) struct BackupPortion {
    /// Its sessions.
    pub(crate) sessions: Vec<Session>,
    /// The entries that are no sessions: how many, by the reason.
    pub(crate) unreadable: BTreeMap<&'static str, usize>,
}

impl BackupPortion {
    /// Decrypts a part: `{"rooms": {"!room": {"sessions": {"id": {…}}}}}`. What is damaged is counted, and the rest is
    /// read.
    pub(crate) fn read(body: &[u8], key: &BackupKey) -> Self {
        let mut portion = Self::default();
        let Ok(Rooms { rooms }) = serde_json::from_slice(body) else {
            portion.leave_out("in a part that is damaged");
            return portion;
        };
        for (room_id, room) in rooms {
            let Ok(Room { sessions }) = serde_json::from_str(room.get()) else {
                portion.leave_out("in a room that is damaged");
                continue;
            };
            for (session_id, entry) in sessions {
                portion.read_entry(&room_id, session_id, entry, key);
            }
        }
        portion
    }

    /// Decrypts one entry, and adds its session. One that is damaged is counted.
    pub(crate) fn read_entry(
        &mut self,
        room_id: &str,
        session_id: String,
        entry: &RawValue,
        key: &BackupKey,
    ) {
        match decrypt(room_id, session_id, entry, key) {
            Ok(session) => self.sessions.push(session),
            Err(reason) => self.leave_out(reason),
        }
    }

    fn leave_out(&mut self, reason: &'static str) {
        *self.unreadable.entry(reason).or_default() += 1;
    }
}

/// Decrypts one entry. Its ids are those under which the server has it; that of the session must fit the key.
fn decrypt(
    room_id: &str,
    session_id: String,
    entry: &RawValue,
    key: &BackupKey,
) -> Result<Session, &'static str> {
    const LACKING: &str = "that lack what sessions have";
    let data = serde_json::from_str::<Encrypted>(entry.get()).map_err(|_| LACKING)?.session_data;
    let message = Message::from_base64(&data.ciphertext, &data.mac, &data.ephemeral);
    let message = message.map_err(|_| "whose encryption is damaged")?;
    let plain = key.0.decrypt(&message).map_err(|_| "that the backup's key does not decrypt")?;
    let plain: SecretSlice<u8> = plain.into();
    let mut entry: Entry = serde_json::from_slice(plain.expose_secret()).map_err(|_| LACKING)?;
    room_id.clone_into(&mut entry.room_id);
    entry.session_id = session_id;
    Session::from_entry(entry, Origin::Backup)
}
