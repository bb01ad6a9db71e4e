//! A Megolm session as somebody else exported it.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::{Digest as _, Sha256};
use vodozemac::megolm::{ExportedSessionKey, InboundGroupSession, SessionConfig, SessionOrdering};

use crate::matrix::json::Json;

/// The only algorithm of encrypted rooms (specification, `m.room.encryption`).
pub(super) const ALGORITHM: &str = "m.megolm.v1.aes-sha2";
/// The longest id, in bytes. A session's id has 43.
const LONGEST_ID: usize = 255;

/// Where a session is from. The column `origin` also admits `device`, for the keys that other devices
/// send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A key file. It is not signed: nothing in it proves who has made a session.
    File,
    /// The account's server-side key backup. Nothing in it is signed either.
    Backup,
}

impl Origin {
    /// The word in the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Backup => "backup",
        }
    }
}

/// A session: it decrypts the messages of one room from its first known index on.
pub(crate) struct Session {
    /// The room whose messages it is for.
    pub(crate) room_id: String,
    /// The session's public Ed25519 key, in base64 without padding.
    pub(crate) session_id: String,
    /// The sender's Curve25519 key as the file claims it.
    pub(crate) sender_key: Option<String>,
    /// The sender's Ed25519 key as the file claims it.
    pub(crate) sender_ed25519: Option<String>,
    ratchet: InboundGroupSession,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("room_id", &self.room_id)
            .field("session_id", &self.session_id)
            .finish_non_exhaustive()
    }
}

/// One entry of a key file (specification, "Key export format"). In a key backup, the ids stand outside of what is
/// encrypted.
#[derive(serde::Deserialize)]
pub(super) struct Entry {
    algorithm: String,
    #[serde(default)]
    pub(super) room_id: String,
    #[serde(default)]
    pub(super) session_id: String,
    session_key: secrecy::SecretString,
    sender_key: Option<String>,
    #[serde(default)]
    sender_claimed_keys: ClaimedKeys,
}

#[derive(Default, serde::Deserialize)]
struct ClaimedKeys {
    ed25519: Option<String>,
}

impl Session {
    /// # Errors
    /// Why the entry is no session, in words without any secret.
    pub(super) fn from_entry(entry: Entry) -> Result<Self, &'static str> {
        if entry.algorithm != ALGORITHM {
            return Err("of another algorithm than m.megolm.v1.aes-sha2");
        }
        if !entry.room_id.starts_with('!') || !is_id(&entry.room_id) {
            return Err("without the id of a room");
        }
        // Some programs write padding.
        let key = entry.session_key.expose_secret().trim_end_matches('=');
        let key = ExportedSessionKey::from_base64(key).map_err(|_| "whose key cannot be read")?;
        let ratchet = InboundGroupSession::import(&key, SessionConfig::version_1());
        if ratchet.session_id() != entry.session_id {
            return Err("whose id is not that of its key");
        }
        Ok(Self {
            room_id: entry.room_id,
            session_id: entry.session_id,
            sender_key: entry.sender_key.filter(|key| is_id(key)),
            sender_ed25519: entry.sender_claimed_keys.ed25519.filter(|key| is_id(key)),
            ratchet,
        })
    }

    /// The index of the first message that it decrypts.
    pub(crate) fn first_index(&self) -> u32 {
        self.ratchet.first_known_index()
    }

    /// The key as bytes of the session export format (Olm's documentation, "Session export format").
    pub(crate) fn key(&self) -> SecretSlice<u8> {
        self.ratchet.export_at_first_known_index().to_bytes().into()
    }

    /// What tells copies of a session apart.
    pub(crate) fn key_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.key().expose_secret()).into()
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_ID && !text.contains(char::is_control)
}

/// A ratchet from a stored key. `None`: it is damaged.
pub(super) fn ratchet(key: &SecretSlice<u8>) -> Option<InboundGroupSession> {
    let key = ExportedSessionKey::from_bytes(key.expose_secret()).ok()?;
    Some(InboundGroupSession::import(&key, SessionConfig::version_1()))
}

/// Compares a stored copy of a session with a new one. `Some(true)`: the new one is of the same ratchet and reaches
/// further back, so it replaces the stored one. `Some(false)`: of the same ratchet, and no better. `None`: they are of
/// different ratchets, so one of the two is forged or damaged, and both are kept until one decrypts.
pub(crate) fn is_better(session: &mut Session, stored: &SecretSlice<u8>) -> Option<bool> {
    let mut stored = ratchet(stored)?;
    match session.ratchet.compare(&mut stored) {
        SessionOrdering::Better => Some(true),
        SessionOrdering::Equal | SessionOrdering::Worse => Some(false),
        SessionOrdering::Unconnected => None,
    }
}

/// The session that an encrypted event names, as `archive.megolm_session()` reads it.
pub(crate) fn session_id_of(content: &str) -> Option<String> {
    let content = Json::parse(content);
    let text = |name| content.get(name).and_then(|value| value.as_text()?.as_str().map(str::to_owned));
    text("algorithm").filter(|algorithm| algorithm == ALGORITHM)?;
    text("session_id").filter(|id| id.len() <= LONGEST_ID)
}
