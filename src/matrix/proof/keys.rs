//! The public keys of homeservers, which they publish and sign themselves.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm,
    canonical_json::CanonicalJsonObjectExt as _,
    serde::{Base64, base64::Standard},
    signatures::verify_canonical_json_bytes,
};

use super::hash::signed_text;

/// A public key of a homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// The Ed25519 key.
    pub public_key: [u8; 32],
    /// Until when it is valid, in milliseconds since 1970. Of an expired key: until when it was in use.
    pub valid_until: i64,
    /// Whether the server no longer uses it.
    pub is_expired: bool,
}

/// The keys of homeservers, by the server's name and the key's id, such as `ed25519:a_1`.
#[derive(Clone, Debug, Default)]
pub struct ServerKeys(BTreeMap<String, BTreeMap<String, ServerKey>>);

/// A homeserver's list of its keys, signed with one of them (specification, `GET /_matrix/key/v2/server`).
#[derive(Clone, Debug)]
pub struct KeyResponse {
    /// The server.
    pub server_name: String,
    /// The keys that it uses now and those that it used.
    pub keys: BTreeMap<String, ServerKey>,
    object: CanonicalJsonObject,
}

/// Why a list of keys is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// It does not follow the specification.
    #[error("`{0}` is missing, or is not as the specification says")]
    Member(&'static str),
    /// None of the keys in it has signed it.
    #[error("it is not signed with a key that it names")]
    NotSigned,
    /// A key in it has signed something else.
    #[error("its signature does not fit it")]
    WrongSignature,
}

impl KeyResponse {
    /// Reads a list of keys and checks that its server signed it. That proves that whoever made the list has
    /// the keys. It does not prove who that was.
    ///
    /// # Errors
    /// If it is not such a list, or not signed with a key that it names as in use.
    pub fn read(json: &str) -> Result<Self, BadKeys> {
        let object: CanonicalJsonObject =
            serde_json::from_str(json).map_err(|_| BadKeys::Member("server_keys"))?;
        let server_name = object.get("server_name").and_then(CanonicalJsonValue::as_str);
        let server_name = server_name.ok_or(BadKeys::Member("server_name"))?.to_owned();
        let valid_until = integer(&object, "valid_until_ts").ok_or(BadKeys::Member("valid_until_ts"))?;
        let mut keys = BTreeMap::new();
        for (id, key) in listed(&object, "old_verify_keys") {
            let valid_until = integer(key, "expired_ts").ok_or(BadKeys::Member("expired_ts"))?;
            let public_key = public_key(key).ok_or(BadKeys::Member("old_verify_keys"))?;
            keys.insert(id.clone(), ServerKey { public_key, valid_until, is_expired: true });
        }
        for (id, key) in listed(&object, "verify_keys") {
            let public_key = public_key(key).ok_or(BadKeys::Member("verify_keys"))?;
            keys.insert(id.clone(), ServerKey { public_key, valid_until, is_expired: false });
        }
        let response = Self { server_name, keys, object };
        response.check_own_signature()?;
        Ok(response)
    }

    fn check_own_signature(&self) -> Result<(), BadKeys> {
        let text = signed_text(&self.object, None, &["signatures", "unsigned"]).ok_or(BadKeys::NotSigned)?;
        let mut is_signed = false;
        for (id, signature) in signatures_of(&self.object, &self.server_name) {
            let Some(key) = self.keys.get(id).filter(|key| !key.is_expired) else { continue };
            if !fits(&key.public_key, signature, &text) {
                return Err(BadKeys::WrongSignature);
            }
            is_signed = true;
        }
        if is_signed { Ok(()) } else { Err(BadKeys::NotSigned) }
    }

    /// Whether it has a key that is valid at a time, in milliseconds since 1970, or whose use has ended.
    pub(crate) fn has_valid(&self, key_id: &str, time: i64) -> bool {
        self.keys.get(key_id).is_some_and(|key| key.is_expired || key.valid_until >= time)
    }

    /// The list as canonical JSON with its server's own signatures only. Those of notaries prove nothing
    /// without their keys.
    pub(super) fn signed_by_itself(&self) -> String {
        let mut object = self.object.clone();
        if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
            signatures.retain(|server, _| *server == self.server_name);
            if let Some(CanonicalJsonValue::Object(own)) = signatures.get_mut(&self.server_name) {
                own.retain(|id, _| self.keys.get(id).is_some_and(|key| !key.is_expired));
            }
        }
        object.remove("unsigned");
        CanonicalJsonValue::Object(object).to_string()
    }

    /// The list as canonical JSON, with all signatures: its server's, and those of the notary that served it.
    pub fn canonical_json(&self) -> String {
        CanonicalJsonValue::Object(self.object.clone()).to_string()
    }
}

impl ServerKeys {
    /// Adds the keys of a list. Of two lists with the same key the longer validity counts, except that a key
    /// that its server calls expired stays so.
    pub fn add(&mut self, response: &KeyResponse) {
        let keys = self.0.entry(response.server_name.clone()).or_default();
        for (id, new) in &response.keys {
            let mut new = new.clone();
            let known = keys.get(id).filter(|known| known.public_key == new.public_key && !new.is_expired);
            match known {
                Some(known) if known.is_expired => continue,
                Some(known) => new.valid_until = new.valid_until.max(known.valid_until),
                None => {}
            }
            keys.insert(id.clone(), new);
        }
    }

    /// A key of a server.
    pub fn get(&self, server_name: &str, key_id: &str) -> Option<&ServerKey> {
        self.0.get(server_name)?.get(key_id)
    }
}

/// The Ed25519 keys of a list. Nobody can check with other ones.
fn listed<'o>(
    object: &'o CanonicalJsonObject,
    member: &str,
) -> impl Iterator<Item = (&'o String, &'o CanonicalJsonObject)> {
    let keys = object.get_as_object(member, member).ok().flatten().into_iter().flatten();
    keys.filter(|(id, _)| id.starts_with("ed25519:")).filter_map(|(id, key)| Some((id, key.as_object()?)))
}

fn public_key(key: &CanonicalJsonObject) -> Option<[u8; 32]> {
    let text = key.get("key")?.as_str()?;
    Base64::<Standard, [u8; 32]>::parse(text).ok().map(Base64::into_inner)
}

fn integer(object: &CanonicalJsonObject, member: &str) -> Option<i64> {
    object.get(member).and_then(CanonicalJsonValue::as_integer).map(i64::from)
}

/// The Ed25519 signatures of a server: key id and signature.
pub(super) fn signatures_of<'o>(
    object: &'o CanonicalJsonObject,
    server_name: &str,
) -> impl Iterator<Item = (&'o String, &'o str)> {
    let all = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let own = all.and_then(|all| all.get(server_name)?.as_object()).into_iter().flatten();
    own.filter(|(id, _)| id.starts_with("ed25519:"))
        .map(|(id, signature)| (id, signature.as_str().unwrap_or_default()))
}

/// Whether the key has signed the text.
pub(super) fn fits(public_key: &[u8; 32], signature: &str, text: &str) -> bool {
    Base64::<Standard>::parse(signature).is_ok_and(|signature| {
        let (algorithm, signature) = (SigningKeyAlgorithm::Ed25519, signature.as_bytes());
        verify_canonical_json_bytes(&algorithm, public_key, signature, text.as_bytes()).is_ok()
    })
}
