//! The keys of devices on the homeserver (specification, "Key management API").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Client, Error};

/// What the homeserver has of a device's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServedDevice {
    /// The object that the device has published, with its signatures. `None`: it has published none.
    pub(crate) object: Option<Map<String, Value>>,
    /// The public self-signing key of the user's cross-signing. `None`: the user has none.
    pub(crate) self_signing_key: Option<String>,
}

impl ServedDevice {
    /// The device's public key of an algorithm, such as `ed25519`.
    pub(crate) fn key(&self, algorithm: &str, device_id: &str) -> Option<&str> {
        self.object.as_ref()?.get("keys")?.get(format!("{algorithm}:{device_id}"))?.as_str()
    }

    /// Whether the user's self-signing key is said to have signed the device.
    pub(crate) fn is_signed_by(&self, user_id: &str, public_key: &str) -> bool {
        let signatures = self.object.as_ref().and_then(|object| object.get("signatures")?.get(user_id));
        signatures.and_then(|signatures| signatures.get(format!("ed25519:{public_key}"))).is_some()
    }
}

impl Client {
    /// What the homeserver has of a device's keys.
    pub(crate) async fn served_device(&self, user_id: &str, device_id: &str) -> Result<ServedDevice, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            device_keys: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
            #[serde(default)]
            self_signing_keys: BTreeMap<String, CrossSigningKey>,
        }
        #[derive(Deserialize)]
        struct CrossSigningKey {
            keys: BTreeMap<String, String>,
        }
        let body = json!({ "device_keys": { user_id: [device_id] } });
        let mut answer: Answer = self.post_as_user("/keys/query", &["v3", "keys", "query"], &body).await?;
        let devices = answer.device_keys.remove(user_id);
        let key = answer.self_signing_keys.remove(user_id).and_then(|key| key.keys.into_values().next());
        Ok(ServedDevice {
            object: devices.and_then(|mut devices| devices.remove(device_id)),
            self_signing_key: key,
        })
    }

    /// Publishes the signature of a device's keys.
    pub(crate) async fn upload_signature(
        &self,
        user_id: &str,
        device_id: &str,
        signed: &Value,
    ) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            failures: Map<String, Value>,
        }
        const WHAT: &str = "/keys/signatures/upload";
        let body = json!({ user_id: { device_id: signed } });
        let answer: Answer = self.post_as_user(WHAT, &["v3", "keys", "signatures", "upload"], &body).await?;
        if answer.failures.is_empty() {
            return Ok(());
        }
        Err(Error::Malformed(
            "/keys/signatures/upload: the homeserver does not take the signature".to_owned(),
        ))
    }

    /// Publishes keys of the token's device.
    pub(crate) async fn upload_keys(&self, body: &Value) -> Result<(), Error> {
        let _: Map<String, Value> =
            self.post_as_user("/keys/upload", &["v3", "keys", "upload"], body).await?;
        Ok(())
    }
}
