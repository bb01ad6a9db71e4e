//! To-device events: Olm messages with keys of rooms, and notices that a key is withheld (specification, "Messaging
//! Algorithms", `m.olm.v1.curve25519-aes-sha2`).

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use vodozemac::{
    Curve25519PublicKey,
    olm::{OlmMessage, Session as Ratchet, SessionConfig, SessionPickle},
};

use super::{
    device::{Device, DeviceKey, OLM},
    session::{Session, is_id},
};

/// The most Olm sessions of one sender's device that are kept: those that were used last.
const SESSIONS: usize = 20;
/// The longest text of a notice that is kept, in characters.
const LONGEST_TEXT: usize = 300;

/// A to-device event.
#[derive(Debug, Deserialize)]
pub(crate) struct ToDeviceEvent {
    #[serde(rename = "type")]
    event_type: String,
    sender: String,
    content: Box<RawValue>,
}

/// An Olm session with another device.
pub(crate) struct OlmSession {
    session_id: String,
    ratchet: Ratchet,
}

impl fmt::Debug for OlmSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OlmSession").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl OlmSession {
    /// A session that was stored with [`pickle`](Self::pickle). `None`: it is damaged, or of another key.
    pub(crate) fn open(pickle: &str, key: &DeviceKey) -> Option<Self> {
        let ratchet = Ratchet::from_pickle(SessionPickle::from_encrypted(pickle, key.bytes()).ok()?);
        Some(Self { session_id: ratchet.session_id(), ratchet })
    }

    /// The session for the database, encrypted.
    pub(crate) fn pickle(&self, key: &DeviceKey) -> String {
        self.ratchet.pickle().encrypt(key.bytes())
    }

    /// Its id.
    pub(crate) fn session_id(&self) -> &str {
        &self.session_id
    }
}

/// The Olm sessions with one device of another user, the last used first.
#[derive(Debug, Default)]
pub(crate) struct OlmSessions {
    sessions: Vec<OlmSession>,
    /// How many of the first ones have changed.
    changed: usize,
}

impl OlmSessions {
    /// The stored sessions, the last used first.
    pub(crate) fn new(sessions: Vec<OlmSession>) -> Self {
        Self { sessions, changed: 0 }
    }

    /// Those that have changed, the last used last.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &OlmSession> {
        self.sessions.iter().take(self.changed).rev()
    }

    /// Takes those that are too many.
    pub(crate) fn take_surplus(&mut self) -> Vec<OlmSession> {
        self.changed = self.changed.min(SESSIONS);
        self.sessions.split_off(SESSIONS.min(self.sessions.len()))
    }

    fn use_session(&mut self, place: usize) {
        let session = self.sessions.remove(place);
        self.sessions.insert(0, session);
        self.changed = if place < self.changed { self.changed } else { self.changed + 1 };
    }
}

/// A notice of a sender that it does not give a key (specification, `m.room_key.withheld`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Withheld {
    pub(crate) room_id: String,
    pub(crate) session_id: String,
    pub(crate) sender: String,
    /// Why, as code and text.
    pub(crate) reason: String,
}

/// What a to-device event brings.
#[derive(Debug)]
pub(crate) enum Brought {
    /// A key.
    Session(Box<Session>),
    /// The reason why there is none.
    Withheld(Withheld),
    /// Nothing that the archive needs.
    Nothing,
    /// It cannot be used, and why. The text contains nothing of it.
    Unusable(&'static str),
}

#[derive(Deserialize)]
struct Encrypted {
    algorithm: String,
    sender_key: String,
    ciphertext: BTreeMap<String, Ciphertext>,
}

#[derive(Deserialize)]
struct Ciphertext {
    #[serde(rename = "type")]
    kind: usize,
    body: String,
}

/// What an Olm message encrypts.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    event_type: String,
    content: Box<RawValue>,
    sender: String,
    recipient: String,
    recipient_keys: Keys,
    keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    ed25519: String,
}

/// Specification, `m.room_key` and `m.forwarded_room_key`.
#[derive(Deserialize)]
struct RoomKey {
    algorithm: String,
    room_id: String,
    session_id: String,
    session_key: SecretString,
    sender_key: Option<String>,
    sender_claimed_ed25519_key: Option<String>,
}

#[derive(Deserialize)]
struct WithheldContent {
    algorithm: String,
    room_id: Option<String>,
    session_id: Option<String>,
    code: String,
    #[serde(default)]
    reason: String,
}

/// An Olm message for this device.
pub(crate) struct Message {
    sender: String,
    sender_key: Curve25519PublicKey,
    message: OlmMessage,
}

impl Message {
    /// The sender's device.
    pub(crate) fn sender_key(&self) -> String {
        self.sender_key.to_base64()
    }
}

