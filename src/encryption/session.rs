//! A Megolm session as somebody else exported it.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};
use vodozemac::megolm::{
    ExportedSessionKey, InboundGroupSession, SessionConfig, SessionKey, SessionOrdering,
};

use crate::matrix::json::Json;

/// The only algorithm of encrypted rooms (specification, `m.room.encryption`).
pub(super) const ALGORITHM: &str = "m.megolm.v1.aes-sha2";
/// The longest id, in bytes. A session's id has 43.
const LONGEST_ID: usize = 255;

/// Where a session is from, the least trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A key file. It is not signed: nothing in it proves who has made a session.
    File,
    /// The server-side key backup. Everybody who knows its public key can write to it.
    Backup,
    /// Another device of the account has forwarded it.
    Forwarded,
    /// The sender's device has sent it to the archive's own device.
    Device,
}

impl Origin {
    const ALL: [Self; 4] = [Self::File, Self::Backup, Self::Forwarded, Self::Device];

    /// The word in the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Backup => "backup",
            Self::Forwarded => "forwarded",
            Self::Device => "device",
        }
    }

    /// The origin of a word in the database.
    pub(crate) fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|origin| origin.as_str() == word).unwrap_or(Self::File)
    }
}

/// A session: it decrypts the messages of one room from its first known index on.
pub(crate) struct Session {
    /// The room whose messages it is for.
    pub(crate) room_id: String,
    /// The session's public Ed25519 key, in base64 without padding.
    pub(crate) session_id: String,
    /// Where it is from.
    pub(crate) origin: Origin,
    /// The user whose device has sent it to the archive's own device. `None`: it came another way.
    pub(crate) sender: Option<String>,
    /// The Curve25519 key of the sender's device, as the origin claims it.
    pub(crate) sender_key: Option<String>,
    /// The Ed25519 key of the sender's device, as the origin claims it.
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
    session_key: SecretString,
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
    pub(super) fn from_entry(entry: Entry, origin: Origin) -> Result<Self, &'static str> {
        if entry.algorithm != ALGORITHM {
            return Err("of another algorithm than m.megolm.v1.aes-sha2");
        }
        let claimed = (entry.sender_key, entry.sender_claimed_keys.ed25519);
        let session = Self::exported(&entry.room_id, &entry.session_id, &entry.session_key, claimed)?;
        Ok(Self { origin, ..session })
    }

    /// A key that another device of the account has forwarded. `claimed`: the sender's Curve25519 and Ed25519 keys.
    pub(super) fn forwarded(
        room_id: &str,
        session_id: &str,
        key: &SecretString,
        claimed: (Option<String>, Option<String>),
    ) -> Result<Self, &'static str> {
        let session = Self::exported(room_id, session_id, key, claimed)?;
        Ok(Self { origin: Origin::Forwarded, ..session })
    }

    /// A key that a device of `sender` has sent. `keys`: the device's Curve25519 and Ed25519 keys.
    pub(super) fn received(
        room_id: &str,
        session_id: &str,
        key: &SecretString,
        sender: &str,
        keys: (String, String),
    ) -> Result<Self, &'static str> {
        let key = key.expose_secret().trim_end_matches('=');
        let key = SessionKey::from_base64(key).map_err(|_| "whose key cannot be read")?;
        let ratchet = InboundGroupSession::new(&key, SessionConfig::version_1());
        let session = Self::new(room_id, session_id, ratchet, (Some(keys.0), Some(keys.1)))?;
        Ok(Self { origin: Origin::Device, sender: Some(sender.to_owned()), ..session })
    }

    fn exported(
        room_id: &str,
        session_id: &str,
        key: &SecretString,
        claimed: (Option<String>, Option<String>),
    ) -> Result<Self, &'static str> {
        // Some programs write padding.
        let key = key.expose_secret().trim_end_matches('=');
        let key = ExportedSessionKey::from_base64(key).map_err(|_| "whose key cannot be read")?;
        let ratchet = InboundGroupSession::import(&key, SessionConfig::version_1());
        Self::new(room_id, session_id, ratchet, claimed)
    }

    fn new(
        room_id: &str,
        session_id: &str,
        ratchet: InboundGroupSession,
        claimed: (Option<String>, Option<String>),
    ) -> Result<Self, &'static str> {
        if !room_id.starts_with('!') || !is_id(room_id) {
            return Err("without the id of a room");
        }
        if ratchet.session_id() != session_id {
            return Err("whose id is not that of its key");
        }
        Ok(Self {
            room_id: room_id.to_owned(),
            session_id: session_id.to_owned(),
            origin: Origin::File,
            sender: None,
            sender_key: claimed.0.filter(|key| is_id(key)),
            sender_ed25519: claimed.1.filter(|key| is_id(key)),
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

/// Whether a text can be an id: not empty, not long, and without control characters.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_ID && !text.contains(char::is_control)
}

/// A ratchet from a stored key. `None`: it is damaged.
pub(super) fn ratchet(key: &SecretSlice<u8>) -> Option<InboundGroupSession> {
    let key = ExportedSessionKey::from_bytes(key.expose_secret()).ok()?;
    Some(InboundGroupSession::import(&key, SessionConfig::version_1()))
}

/// Compares a session with a stored copy of it. `Some(true)`: they are of the same ratchet, and it reaches further back.
/// `Some(false)`: of the same ratchet, and it reaches no further. `None`: they are of different ratchets, so one of the two
/// is forged or damaged, and both are kept until one decrypts.
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
