//! The one writer of a database.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
use tokio::sync::Mutex;

use super::{Archive, Error, Policy, inspect};

/// Names Backscroll's session lock among the advisory locks of a database.
pub(super) const WRITER_LOCK: i64 = 0x6261_636b_7363_726f;
/// How often the lock is tried before its holder counts as alive, and the pause after each try.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// First half of the key of a room's transaction lock; the second is the room's key.
const ROOM_LOCK: i32 = 0x6261_636b;

/// Proof of being the only writer of the database: functions that write take it. The lock is a session's, so it ends
/// with the process, however that ends.
#[derive(Debug)]
pub struct Writer {
    archive: Archive,
    policy: Policy,
    session: Mutex<PgConnection>,
}

impl Archive {
    /// Becomes the database's writer.
    ///
    /// # Errors
    /// [`Error::AnotherWriter`] if there is one: after a second, within which the server will have noticed the end of a
    /// writer that was killed.
    pub async fn writer(&self, policy: Policy) -> Result<Writer, Error> {
        let session = self.lock_session().await?;
        Ok(Writer { archive: self.clone(), policy, session: Mutex::new(session) })
    }

    async fn lock_session(&self) -> Result<PgConnection, Error> {
        let mut session = PgConnection::connect_with(&self.pool.connect_options()).await?;
        for _ in 0..LOCK_TRIES {
            let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, WRITER_LOCK)
                .fetch_one(&mut session)
                .await?;
            if locked {
                return Ok(session);
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let holder = inspect::writer(&mut session).await?;
        let (pid, since) = holder.unwrap_or((0, "just now".to_owned()));
        Err(Error::AnotherWriter { pid, since })
    }
}

impl Writer {
    /// The archive, for reading.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// Makes sure that the lock is still held; to be called after an error of the database, which may have ended the
    /// session. Between the loss and this call the checkpoints' compare-and-set keeps a second writer out.
    pub async fn keep_lock(&self) -> Result<(), Error> {
        let mut session = self.session.lock().await;
        if session.ping().await.is_err() {
            *session = self.archive.lock_session().await?;
        }
        Ok(())
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.archive.pool.begin().await?)
    }

    /// Begins a transaction for a page, with the [room's lock](lock_room), in one exchange with the server. A crash may
    /// lose one that was committed, but never one before it: what it held is fetched again, because its checkpoint is lost
    /// with it.
    pub(super) async fn begin_in_room(&self, room_key: i32) -> Result<Transaction<'static, Postgres>, Error> {
        let begin = format!(
            "begin; set local synchronous_commit = off; select pg_advisory_xact_lock({ROOM_LOCK}, {room_key})"
        );
        // Two numbers make it up.
        Ok(self.archive.pool.begin_with(AssertSqlSafe(begin)).await?)
    }
}

/// Makes the transaction the only one at work in the room. Without it, a redaction in one transaction and its target
/// in another would miss each other (P154). Several rooms must be locked in ascending order.
pub(super) async fn lock_room(connection: &mut PgConnection, room_key: i32) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock($1, $2)", ROOM_LOCK, room_key).execute(connection).await?;
    Ok(())
}
