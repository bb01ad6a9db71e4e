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
        AccountData, AuthData, BackupKey, BackupPortion, Origin, RecoveryKey, SECRET_NAME, SecretStorageKey,
        StoredSecret,
    },
    matrix::BackupVersion,
};

/// How often it is looked whether the backup has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// A backup that took long to read is not read again before this many times as long.
const REST: u32 = 10;
/// The only algorithm of a key backup.
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
/// The most keys of secret storage that are tried.
const MOST_KEYS: usize = 8;

/// Runs until shutdown. With `--once`: reads the backup once. A backup that cannot be read ends nothing else.
pub(super) async fn follow(context: &Context, user_id: &str) {
    let Some(source) = &context.config.encryption.recovery_key else { return };
    let mut reader = Reader { context, user_id, source, opened: None, tried: None, read: None, said: None };
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
    /// The version and etag that were read completely.
    read: Option<(String, String)>,
    /// The last warning.
    said: Option<String>,
}

impl Reader<'_> {
    /// Reads the backup if it has changed. Errors are in words without any secret.
    async fn look(&mut self) -> Result<(), String> {
        let version = self.context.client.backup_version().await;
        let Some(version) = version.map_err(request_failed)? else {
            self.opened = None;
            self.read = None;
            return Err("the account has no key backup: set one up in a client".to_owned());
        };
        if self.read.as_ref() == Some(&(version.version.clone(), version.etag.clone())) {
            return Ok(());
        }
        let key = self.open(&version).await?;
        self.read_all(&version, key).await?;
        self.read = Some((version.version, version.etag));
        Ok(())
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
        Ok(AccountData { secret, keys })
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
            let imported = archive.import_sessions(portion.sessions, Origin::Backup).await;
            let imported = imported.map_err(|error| Error::from(error).to_string())?;
            whole.new += imported.new;
            whole.better += imported.better;
            whole.known += imported.known;
        }
        for (reason, count) in unreadable {
            tracing::warn!(count, "the key backup has entries {reason}; they were left out");
        }
        tracing::info!(
            version = version.version,
            new = whole.new,
            better = whole.better,
            known = whole.known,
            "read the key backup"
        );
        Ok(())
    }

    /// Says a problem once.
    fn warn(&mut self, problem: String) {
        if self.said.as_ref() != Some(&problem) {
            tracing::warn!("the key backup was not read; it is looked at again every minute: {problem}");
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
