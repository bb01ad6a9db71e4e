//! The keys of devices on the homeserver (specification, "Key management API").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

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