impl ToDeviceEvent {
    /// `None`: it is no event.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        let event = serde_json::from_str::<Self>(raw).ok()?;
        is_id(&event.sender).then_some(event)
    }

    /// The Olm message in it. `None`: it has none for the device.
    pub(crate) fn message(&self, device: &Device) -> Option<Result<Message, &'static str>> {
        (self.event_type == "m.room.encrypted").then(|| self.read_message(device)).and_then(Result::transpose)
    }

    fn read_message(&self, device: &Device) -> Result<Option<Message>, &'static str> {
        let content: Encrypted =
            serde_json::from_str(self.content.get()).map_err(|_| "it lacks what Olm messages have")?;
        if content.algorithm != OLM {
            return Err("it is encrypted by another algorithm than m.olm.v1.curve25519-aes-sha2");
        }
        let Some(ciphertext) = content.ciphertext.get(&device.curve25519()) else { return Ok(None) };
        let sender_key = Curve25519PublicKey::from_base64(&content.sender_key)
            .map_err(|_| "its sender's key cannot be read")?;
        let body = STANDARD_NO_PAD.decode(ciphertext.body.trim_end_matches('='));
        let body = body.map_err(|_| "its ciphertext is no base64")?;
        let message =
            OlmMessage::from_parts(ciphertext.kind, &body).map_err(|_| "its ciphertext cannot be read")?;
        Ok(Some(Message { sender: self.sender.clone(), sender_key, message }))
    }

    /// What an event that is not encrypted brings.
    pub(crate) fn read_clear(&self) -> Brought {
        if !["m.room_key.withheld", "org.matrix.room_key.withheld"].contains(&self.event_type.as_str()) {
            return Brought::Nothing;
        }
        let Ok(content) = serde_json::from_str::<WithheldContent>(self.content.get()) else {
            return Brought::Unusable("a withheld key lacks what it should have");
        };
        let (Some(room_id), Some(session_id)) = (content.room_id, content.session_id) else {
            // `m.no_olm` names no session.
            return Brought::Nothing;
        };
        let is_known = content.algorithm == super::session::ALGORITHM;
        if !is_known || !room_id.starts_with('!') || !is_id(&room_id) || !is_id(&session_id) {
            return Brought::Unusable("a withheld key names no session of a room");
        }
        let short =
            |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect() };
        let [code, text] = [&content.code, &content.reason].map(|text| short(text));
        let reason = if text.is_empty() { code } else { format!("{code} ({text})") };
        Brought::Withheld(Withheld { room_id, session_id, sender: self.sender.clone(), reason })
    }
}

impl Device {
    /// Decrypts a message with the sessions of its sender's device, and reads what it brings. Where no session fits, a
    /// new one is made with the one-time key that the message names.
    pub(crate) fn receive(&mut self, message: &Message, sessions: &mut OlmSessions) -> Brought {
        let plaintext = match self.decrypt(message, sessions) {
            Ok(plaintext) => plaintext,
            Err(reason) => return Brought::Unusable(reason),
        };
        self.read(message, &plaintext).unwrap_or_else(Brought::Unusable)
    }

    fn decrypt(&mut self, message: &Message, olm: &mut OlmSessions) -> Result<Vec<u8>, &'static str> {
        let named = match &message.message {
            OlmMessage::PreKey(message) => Some(message.session_id()),
            OlmMessage::Normal(_) => None,
        };
        for place in 0..olm.sessions.len() {
            let session = &mut olm.sessions[place];
            if named.as_ref().is_some_and(|id| *id != session.session_id) {
                continue;
            }
            if let Ok(plaintext) = session.ratchet.decrypt(&message.message) {
                olm.use_session(place);
                return Ok(plaintext);
            }
        }
        let OlmMessage::PreKey(begins) = &message.message else {
            return Err("no Olm session decrypts it, or it is a repetition");
        };
        if olm.sessions.iter().any(|session| named.as_ref() == Some(&session.session_id)) {
            return Err("its Olm session does not decrypt it, or it is a repetition");
        }
        let config = SessionConfig::version_1();
        let made = self.account.create_inbound_session(config, message.sender_key, begins);
        let made =
            made.map_err(|_| "its Olm session cannot be made: its one-time key was used, or never was")?;
        olm.sessions.push(OlmSession { session_id: made.session.session_id(), ratchet: made.session });
        olm.use_session(olm.sessions.len() - 1);
        Ok(made.plaintext)
    }

    /// Checks who it is from and for, and reads its key.
    fn read(&self, message: &Message, plaintext: &[u8]) -> Result<Brought, &'static str> {
        let payload: Payload =
            serde_json::from_slice(plaintext).map_err(|_| "what it encrypts lacks what it should have")?;
        if payload.sender != message.sender {
            return Err("its sender is another one than it says within");
        }
        if payload.recipient != self.user_id || payload.recipient_keys.ed25519 != self.ed25519() {
            return Err("it was encrypted for another device");
        }
        let is_forwarded = match payload.event_type.as_str() {
            "m.room_key" => false,
            "m.forwarded_room_key" => true,
            _ => return Ok(Brought::Nothing),
        };
        if is_forwarded && message.sender != self.user_id {
            return Err("it forwards a key, and is not from another device of the account");
        }
        let key: RoomKey = serde_json::from_str(payload.content.get())
            .map_err(|_| "the key that it brings lacks what it should have")?;
        if key.algorithm != super::session::ALGORITHM {
            return Err("the key that it brings is of another algorithm");
        }
        let (room_id, session_id, text) = (&key.room_id, &key.session_id, &key.session_key);
        let session = if is_forwarded {
            let claimed = (key.sender_key, key.sender_claimed_ed25519_key);
            Session::forwarded(room_id, session_id, text, claimed)
        } else {
            let sender_keys = (message.sender_key(), payload.keys.ed25519);
            Session::received(room_id, session_id, text, &message.sender, sender_keys)
        };
        session.map(|session| Brought::Session(Box::new(session)))
    }
}

#[cfg(test)]
mod tests;
