//! What the recovery key opens: the private key of the backup, and the account's self-signing key.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::request_failed;
use crate::{
    config::SecretSource,
    encryption::{
        AccountData, AuthData, BackupKey, RecoveryKey, SECRET_NAME, SELF_SIGNING, SecretStorageKey,
        SelfSigningKey, StoredSecret,
    },
    matrix::{self, BackupVersion, Client},
};

/// The only algorithm of a key backup.
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
/// The most keys of secret storage that are tried.
const MOST_KEYS: usize = 8;

/// Opens with the recovery key what the homeserver has of an account.
pub(crate) struct Opener<'a> {
    client: &'a Client,
    user_id: &'a str,
    source: &'a SecretSource,
    /// The backup's private key, with the version and `auth_data` that it fits.
    opened: Option<(String, Arc<BackupKey>)>,
    /// The hash of what opened nothing, and why: it is not tried again before something of it has changed.
    tried: Option<([u8; 32], String)>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(client: &'a Client, user_id: &'a str, source: &'a SecretSource) -> Self {
        Self { client, user_id, source, opened: None, tried: None }
    }

    /// The private key of a version of the backup.
    ///
    /// # Errors
    /// Why it cannot be opened, in words without any secret.
    pub(crate) async fn open(&mut self, version: &BackupVersion) -> Result<Arc<BackupKey>, String> {
        let name = format!("{} {}", version.version, version.auth_data);
        if let Some((of, key)) = &self.opened
            && *of == name
        {
            return Ok(Arc::clone(key));
        }
        self.opened = None;
        if version.algorithm != ALGORITHM {
            return Err("the key backup has an unknown algorithm".to_owned());
        }
        let auth: AuthData = serde_json::from_str(version.auth_data.get())
            .map_err(|_| "the key backup's auth_data lacks a public key".to_owned())?;
        let text = self.source.read().map_err(|error| error.to_string())?;
        let data = self.account_data().await.map_err(request_failed)?;
        let mut hash = Sha256::new();
        hash.update(format!("{name} {data:?} "));
        hash.update(text.expose_secret());
        let hash: [u8; 32] = hash.finalize().into();
        if let Some((of, problem)) = &self.tried
            && *of == hash
        {
            return Err(problem.clone());
        }
        let recovery = RecoveryKey::new(text);
        let what = recovery.describe();
        let opened = tokio::task::spawn_blocking(move || recovery.open(&data, &auth)).await;
        match opened.map_err(|error| error.to_string())? {
            Ok(key) => {
                let key = Arc::new(key);
                self.opened = Some((name, Arc::clone(&key)));
                Ok(key)
            }
            Err(tried) => {
                let problem = format!(
                    "the {what} does not open it ({tried}): write the account's present recovery key into the file"
                );
                self.tried = Some((hash, problem.clone()));
                Err(problem)
            }
        }
    }

    /// The private self-signing key. `None`: secret storage does not give it.
    pub(super) async fn self_signing_key(&self) -> Result<Option<SelfSigningKey>, String> {
        let text = self.source.read().map_err(|error| error.to_string())?;
        let data = self.account_data().await.map_err(request_failed)?;
        let opened =
            tokio::task::spawn_blocking(move || RecoveryKey::new(text).self_signing_key(&data)).await;
        opened.map_err(|error| error.to_string())
    }

    /// The secrets that matter here, and the keys that they are encrypted with.
    async fn account_data(&self) -> Result<AccountData, matrix::Error> {
        let Some(secret) = self.client.account_data(self.user_id, SECRET_NAME).await? else {
            return Ok(AccountData::default());
        };
        let secret: StoredSecret = serde_json::from_str(secret.get()).unwrap_or_default();
        let default = self.client.account_data(self.user_id, "m.secret_storage.default_key").await?;
        let default = default.and_then(|key| serde_json::from_str::<DefaultKey>(key.get()).ok());
        let mut ids: Vec<String> = secret.encrypted.keys().cloned().collect();
        ids.sort_by_key(|id| default.as_ref().is_none_or(|default| default.key != *id));
        let mut keys = Vec::new();
        for id in ids.into_iter().take(MOST_KEYS) {
            let key = self.client.account_data(self.user_id, &format!("m.secret_storage.key.{id}")).await?;
            let key = key.and_then(|key| serde_json::from_str::<SecretStorageKey>(key.get()).ok());
            keys.extend(key.map(|key| (id, key)));
        }
        let self_signing = self.client.account_data(self.user_id, SELF_SIGNING).await?;
        let self_signing = self_signing.and_then(|secret| serde_json::from_str(secret.get()).ok());
        Ok(AccountData { secret, self_signing: self_signing.unwrap_or_default(), keys })
    }
}

/// `m.secret_storage.default_key`
#[derive(Deserialize)]
struct DefaultKey {
    key: String,
}
