//! The keys of devices on the homeserver (specification, "Key management API").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Client, Error};

impl Client {
    /// The keys that the homeserver has of a device: of each, its value by its name, such as `ed25519:DEVICE`. `None`: it
    /// has none.
    pub(crate) async fn device_keys(
        &self,
        user_id: &str,
        device_id: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            device_keys: BTreeMap<String, BTreeMap<String, Device>>,
        }
        #[derive(Deserialize)]
        struct Device {
            keys: BTreeMap<String, String>,
        }
        let body = json!({ "device_keys": { user_id: [device_id] } });
        let mut answer: Answer = self.post_as_user("/keys/query", &["v3", "keys", "query"], &body).await?;
        let devices = answer.device_keys.remove(user_id);
        Ok(devices.and_then(|mut devices| devices.remove(device_id)).map(|device| device.keys))
    }

    /// The keys of a device as the homeserver has them, and the public self-signing key of its user's cross-signing. `None`:
    /// there are none.
    pub(crate) async fn signable_device(
        &self,
        user_id: &str,
        device_id: &str,
    ) -> Result<(Option<Map<String, Value>>, Option<String>), Error> {
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
        let device = devices.and_then(|mut devices| devices.remove(device_id));
        let key = answer.self_signing_keys.remove(user_id).and_then(|key| key.keys.into_values().next());
        Ok((device, key))
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

    /// Publishes keys of the token's device. Returns how many one-time keys the homeserver has then.
    pub(crate) async fn upload_keys(&self, body: &Value) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Answer {
            one_time_key_counts: BTreeMap<String, u64>,
        }
        let answer: Answer = self.post_as_user("/keys/upload", &["v3", "keys", "upload"], body).await?;
        Ok(answer.one_time_key_counts.get("signed_curve25519").copied().unwrap_or_default())
    }
}
