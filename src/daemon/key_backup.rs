//! Reads the account's server-side key backup: at start, and when it has changed. Runs beside the loops.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    Error,
    archive::ImportedSessions,
    config::SecretSource,
    context::Context,
    encryption::{
        AccountData, AuthData, BackupKey, BackupPortion, RecoveryKey, SECRET_NAME, SELF_SIGNING,
        SecretStorageKey, StoredSecret,
    },
    matrix::BackupVersion,
};

/// How often it is looked whether the backup has changed: what it brings is to be readable within a minute.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A backup that took long to read is not read again before this many times as long.
const REST: u32 = 10;
/// The only algorithm of a key backup.
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
/// The most keys of secret storage that are tried.
const MOST_KEYS: usize = 8;

/// Runs until shutdown. With `--once`: reads the backup once. A backup that cannot be read ends nothing else.
pub(super) async fn follow(context: &Context, user_id: &str) {
    let Some(source) = &context.config.encryption.recovery_key else { return };
    let mut reader =
        Reader { context, user_id, source, opened: None, tried: None, is_signing_settled: false, said: None };
    while !context.shutdown.is_cancelled() {
        let begun = Instant::now();
        match context.unless_stopped(Box::pin(reader.look())).await {
            None => return,
            Some(Ok(())) => reader.said = None,
            Some(Err(problem)) => reader.warn(problem),
        }
        if context.once {
            return;
        }
        context.pause(LOOK_AGAIN.max(begun.elapsed().saturating_mul(REST))).await;
    }
}

/// What is known of the backup.
struct Reader<'a> {
    context: &'a Context,
    user_id: &'a str,
    source: &'a SecretSource,
    /// The private key, with the `auth_data` and version that it fits.
    opened: Option<(String, Arc<BackupKey>)>,
    /// The hash of what opened nothing, and why: it is not tried again before something of it has changed.
    tried: Option<([u8; 32], String)>,
    /// Whether the archive's own device is signed, or cannot be.
    is_signing_settled: bool,
    /// The last warning.
    said: Option<String>,
}

