//! Decrypts messages behind the writer, and reads the key files of the configuration. Runs beside the loops.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Error,
    archive::{self, ImportedSessions, QueuedSessions},
    context::Context,
    encryption::KeyFile,
};

/// How often the queue is looked at. It is empty unless `keys import` has brought keys, or a backfill encrypted messages.
/// New messages are not in it.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// How often it is looked whether a key file has changed.
const FILES_AGAIN: Duration = Duration::from_secs(60);
/// How many messages are decrypted and stored together: some 50 ms of work.
const MESSAGES: i64 = 500;

/// Runs until shutdown. With `--once`: until `loops_ended` resolves and nothing is queued. What cannot be decrypted ends
/// nothing else.
///
/// # Errors
/// Another Backscroll has become the writer.
pub(super) async fn decrypt(context: &Context, loops_ended: impl Future<Output = ()>) -> Result<(), Error> {
    begin(context).await?;
    let mut files = Files::default();
    let mut loops_ended = std::pin::pin!(loops_ended);
    let mut is_last = false;
    while !context.shutdown.is_cancelled() {
        files.read_changed(context).await;
        let archive = context.writer.archive();
        let next = context.retry(async || Ok(archive.queued_sessions().await?)).await?;
        let Some(next) = next.flatten() else {
            if is_last {
                return Ok(());
            }
            tokio::select! {
                () = context.shutdown.cancelled() => {}
                () = &mut loops_ended => is_last = true,
                () = context.sessions_queued.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            continue;
        };
        let begun = Instant::now();
        decrypt_next(context, &next).await?;
        // Pause as long as the work took, to leave the database and a processor to the loops.
        if !is_last {
            context.pause(begun.elapsed()).await;
        }
    }
    Ok(())
}

/// Applies the setting that what is stored follows, and queues what an import or a restore has left.
async fn begin(context: &Context) -> Result<(), Error> {
    let keep = context.config.encryption.keep_plaintext;
    let changed = context.retry(async || Ok(context.writer.keep_plaintext(keep).await?)).await?;
    if changed == Some(true) {
        tracing::info!(keep_plaintext = keep, "encryption.keep_plaintext has changed and was applied");
    }
    context.retry(async || Ok(context.writer.queue_undecrypted().await?)).await?;
    Ok(())
}

async fn decrypt_next(context: &Context, next: &QueuedSessions) -> Result<(), Error> {
    match context.unless_stopped(context.writer.decrypt(next, MESSAGES)).await {
        None => {}
        Some(Ok(decrypted)) => {
            tracing::debug!(event_count = decrypted.events, readable = decrypted.readable, "decrypted");
            if decrypted.readable > 0 {
                // The search looks at them, and at messages that they edit.
                context.messages_decrypted.notify_one();
                context.messages_stored.notify_one();
            }
        }
        Some(Err(error @ archive::Error::LeaseTaken { .. })) => return Err(error.into()),
        Some(Err(error)) => {
            tracing::error!(%error, "some messages cannot be decrypted now; they are put off");
            context.writer.failed(&error);
            if let Err(error) = context.writer.put_off_decryption(next).await {
                tracing::debug!(%error, "failed to put off decrypting");
            }
        }
    }
    Ok(())
}

/// The key files of the configuration, as they were when they were last read.
#[derive(Default)]
struct Files {
    read: HashMap<PathBuf, Option<SystemTime>>,
    looked: Option<Instant>,
}

impl Files {
    /// Imports those that are new or have changed.
    async fn read_changed(&mut self, context: &Context) {
        if self.looked.is_some_and(|looked| looked.elapsed() < FILES_AGAIN) {
            return;
        }
        self.looked = Some(Instant::now());
        for path in &context.config.encryption.key_files {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            if self.read.get(path) == Some(&modified) {
                continue;
            }
            self.read.insert(path.clone(), modified);
            // A file that cannot be read is reported once, and again when it has changed.
            match import(context, path).await {
                Ok(Some(imported)) => tracing::info!(
                    path = %path.display(), new = imported.new, better = imported.better, known = imported.known,
                    "imported a key file"
                ),
                Ok(None) => {}
                Err(Failure::File(problem)) => {
                    tracing::warn!(path = %path.display(), "a key file was not imported: {problem}");
                }
                Err(Failure::Archive(error)) => {
                    tracing::warn!(path = %path.display(), %error, "a key file was not imported; trying again");
                    self.read.remove(path);
                }
            }
        }
    }
}

enum Failure {
    File(String),
    Archive(archive::Error),
}

async fn import(context: &Context, path: &Path) -> Result<Option<ImportedSessions>, Failure> {
    let Some(source) = &context.config.encryption.passphrase else { return Ok(None) };
    let passphrase = source.read().map_err(|error| Failure::File(error.to_string()))?;
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || KeyFile::open(&owned, &passphrase)).await;
    let file = read.map_err(|error| Failure::File(error.to_string()))?;
    let file = file.map_err(|error| Failure::File(error.to_string()))?;
    for (reason, count) in &file.unreadable {
        tracing::warn!(path = %path.display(), count, "a key file has entries {reason}; they were left out");
    }
    let archive = context.writer.archive();
    let imported = context.unless_stopped(archive.import_sessions(file.sessions)).await;
    imported.transpose().map_err(Failure::Archive)
}
