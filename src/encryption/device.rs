//! The archive's own device: its keys, what it publishes of them, and the key that encrypts them in the database
//! (specification, "Device keys", "One-time and fallback keys").

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use vodozemac::olm::{Account, AccountPickle};

use super::session::ALGORITHM as MEGOLM;

/// The only algorithm of to-device messages.
pub(super) const OLM: &str = "m.olm.v1.curve25519-aes-sha2";

/// How many one-time keys the homeserver is to have. Each new sender's device takes one.
const ONE_TIME_KEYS: u64 = 50;
/// With this many or fewer, new ones are made.
pub(crate) const FEW_ONE_TIME_KEYS: u64 = ONE_TIME_KEYS / 2;

/// The key that encrypts the device's keys and its Olm sessions in the database. It is not in the database.
pub(crate) struct DeviceKey(SecretBox<[u8; 32]>);

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey")
    }
}

impl DeviceKey {
    /// A key from a text that nobody can guess.
    pub(crate) fn from_text(text: &SecretString) -> Self {
        Self(SecretBox::new(Box::new(Sha256::digest(text.expose_secret()).into())))
    }

    /// A text for a new key: 256 random bits.
    pub(crate) fn new_text() -> SecretString {
        // The library's source of random numbers: that of the operating system.
        vodozemac::Curve25519SecretKey::new().to_bytes().map(|byte| format!("{byte:02x}")).concat().into()
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// The device. It only receives: its Olm sessions are those that others begin.
pub(crate) struct Device {
    pub(super) account: Account,
    pub(super) user_id: String,
    device_id: String,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// What other devices must know of this one (specification, `DeviceKeys`). The fields are in the order of canonical
/// JSON.
#[derive(Serialize)]
struct DeviceKeys<'a> {
    algorithms: [&'static str; 2],
    device_id: &'a str,
    keys: BTreeMap<String, String>,
    user_id: &'a str,
}

/// A one-time key or a fallback key (specification, `KeyObject`), in the order of canonical JSON.
#[derive(Serialize)]
struct SignedKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<bool>,
    key: String,
}

impl Device {
    /// A new device, with new keys.
    pub(crate) fn new(user_id: &str, device_id: &str) -> Self {
        Self { account: Account::new(), user_id: user_id.to_owned(), device_id: device_id.to_owned() }
    }

    /// A device that was stored with [`pickle`](Self::pickle). `None`: it was encrypted with another key.
    pub(crate) fn open(user_id: &str, device_id: &str, pickle: &str, key: &DeviceKey) -> Option<Self> {
        let account = AccountPickle::from_encrypted(pickle, key.bytes()).ok()?.into();
        Some(Self { account, user_id: user_id.to_owned(), device_id: device_id.to_owned() })
    }

    /// The device for the database, encrypted.
    pub(crate) fn pickle(&self, key: &DeviceKey) -> String {
        self.account.pickle().encrypt(key.bytes())
    }

    /// Its id.
    pub(crate) fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The key that signs for it, in base64.
    pub(crate) fn ed25519(&self) -> String {
        self.account.ed25519_key().to_base64()
    }

    /// The key by which others address it, in base64.
    pub(crate) fn curve25519(&self) -> String {
        self.account.curve25519_key().to_base64()
    }

    /// Makes new keys where the homeserver has too few. They are [published](Self::upload) after they were stored.
    ///
    /// `on_server`: how many one-time keys it has. `has_fallback`: whether its fallback key is unused. Returns whether
    /// there are new keys.
    pub(crate) fn replenish(&mut self, on_server: u64, has_fallback: bool) -> bool {
        let unpublished = self.account.one_time_keys().len() as u64;
        let available = on_server.saturating_add(unpublished);
        if available <= FEW_ONE_TIME_KEYS {
            let lacking = ONE_TIME_KEYS - available;
            self.account.generate_one_time_keys(usize::try_from(lacking).unwrap_or_default());
        }
        if !has_fallback && self.account.fallback_key().is_empty() {
            // The one before it stays, because messages that use it may be under way.
            self.account.generate_fallback_key();
        }
        self.has_unpublished_keys()
    }

    /// Whether there are one-time or fallback keys that the homeserver does not have, as far as is known.
    pub(crate) fn has_unpublished_keys(&self) -> bool {
        !self.account.one_time_keys().is_empty() || !self.account.fallback_key().is_empty()
    }

    /// The body of a request to `/keys/upload`: all keys that are not published yet, and with `is_new` those of the
    /// device.
    pub(crate) fn upload(&self, is_new: bool) -> Value {
        let signed = |(id, key): (vodozemac::KeyId, vodozemac::Curve25519PublicKey), fallback| {
            let key = SignedKey { fallback, key: key.to_base64() };
            (format!("signed_curve25519:{}", id.to_base64()), self.signed(&key))
        };
        let one_time = self.account.one_time_keys().into_iter().map(|key| signed(key, None));
        let fallback = self.account.fallback_key().into_iter().map(|key| signed(key, Some(true)));
        let mut body = json!({
            "one_time_keys": one_time.collect::<serde_json::Map<_, _>>(),
            "fallback_keys": fallback.collect::<serde_json::Map<_, _>>(),
        });
        if is_new {
            body["device_keys"] = self.signed(&self.device_keys());
        }
        body
    }

    /// Notes that the homeserver has all keys of the last [`upload`](Self::upload).
    pub(crate) fn mark_published(&mut self) {
        self.account.mark_keys_as_published();
    }

    fn device_keys(&self) -> DeviceKeys<'_> {
        let id = &self.device_id;
        let keys =
            [(format!("curve25519:{id}"), self.curve25519()), (format!("ed25519:{id}"), self.ed25519())];
        let algorithms = [OLM, MEGOLM];
        DeviceKeys { algorithms, device_id: id, keys: keys.into(), user_id: &self.user_id }
    }

    /// The object with its signature (specification, "Signing JSON"). Its fields must be sorted.
    fn signed(&self, object: &impl Serialize) -> Value {
        let canonical = serde_json::to_string(object).expect("the object has only texts");
        let mut signed = serde_json::to_value(object).expect("the object has only texts");
        let signature = STANDARD_NO_PAD.encode(self.account.sign(&canonical).to_bytes());
        let name = format!("ed25519:{}", self.device_id);
        signed["signatures"] = json!({ self.user_id.as_str(): { name: signature } });
        signed
    }
}

#[cfg(test)]
mod tests {
    use vodozemac::{Ed25519PublicKey, Ed25519Signature};

