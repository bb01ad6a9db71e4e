//! What a recovery key or a passphrase opens: secret storage (specification, "Secret storage"), and in it the private
//! key of the key backup.

use std::collections::BTreeMap;

use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use base64::Engine as _;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretSlice, SecretString};
use serde::Deserialize;
use sha2::{Sha256, Sha512};

use super::{
    backup::{AuthData, BackupKey},
    cross_signing::SelfSigningKey,
    key_file::{BASE64, MOST_ROUNDS},
};

/// The type of the account data that has the backup's private key, and the name of the secret.
pub(crate) const SECRET_NAME: &str = "m.megolm_backup.v1";
/// The same for the private self-signing key of cross-signing.
pub(crate) const SELF_SIGNING: &str = "m.cross_signing.self_signing";
/// The only algorithm of secret storage.
const ALGORITHM: &str = "m.secret_storage.v1.aes-hmac-sha2";
/// The first bytes of a recovery key (specification, "Key representation").
const PREFIX: [u8; 2] = [0x8b, 0x01];
/// The bytes of a key.
const KEY: usize = 32;

/// A recovery key as its owner has it: a key, or the passphrase from which one is derived.
pub(crate) struct RecoveryKey {
    /// The key, if the text is one.
    key: Option<SecretSlice<u8>>,
    text: SecretString,
}

/// `m.secret_storage.key.<id>`: what a key of secret storage is, and how to tell the right one.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SecretStorageKey {
    algorithm: String,
    iv: Option<String>,
    mac: Option<String>,
    passphrase: Option<Derivation>,
}

/// How a key is derived from a passphrase.
#[derive(Clone, Debug, Deserialize)]
struct Derivation {
    algorithm: String,
    salt: String,
    iterations: u32,
    #[serde(default = "default_bits")]
    bits: u32,
}

/// The bits of a derived key, if none are named.
const fn default_bits() -> u32 {
    256
}

/// A secret in the account data: its encryptions, by the id of the key.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StoredSecret {
    #[serde(default)]
    pub(crate) encrypted: BTreeMap<String, serde_json::Value>,
}

/// A secret, encrypted with one key.
#[derive(Deserialize)]
struct Encrypted {
    iv: String,
    ciphertext: String,
    mac: String,
}

/// What the account data says about the backup's key.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountData {
    /// The backup's private key, encrypted.
    pub(crate) secret: StoredSecret,
    /// The private self-signing key, encrypted.
    pub(crate) self_signing: StoredSecret,
    /// The keys that may decrypt them, the default one first.
    pub(crate) keys: Vec<(String, SecretStorageKey)>,
}

impl RecoveryKey {
    /// Reads the content of a recovery key file. What is not a recovery key is a passphrase.
    pub(crate) fn new(text: SecretString) -> Self {
        Self { key: parse(text.expose_secret()), text }
    }

    /// What the text is, for a message that it opens nothing.
    pub(crate) fn describe(&self) -> &'static str {
        if self.key.is_some() {
            "recovery key"
        } else if looks_like_key(self.text.expose_secret()) {
            "text looks like a recovery key with a mistake in it, and as a passphrase it"
        } else {
            "passphrase"
        }
    }

    /// The backup's private key: from secret storage, or this key itself, or as older clients derived it from a
    /// passphrase. Takes up to some seconds of a processor's time.
    ///
    /// # Errors
    /// What was tried, in words without any secret.
    pub(crate) fn open(&self, data: &AccountData, auth: &AuthData) -> Result<BackupKey, String> {
        let mut tried = Vec::new();
        for (id, description) in &data.keys {
            let key =
                self.storage_key(description).and_then(|key| data.secret.decrypt(SECRET_NAME, id, &key));
            let key = key.and_then(|key| {
                BackupKey::new(&key, auth).ok_or("has the key of another backup than the newest")
            });
            match key {
                Ok(key) => return Ok(key),
                Err(problem) => tried.push(format!("secret storage {problem}")),
            }
        }
        if data.keys.is_empty() {
            tried.push(format!("secret storage has no secret {SECRET_NAME}"));
        }
        let own = match (&self.key, &auth.private_key_salt, auth.private_key_iterations) {
            (Some(key), ..) => BackupKey::new(key, auth),
            (None, Some(salt), Some(iterations)) => {
                derive(&self.text, salt, iterations).ok().and_then(|key| BackupKey::new(&key, auth))
            }
            _ => None,
        };
        own.ok_or_else(|| {
            tried.push("it is not the backup's own key either".to_owned());
            tried.join("; ")
        })
    }

    /// The private self-signing key of the account's cross-signing. `None`: secret storage does not give it.
    pub(crate) fn self_signing_key(&self, data: &AccountData) -> Option<SelfSigningKey> {
        data.keys.iter().find_map(|(id, description)| {
            let key = self.storage_key(description).ok()?;
            let secret = data.self_signing.decrypt(SELF_SIGNING, id, &key).ok()?;
            SelfSigningKey::new(&secret)
        })
    }

    /// The key of secret storage, if it is the one that `description` describes.
    fn storage_key(&self, description: &SecretStorageKey) -> Result<SecretSlice<u8>, &'static str> {
        if description.algorithm != ALGORITHM {
            return Err("has an unknown algorithm");
        }
        let key = match (&self.key, &description.passphrase) {
            (Some(key), _) => key.clone(),
            (None, Some(by)) if by.algorithm == "m.pbkdf2" && by.bits == 256 => {
                derive(&self.text, &by.salt, by.iterations)?
            }
            (None, _) => return Err("has a key without a passphrase"),
        };
        if let (Some(iv), Some(mac)) = (&description.iv, &description.mac) {
            let keys = Keys::new(&key, "").ok_or("has a damaged key description")?;
            let zeros = keys.apply(iv, vec![0; KEY]).ok_or("has a damaged key description")?;
            if !keys.is_authentic(zeros.expose_secret(), mac) {
                return Err("has another key");
            }
        }
        Ok(key)
    }
}

