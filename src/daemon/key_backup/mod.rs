//! Reads the account's server-side key backup: at start, and when it has changed. Runs beside the loops.

mod open;
mod sign;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::open::Opener;
use crate::{
    Error,
    archive::ImportedSessions,
    config::SecretSource,
    context::Context,
    encryption::{BackupKey, BackupPortion},
    matrix::BackupVersion,
};

/// How often it is looked whether the backup has changed: what it brings is to be readable within a minute.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A backup that took long to read is not read as a whole again before this many times as long. Meanwhile sessions that
/// are wanted are asked for one by one.
const REST: u32 = 10;
/// How many sessions are asked for in one look.
const MOST_WANTED: i64 = 50;

/// Runs until shutdown. With `--once`: reads the backup once. A backup that cannot be read ends nothing else.
pub(super) async fn follow(context: &Context, user_id: &str) {
    let Some(source) = &context.config.encryption.recovery_key else {
        note_problem(context, None).await;
        return;
    };
    let mut reader = Reader::new(context, user_id, source);
    while !context.shutdown.is_cancelled() {
        let Some(looked) = context.unless_stopped(Box::pin(reader.look())).await else { return };
        reader.note(looked).await;
        if context.once {
            return;
        }
        context.pause(LOOK_AGAIN).await;
    }
}

/// What is known of the backup.
struct Reader<'a> {
    context: &'a Context,
    user_id: &'a str,
    opener: Opener<'a>,
    /// When the backup may be read as a whole again. `None`: at once.
    rests_until: Option<Instant>,
    /// The backup's `etag`, and which sessions were asked for since it had that.
    asked: (String, BTreeSet<(String, String)>),
    /// When it is looked again whether the archive's own device can be signed. `None`: at once.
    signs_at: Option<Instant>,
    /// What was last noted. `None`: nothing yet.
    noted: Option<Result<(), String>>,
}

impl<'a> Reader<'a> {
    fn new(context: &'a Context, user_id: &'a str, source: &'a SecretSource) -> Self {
        Self {
            context,
            user_id,
            opener: Opener::new(&context.client, user_id, source),
            rests_until: None,
            asked: Default::default(),
            signs_at: None,
            noted: None,
        }
    }

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
            return Err("the account has no key backup: set one up in a client".to_owned());
        };
        let archive = self.context.writer.archive();
        let read = archive.read_backup().await.map_err(|error| Error::from(error).to_string())?;
        if read.is_some_and(|read| read == (version.version.clone(), version.etag.clone())) {
            return Ok(());
        }
        let key = self.opener.open(&version).await?;
        let begun = Instant::now();
        if self.rests_until.is_some_and(|until| begun < until) {
            return self.read_wanted(&version, key).await;
        }
        let read = self.read_all(&version, key).await;
        self.rests_until =
            begun.elapsed().checked_mul(REST).and_then(|rest| Instant::now().checked_add(rest));
        read?;
        let noted = self.context.writer.note_backup(&version.version, &version.etag).await;
        noted.map_err(|error| Error::from(error).to_string())
    }

    /// Asks for the sessions of new messages that cannot be read.
    async fn read_wanted(&mut self, version: &BackupVersion, key: Arc<BackupKey>) -> Result<(), String> {
        if self.asked.0 != version.etag {
            self.asked = (version.etag.clone(), BTreeSet::new());
        }
        let wanted = self.context.writer.archive().wanted_sessions(MOST_WANTED).await;
        let mut wanted = wanted.map_err(|error| Error::from(error).to_string())?;
        wanted.retain(|name| !self.asked.1.contains(name));
        let mut portion = BackupPortion::default();
        let (mut answered, mut failed) = (Vec::new(), Ok(()));
        for (room_id, session_id) in wanted {
            let client = &self.context.client;
            match client.backed_up_session(&version.version, &room_id, &session_id).await {
                Ok(Some(entry)) => portion.read_entry(&room_id, session_id.clone(), &entry, &key),
                Ok(None) => {}
                // What came before it is of use.
                Err(error) => {
                    failed = Err(request_failed(error));
                    break;
                }
            }
            answered.push((room_id, session_id));
        }
        if !portion.sessions.is_empty() {
            let imported = self.import(portion).await?;
            tracing::info!(
                new = imported.new,
                better = imported.better,
                "read wanted keys from the key backup"
            );
        }
        self.asked.1.extend(answered);
        failed
    }

    /// Stores sessions, and lets them decrypt what waits for them.
    async fn import(&self, portion: BackupPortion) -> Result<ImportedSessions, String> {
        let imported = self.context.writer.archive().import_sessions(portion.sessions).await;
        let imported = imported.map_err(|error| Error::from(error).to_string())?;
        if imported.queued > 0 {
            self.context.sessions_queued.notify_one();
        }
        Ok(imported)
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
            for (reason, count) in &portion.unreadable {
                *unreadable.entry(reason).or_default() += count;
            }
            whole += self.import(portion).await?;
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

    /// Says and notes a problem, or that there is none, if that is new.
    async fn note(&mut self, looked: Result<(), String>) {
        if self.noted.as_ref() == Some(&looked) {
            return;
        }
        let problem = looked.as_ref().err();
        if let Some(problem) = problem {
            tracing::warn!("the recovery key was not used; trying again soon: {problem}");
        }
        note_problem(self.context, problem.map(String::as_str)).await;
        self.noted = Some(looked);
    }
}

/// Notes a problem for `status` and the metrics.
async fn note_problem(context: &Context, problem: Option<&str>) {
    if let Some(Err(error)) = context.unless_stopped(context.writer.note_backup_problem(problem)).await {
        tracing::debug!(%error, "failed to note whether the key backup can be read");
    }
}

/// A failed request in words.
fn request_failed(error: crate::matrix::Error) -> String {
    Error::from(error).to_string()
}
