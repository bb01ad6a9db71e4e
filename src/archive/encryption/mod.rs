//! Sessions of encrypted rooms, and what their messages say.
//!
//! Sessions come by [`Archive::import_sessions`], and from other devices by `device::receive`. Which messages are to be decrypted is in `archive.decryption_queue`:
//! new sessions and new messages queue their session. `daemon/decrypt.rs` empties the queue behind the writer; live
//! messages are decrypted in the transaction that stores them, before listeners are told of them.

pub(super) mod decrypt;
pub(super) mod device;
mod erase;
mod sessions;

pub(super) use self::erase::{erase_unneeded, forget_user, sessions_of_user};
pub(crate) use self::{
    decrypt::QueuedSessions,
    device::{OwnDevice, PublicKeys, wrong_device_key},
    sessions::ImportedSessions,
};

use super::{Archive, Error, Writer, writer::lock_rooms};

/// How many events of a room [`Archive::wanted_sessions`] looks at.
const LATELY: i64 = 200;

/// How much of the encrypted messages can be read.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct EncryptionStatus {
    /// Keys of sessions.
    pub(crate) session_keys: i64,
    /// Sessions with messages that were not looked at yet.
    pub(crate) queued: i64,
    /// The age of the one that has waited longest, in seconds.
    pub(crate) oldest_s: Option<f64>,
    /// Encrypted messages that were not redacted.
    pub(crate) encrypted: i64,
    /// Those of them that were decrypted.
    pub(crate) readable: i64,
    /// The archive's own device, if it has one.
    pub(crate) device_id: Option<String>,
    /// How many of its one-time keys the homeserver had left when it last said so.
    pub(crate) one_time_keys: Option<i64>,
    /// How long ago the key backup was last read to its end, in seconds.
    pub(crate) backup_read_ago_s: Option<f64>,
    /// Why the key backup could not be read when that was last tried.
    pub(crate) backup_problem: Option<String>,
}

impl EncryptionStatus {
    /// How many encrypted messages cannot be read.
    pub(crate) fn undecryptable(&self) -> i64 {
        self.encrypted.saturating_sub(self.readable).max(0)
    }
}

impl Archive {
    /// How much of the encrypted messages can be read. Counts them by indexes that only they are in.
    pub(crate) async fn encryption_status(&self) -> Result<EncryptionStatus, Error> {
        let status = sqlx::query_as!(
            EncryptionStatus,
            r#"select (select count(*) from archive.megolm_sessions) as "session_keys!",
                      (select count(*) from archive.decryption_queue q
                       where exists (select from archive.rooms r where r.room_id = q.room_id)) as "queued!",
                      (select extract(epoch from now() - min(q.queued_at))::float8 from archive.decryption_queue q
                       where exists (select from archive.rooms r where r.room_id = q.room_id)) as oldest_s,
                      (select count(*) from archive.events e
                       where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
                         and e.content -> 'ciphertext' is not null) as "encrypted!",
                      (select count(*) from archive.decrypted_events where state = 'ok') as "readable!",
                      (select device_id from archive.devices) as device_id,
                      (select one_time_keys from archive.devices) as one_time_keys,
                      (select extract(epoch from now() - backup_read_at)::float8
                       from archive.encryption_settings) as backup_read_ago_s,
                      (select backup_problem from archive.encryption_settings) as backup_problem"#
        );
        Ok(status.fetch_one(&self.pool).await?)
    }
}

impl Archive {
    /// The version and etag of the key backup that was last read to its end.
    pub(crate) async fn read_backup(&self) -> Result<Option<(String, String)>, Error> {
        let read = sqlx::query!("select backup_version, backup_etag from archive.encryption_settings");
        let read = read.fetch_one(&self.pool).await?;
        Ok(read.backup_version.zip(read.backup_etag))
    }

    /// Sessions whose keys are wanted for messages that came lately, the newest first: their rooms and ids. It looks at the
    /// last [`LATELY`] events of each encrypted room.
    pub(crate) async fn wanted_sessions(&self, limit: i64) -> Result<Vec<(String, String)>, Error> {
        let wanted = sqlx::query!(
            r#"select e.room_id, e.session_id as "session_id!"
               from archive.current_state s
               cross join lateral (
                   select e.room_id, e.event_id, e.received_at, archive.megolm_session(e.content) as session_id
                   from (select * from archive.events e where e.room_id = s.room_id
                         order by e.position desc limit $2) e
                   where e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
                     and e.content -> 'ciphertext' is not null) e
               left join archive.decrypted_events d on d.room_id = e.room_id and d.event_id = e.event_id
               where s.type = 'm.room.encryption' and s.state_key = ''
                 and (d.state is null or d.state = 'no key') and e.session_id is not null
               group by e.room_id, e.session_id order by max(e.received_at) desc, e.room_id, e.session_id limit $1"#,
            limit,
            LATELY
        );
        let wanted = wanted.fetch_all(&self.pool).await?;
        Ok(wanted.into_iter().map(|row| (row.room_id, row.session_id)).collect())
    }
}

impl Writer {
    /// Notes that a key backup was read to its end.
    pub(crate) async fn note_backup(&self, version: &str, etag: &str) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.encryption_settings
             set backup_version = $1, backup_etag = $2, backup_read_at = now()",
            version,
            etag
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Notes why the key backup cannot be read; `None`: it can, or none is to be read. Never with a secret.
    pub(crate) async fn note_backup_problem(&self, problem: Option<&str>) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.encryption_settings set backup_problem = $1 where backup_problem is distinct from $1",
            problem
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Applies `encryption.keep_plaintext` to what is stored. Returns whether it has changed.
    pub(crate) async fn keep_plaintext(&self, wanted: bool) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let changed = sqlx::query!(
            "update archive.encryption_settings set keep_plaintext = $1 where keep_plaintext <> $1",
            wanted
        )
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 0 {
            transaction.undo(None).await;
            return Ok(false);
        }
        let rooms = sqlx::query_scalar!(
            "select d.room_id from archive.decrypted_events d where d.state = 'ok' group by d.room_id order by d.room_id"
        )
        .fetch_all(&mut *transaction)
        .await?;
        lock_rooms(&mut transaction, &rooms.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        for room_id in rooms {
            sqlx::query!("select archive.keep_plaintext($1, $2)", room_id, wanted)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}