impl StoredSecret {
    /// Decrypts the secret of this name, a key in base64, with the key of this id.
    fn decrypt(&self, name: &str, id: &str, key: &SecretSlice<u8>) -> Result<SecretSlice<u8>, &'static str> {
        let encrypted = self.encrypted.get(id).ok_or("has no such secret")?;
        let encrypted = Encrypted::deserialize(encrypted).map_err(|_| "has a damaged secret")?;
        let keys = Keys::new(key, name).ok_or("has a damaged secret")?;
        let ciphertext = BASE64.decode(encrypted.ciphertext).map_err(|_| "has a damaged secret")?;
        if !keys.is_authentic(&ciphertext, &encrypted.mac) {
            return Err("has a secret that its key does not open");
        }
        let plain = keys.apply(&encrypted.iv, ciphertext).ok_or("has a damaged secret")?;
        let secret = BASE64.decode(plain.expose_secret()).map_err(|_| "has a damaged secret")?;
        Ok(secret.into())
    }
}

/// The two keys of one secret: for AES and for the authentication code.
struct Keys(SecretSlice<u8>);

impl Keys {
    fn new(key: &SecretSlice<u8>, name: &str) -> Option<Self> {
        let mut keys: SecretSlice<u8> = vec![0; 2 * KEY].into();
        let kdf = Hkdf::<Sha256>::new(Some(&[0; KEY]), key.expose_secret());
        kdf.expand(name.as_bytes(), keys.expose_secret_mut()).ok()?;
        Some(Self(keys))
    }

    /// AES-CTR, which encrypts as it decrypts. `None`: the initialisation vector is none.
    fn apply(&self, iv: &str, bytes: Vec<u8>) -> Option<SecretSlice<u8>> {
        let iv = BASE64.decode(iv).ok()?;
        let aes_key = self.0.expose_secret().get(..KEY)?;
        let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new_from_slices(aes_key, &iv).ok()?;
        let mut bytes: SecretSlice<u8> = bytes.into();
        cipher.apply_keystream(bytes.expose_secret_mut());
        Some(bytes)
    }

    fn is_authentic(&self, bytes: &[u8], mac: &str) -> bool {
        let Ok(mac) = BASE64.decode(mac) else { return false };
        let mac_key = self.0.expose_secret().get(KEY..).unwrap_or_default();
        let Ok(mut authentic) = Hmac::<Sha256>::new_from_slice(mac_key) else { return false };
        authentic.update(bytes);
        authentic.verify_slice(&mac).is_ok()
    }
}

/// Derives a key of 32 bytes from a passphrase.
fn derive(passphrase: &SecretString, salt: &str, iterations: u32) -> Result<SecretSlice<u8>, &'static str> {
    if iterations == 0 || iterations > MOST_ROUNDS {
        return Err("asks for no or too many rounds of PBKDF2");
    }
    let mut key: SecretSlice<u8> = vec![0; KEY].into();
    let passphrase = passphrase.expose_secret().as_bytes();
    pbkdf2::pbkdf2::<Hmac<Sha512>>(passphrase, salt.as_bytes(), iterations, key.expose_secret_mut())
        .map_err(|_| "has a damaged key description")?;
    Ok(key)
}

/// A recovery key as clients show it. `None`: it is not one.
fn parse(text: &str) -> Option<SecretSlice<u8>> {
    let packed: SecretString = text.split_whitespace().collect::<String>().into();
    let bytes: SecretSlice<u8> = bs58::decode(packed.expose_secret()).into_vec().ok()?.into();
    let bytes = bytes.expose_secret();
    let parity = bytes.iter().fold(0, |parity, byte| parity ^ byte);
    if bytes.len() != PREFIX.len() + KEY + 1 || !bytes.starts_with(&PREFIX) || parity != 0 {
        return None;
    }
    bytes.get(PREFIX.len()..PREFIX.len() + KEY).map(|key| key.to_vec().into())
}

/// Whether a text that is no recovery key may be meant as one: it has the characters and about the length, and begins as all
/// of them do.
fn looks_like_key(text: &str) -> bool {
    let count = text.chars().filter(|char| !char.is_whitespace()).count();
    let is_plain = text.chars().all(|char| char.is_ascii_alphanumeric() || char.is_whitespace());
    is_plain && (44..=52).contains(&count) && text.trim_start().starts_with("Es")
}

#[cfg(test)]
mod tests;