    use super::*;

    fn verifies(device: &Device, mut object: Value) -> bool {
        let signatures = object.as_object_mut().unwrap().remove("signatures").unwrap();
        let signature = signatures["@a:hs"]["ed25519:DEV"].as_str().unwrap();
        let canonical = ruma::CanonicalJsonValue::try_from(object).unwrap().to_string();
        let key = Ed25519PublicKey::from_base64(&device.ed25519()).unwrap();
        key.verify(canonical.as_bytes(), &Ed25519Signature::from_base64(signature).unwrap()).is_ok()
    }

    #[test]
    fn all_published_keys_are_signed() {
        let mut device = Device::new("@a:hs", "DEV");
        assert!(device.replenish(0, false));
        let body = device.upload(true);
        assert!(verifies(&device, body["device_keys"].clone()));
        let one_time = body["one_time_keys"].as_object().unwrap();
        assert_eq!(one_time.len(), 50);
        assert_eq!(body["fallback_keys"].as_object().unwrap().len(), 1);
        for key in one_time.values().chain(body["fallback_keys"].as_object().unwrap().values()) {
            assert!(verifies(&device, key.clone()));
        }
        device.mark_published();
        assert!(!device.has_unpublished_keys());
        assert!(!device.replenish(26, true));
        assert!(device.replenish(25, true));
        assert_eq!(device.upload(false)["one_time_keys"].as_object().unwrap().len(), 25);
    }

    #[test]
    fn the_pickle_opens_with_its_key_only() {
        let device = Device::new("@a:hs", "DEV");
        let [right, wrong] = [(); 2].map(|()| DeviceKey::from_text(&DeviceKey::new_text()));
        let pickle = device.pickle(&right);
        assert!(Device::open("@a:hs", "DEV", &pickle, &wrong).is_none());
        let opened = Device::open("@a:hs", "DEV", &pickle, &right).unwrap();
        assert_eq!((opened.ed25519(), opened.curve25519()), (device.ed25519(), device.curve25519()));
    }
}