impl Reader<'_> {
    /// Reads the backup if it has changed, and signs the archive's own device. Errors are in words without any secret.
    async fn look(&mut self) -> Result<(), String> {
        let read = self.read_changed().await;
        // What one of the two cannot do does not keep the other one from it.
        let signed = self.sign_device().await;
        read.and(signed)
    }

    async fn read_changed(&mut self) -> Result<(), String> {
        let version = self.context.client.backup_version().await;
        let Some(version) = version.map_err(request_failed)? else {
            self.opened = None;
            return Err("the account has no key backup: set one up in a client".to_owned());
        };
        let archive = self.context.writer.archive();
        let read = archive.read_backup().await.map_err(|error| Error::from(error).to_string())?;
        if read.is_some_and(|read| read == (version.version.clone(), version.etag.clone())) {
            return Ok(());
        }
        let key = self.open(&version).await?;
        self.read_all(&version, key).await?;
        let noted = self.context.writer.note_backup(&version.version, &version.etag).await;
        noted.map_err(|error| Error::from(error).to_string())
    }

    /// The private key of the backup.
    async fn open(&mut self, version: &BackupVersion) -> Result<Arc<BackupKey>, String> {
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
        let what = if recovery.is_key() { "recovery key" } else { "passphrase" };
        let opened = tokio::task::spawn_blocking(move || recovery.open(&data, &auth)).await;
        let opened = opened.map_err(|error| error.to_string())?;
        match opened {
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

    /// The secret with the backup's key, and the keys that it is encrypted with.
    async fn account_data(&self) -> Result<AccountData, crate::matrix::Error> {
        let client = &self.context.client;
        let Some(secret) = client.account_data(self.user_id, SECRET_NAME).await? else {
            return Ok(AccountData::default());
        };
        let secret: StoredSecret = serde_json::from_str(secret.get()).unwrap_or_default();
        let default = client.account_data(self.user_id, "m.secret_storage.default_key").await?;
        let default = default.and_then(|key| serde_json::from_str::<DefaultKey>(key.get()).ok());
        let mut ids: Vec<String> = secret.encrypted.keys().cloned().collect();
        ids.sort_by_key(|id| default.as_ref().is_none_or(|default| default.key != *id));
        let mut keys = Vec::new();
        for id in ids.into_iter().take(MOST_KEYS) {
            let key = client.account_data(self.user_id, &format!("m.secret_storage.key.{id}")).await?;
            let key = key.and_then(|key| serde_json::from_str::<SecretStorageKey>(key.get()).ok());
            keys.extend(key.map(|key| (id, key)));
        }
        let self_signing = client.account_data(self.user_id, SELF_SIGNING).await?;
        let self_signing = self_signing.and_then(|secret| serde_json::from_str(secret.get()).ok());
        Ok(AccountData { secret, self_signing: self_signing.unwrap_or_default(), keys })
    }

    /// Signs the archive's own device with the account's self-signing key, unless it is signed. Some clients send keys to
    /// signed devices only.
    async fn sign_device(&mut self) -> Result<(), String> {
        let Some(own) = &self.context.own_device else { return Ok(()) };
        if self.is_signing_settled {
            return Ok(());
        }
        let client = &self.context.client;
        let (served, public_key) =
            client.signable_device(self.user_id, &own.device_id).await.map_err(request_failed)?;
        let ours = self.context.writer.archive().device_keys().await;
        let ours = ours.map_err(|error| Error::from(error).to_string())?;
        let (Some(served), Some(public_key), Some(ours)) = (served, public_key, ours) else {
            self.is_signing_settled = true;
            tracing::info!("the account has no cross-signing: Backscroll's device is not signed");
            return Ok(());
        };
        let id = &own.device_id;
        let entry = |object: &str, name: &str| served.get(object).map(|object| object[name].clone());
        let is_ours = |name: &str, key: &str| {
            entry("keys", &format!("{name}:{id}")).is_some_and(|served| served == key)
        };
        if !is_ours("ed25519", &ours.ed25519) || !is_ours("curve25519", &ours.curve25519) {
            return Err("the homeserver has other keys of Backscroll's device than its own".to_owned());
        }
        let signatures = entry("signatures", self.user_id).unwrap_or_default();
        if !signatures[format!("ed25519:{public_key}")].is_null() {
            self.is_signing_settled = true;
            return Ok(());
        }
        let text = self.source.read().map_err(|error| error.to_string())?;
        let data = self.account_data().await.map_err(request_failed)?;
        let opened =
            tokio::task::spawn_blocking(move || RecoveryKey::new(text).self_signing_key(&data)).await;
        let key = opened.map_err(|error| error.to_string())?;
        let signed =
            key.filter(|key| key.public_key() == public_key).and_then(|key| key.sign(self.user_id, &served));
        let Some(signed) = signed else {
            self.is_signing_settled = true;
            tracing::warn!(
                "the recovery key does not give the account's self-signing key: verify Backscroll's device in another \
                 client, or clients that send keys to verified devices only leave it out"
            );
            return Ok(());
        };
        client.upload_signature(self.user_id, id, &signed).await.map_err(request_failed)?;
        self.is_signing_settled = true;
        tracing::info!(device.id = id, "signed Backscroll's device with the account's self-signing key");
        Ok(())
    }

    /// Reads all sessions, and stores each part before the next is decrypted.
    async fn read_all(&self, version: &BackupVersion, key: Arc<BackupKey>) -> Result<(), String> {
        let backup = self.context.client.key_backup(&version.version).await;
        let mut backup = backup.map_err(request_failed)?;
        let mut unreadable: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut whole = ImportedSessions::default();
        while let Some(part) = backup.next().await.map_err(request_failed)? {
            let key = Arc::clone(&key);
            let portion = tokio::task::spawn_blocking(move || BackupPortion::read(&part, &key)).await;
            let portion = portion.map_err(|error| error.to_string())?;
            for (reason, count) in portion.unreadable {
                *unreadable.entry(reason).or_default() += count;
            }
            let archive = self.context.writer.archive();
            let imported = archive.import_sessions(portion.sessions).await;
            let imported = imported.map_err(|error| Error::from(error).to_string())?;
            if imported.queued > 0 {
                self.context.sessions_queued.notify_one();
            }
            whole += imported;
        }
        for (reason, count) in unreadable {
            tracing::warn!(count, "the key backup has entries {reason}; they were left out");
        }
        tracing::info!(
            version = version.version,
            new = whole.new,
            better = whole.better,
            known = whole.known,
            refused = whole.refused,
            of_erased_rooms = whole.erased,
            "read the key backup"
        );
        Ok(())
    }

    /// Says a problem once.
    fn warn(&mut self, problem: String) {
        if self.said.as_ref() != Some(&problem) {
            tracing::warn!("the recovery key was not used; trying again soon: {problem}");
            self.said = Some(problem);
        }
    }
}

/// A failed request in words.
fn request_failed(error: crate::matrix::Error) -> String {
    Error::from(error).to_string()
}

/// `m.secret_storage.default_key`
#[derive(Deserialize)]
struct DefaultKey {
    key: String,
}
