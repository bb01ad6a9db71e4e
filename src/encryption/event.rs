//! Decrypts events.

use std::{collections::BTreeMap, fmt};

use secrecy::SecretSlice;
use serde_json::value::RawValue;
use vodozemac::megolm::{DecryptionError, InboundGroupSession, MegolmMessage};

use super::session::ratchet;
use crate::matrix::json::{self, Json};

/// An event to decrypt.
pub(crate) struct EncryptedEvent {
    /// Its id.
    pub(crate) event_id: String,
    /// Its sender.
    pub(crate) sender: String,
    /// The session that it names.
    pub(crate) session_id: String,
    /// Its content, as JSON.
    pub(crate) content: String,
}

impl fmt::Debug for EncryptedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedEvent").field("event_id", &self.event_id).finish_non_exhaustive()
    }
}

/// What an event says.
#[derive(PartialEq, Eq)]
pub(crate) struct Plaintext {
    /// The index of the message in its session. The session's signature covers it.
    pub(crate) index: u32,
    /// The type, escaped as in the column `type`.
    pub(crate) event_type: String,
    /// The content for a `jsonb` column, without `m.relates_to`.
    pub(crate) content: String,
    /// The content's exact bytes, if `jsonb` does not give it back.
    pub(crate) raw: Option<Vec<u8>>,
    /// Where the copy of the session is from that decrypted it.
    pub(crate) origin: String,
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plaintext").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The result of decrypting an event. The reasons contain nothing of what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decryption {
    /// It was decrypted.
    Ok(Plaintext),
    /// The session is only known from a later message on.
    NoKey(String),
    /// It is not what the session's owner sent to this room.
    Bad(String),
}

/// A copy of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionCopy {
    /// The key in Olm's session export format.
    pub(crate) key: SecretSlice<u8>,
    /// Where it is from: the column `origin`.
    pub(crate) origin: String,
    /// The users whose devices have sent it to the archive's own device. Empty: it came another way, which proves no
    /// sender.
    pub(crate) senders: Vec<String>,
}

/// Events of one room, and all copies of their sessions.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The room.
    pub(crate) room_id: String,
    /// The copies of each session, the one that reaches furthest back first, by the session's id.
    pub(crate) sessions: BTreeMap<String, Vec<SessionCopy>>,
    /// The events.
    pub(crate) events: Vec<EncryptedEvent>,
}

/// An event with its message, or why that cannot be read.
type Parsed = (EncryptedEvent, Result<MegolmMessage, String>);

impl Batch {
    /// Decrypts the events, each some 90 µs of a processor's time.
    pub(crate) fn decrypt(self) -> Vec<(EncryptedEvent, Decryption)> {
        let mut by_session: BTreeMap<String, Vec<Parsed>> = BTreeMap::new();
        for event in self.events {
            let message = message(&event.content);
            by_session.entry(event.session_id.clone()).or_default().push((event, message));
        }
        let mut decrypted = Vec::new();
        for (session_id, mut events) in by_session {
            let keys = self.sessions.get(&session_id).map(Vec::as_slice).unwrap_or_default();
            let mut copies: Vec<(InboundGroupSession, &SessionCopy)> =
                keys.iter().filter_map(|copy| Some((ratchet(&copy.key)?, copy))).collect();
            // A ratchet only turns forwards, so ascending indices cost least.
            events
                .sort_by_key(|(_, message)| message.as_ref().map_or(u32::MAX, MegolmMessage::message_index));
            for (event, message) in events {
                let result = match message {
                    Ok(message) => decrypt(&self.room_id, &event.sender, &mut copies, &message),
                    Err(reason) => Decryption::Bad(reason),
                };
                decrypted.push((event, result));
            }
        }
        decrypted
    }
}

fn message(content: &str) -> Result<MegolmMessage, String> {
    let content = Json::parse(content);
    let ciphertext = content.get("ciphertext").and_then(|value| value.as_text()?.as_str());
    let ciphertext = ciphertext.ok_or("it has no ciphertext")?;
    // Some clients write padding.
    MegolmMessage::from_base64(ciphertext.trim_end_matches('='))
        .map_err(|error| format!("its ciphertext cannot be read: {error}"))
}

/// The copy of the session that decrypts wins: one that does not may be forged or damaged.
fn decrypt(
    room_id: &str,
    sender: &str,
    copies: &mut [(InboundGroupSession, &SessionCopy)],
    message: &MegolmMessage,
) -> Decryption {
    let (mut too_late, mut failure) = (None, None);
    for (ratchet, copy) in copies {
        match ratchet.decrypt(message) {
            Ok(plain) => {
                if !copy.senders.is_empty() && !copy.senders.iter().any(|of_session| of_session == sender) {
                    return Decryption::Bad("its sender is not the one who sent the session".to_owned());
                }
                return match read(room_id, &plain.plaintext, plain.message_index) {
                    Ok(plaintext) => Decryption::Ok(Plaintext { origin: copy.origin.clone(), ..plaintext }),
                    Err(reason) => Decryption::Bad(reason.to_owned()),
                };
            }
            Err(DecryptionError::UnknownMessageIndex(first, _)) => too_late = too_late.or(Some(first)),
            Err(error @ DecryptionError::Signature(_)) => return Decryption::Bad(error.to_string()),
            Err(error) => failure = Some(error),
        }
    }
    match (too_late, failure) {
        (Some(first), _) => Decryption::NoKey(format!(
            "the session is known from its message {first} on, and this is message {}",
            message.message_index()
        )),
        (None, Some(error)) => Decryption::Bad(error.to_string()),
        (None, None) => Decryption::NoKey("the session's key is damaged".to_owned()),
    }
}

/// Reads what was encrypted: a JSON object with `type`, `content` and `room_id`.
fn read(room_id: &str, plaintext: &[u8], index: u32) -> Result<Plaintext, &'static str> {
    let raw: &RawValue = serde_json::from_slice(plaintext).map_err(|_| "what it encrypts is not JSON")?;
    let members = json::members(raw).ok_or("what it encrypts is no JSON object")?;
    // Of a name that is there twice, the last one counts, as for the server.
    let value = |name: &str| members.iter().rev().find(|member| member.name.is(name)).map(|it| it.value);
    let text = |name: &str| value(name).map(Json::parse);
    let Some(Json::String(said_room)) = text("room_id") else {
        return Err("what it encrypts does not name its room");
    };
    if !said_room.is(room_id) {
        return Err("it was encrypted for another room");
    }
    let Some(Json::String(event_type)) = text("type") else { return Err("what it encrypts has no type") };
    let (event_type, _) = event_type.to_column();
    if event_type.len() > 255 {
        return Err("its type is too long");
    }
    if event_type == "m.room.encrypted" {
        return Err("it encrypts an encrypted event");
    }
    let served = value("content").ok_or("what it encrypts has no content")?;
    let mut said = Json::parse(served);
    if !matches!(said, Json::Object(_)) {
        return Err("the content that it encrypts is no object");
    }
    // Relations count as they stand in the clear (specification, "Relationships", "Encrypted events").
    said.remove("m.relates_to");
    let mut content = String::with_capacity(served.len());
    let is_faithful = said.write_jsonb(&mut content);
    let raw = (!is_faithful).then(|| served.as_bytes().to_vec());
    Ok(Plaintext { index, event_type, content, raw, origin: String::new() })
}

#[cfg(test)]
mod tests;
