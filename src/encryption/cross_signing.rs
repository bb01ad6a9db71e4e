//! Signs the archive's own device with the account's self-signing key (specification, "Cross-signing").

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde_json::{Map, Value, json};
use vodozemac::Ed25519SecretKey;

/// The private key by which an account signs its own devices.
pub(crate) struct SelfSigningKey(Ed25519SecretKey);

impl fmt::Debug for SelfSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SelfSigningKey").field(&self.public_key()).finish()
    }
}

impl SelfSigningKey {
    /// `None`: it is no Ed25519 key.
    pub(super) fn new(secret: &SecretSlice<u8>) -> Option<Self> {
        let bytes: &[u8; 32] = secret.expose_secret().try_into().ok()?;
        Some(Self(Ed25519SecretKey::from_slice(bytes)))
    }

    /// Its public key, in base64.
    pub(crate) fn public_key(&self) -> String {
        self.0.public_key().to_base64()
    }

    /// A device's keys as the homeserver has them, with the signature of this key alone. `None`: they cannot be signed,
    /// because they are no canonical JSON.
    pub(crate) fn sign(&self, user_id: &str, device_keys: &Map<String, Value>) -> Option<Value> {
        let mut signed = device_keys.clone();
        signed.remove("signatures");
        signed.remove("unsigned");
        let canonical = ruma::CanonicalJsonValue::try_from(Value::Object(signed.clone())).ok()?.to_string();
        let signature = STANDARD_NO_PAD.encode(self.0.sign(canonical.as_bytes()).to_bytes());
        let name = format!("ed25519:{}", self.public_key());
        signed.insert("signatures".to_owned(), json!({ user_id: { name: signature } }));
        Some(Value::Object(signed))
    }
}
