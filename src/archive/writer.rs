//! The one writer of a database.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::Mutex;

use super::{Archive, Error, FRESH, Policy, inspect};

/// Names Backscroll's session lock among the advisory locks of a database.
pub(super) const WRITER_LOCK: i64 = 0x6261_636b_7363_726f;
/// How often the lock is tried before its holder counts as alive, and the pause after each try.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Within what time the session that holds the lock must answer.
const PING: Duration = Duration::from_secs(5);
/// First half of the key of a room's transaction lock; the second is the room's key, or [`ALL`] for all rooms at once.
const ROOM_LOCK: i32 = 0x6261_636b;
/// No room has this key. Shared by who locks a single room.
const ALL: i32 = 0;
/// More rooms than these are locked as all: a lock takes room in a table that all sessions share.
const MANY: usize = 500;

/// Proof of being the only writer of the database: functions that write take it. The lock is a session's, so it ends
/// with the process, however that ends.
#[derive(Debug)]
pub struct Writer {
    archive: Archive,
    policy: Policy,
    session: Mutex<Session>,
    page_connections: PageConnections,
}

/// The session that holds the lock.
#[derive(Debug)]
struct Session {
    connection: PgConnection,
    /// Its server process.
    holder: Option<Holder>,
}

/// The server process that holds the lock: its id, and when it began.
pub(super) type Holder = (i32, String);

impl Archive {
    /// Becomes the database's writer.
    ///
    /// # Errors
    /// [`Error::AnotherWriter`] if there is one: after a second, within which the server will have noticed the end of a
    /// writer that was killed.
    pub async fn writer(&self, policy: Policy) -> Result<Writer, Error> {
        let session = self.lock_session(None).await?;
        Ok(Writer {
            archive: self.clone(),
            policy,
            session: Mutex::new(session),
            page_connections: PageConnections::default(),
        })
    }

    /// `lost`: the process that held the lock for us over a connection that is no more. It may not have noticed, and is ended
    /// then: a firewall that forgets a connection tells neither side.
    async fn lock_session(&self, lost: Option<&Holder>) -> Result<Session, Error> {
        let mut connection = PgConnection::connect_with(&self.pool.connect_options()).await?;
        for _ in 0..LOCK_TRIES {
            let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "locked!""#, WRITER_LOCK)
                .fetch_one(&mut connection)
                .await?;
            let holder = inspect::writer(&mut connection).await?;
            if locked {
                return Ok(Session { connection, holder });
            }
            if let Some((pid, _)) = holder.as_ref().filter(|holder| Some(*holder) == lost) {
                tracing::warn!(
                    pid,
                    "ending the database session that held the lock for this daemon and was cut off"
                );
                sqlx::query!("select pg_terminate_backend($1)", pid).fetch_one(&mut connection).await?;
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let holder = inspect::writer(&mut connection).await?;
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
        if !answers(&mut session.connection).await {
            *session = self.archive.lock_session(session.holder.as_ref()).await?;
        }
        Ok(())
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.archive.pool.begin().await?)
    }

    /// A connection to store a page over, to be [kept](Self::keep_page_connection) after its transaction has been committed.
    pub(super) async fn page_connection(&self) -> Result<PgConnection, Error> {
        self.page_connections.take(&self.archive.pool).await
    }

    pub(super) fn keep_page_connection(&self, connection: PgConnection) {
        self.page_connections.keep(connection);
    }
}

/// Connections of their own for the pages, as many as are stored at once. The one that was used last is taken first: its
/// server process has at hand what the next page needs, and so have the processor's caches. The pool would give one after
/// the other, each tested as it comes back.
#[derive(Debug, Default)]
struct PageConnections(std::sync::Mutex<Vec<(PgConnection, Instant)>>);

impl PageConnections {
    async fn take(&self, pool: &PgPool) -> Result<PgConnection, Error> {
        while let Some((mut connection, used)) = self.pop() {
            if used.elapsed() <= FRESH || answers(&mut connection).await {
                return Ok(connection);
            }
        }
        Ok(pool.acquire().await?.detach())
    }

    fn keep(&self, connection: PgConnection) {
        self.kept().push((connection, Instant::now()));
    }

    fn pop(&self) -> Option<(PgConnection, Instant)> {
        self.kept().pop()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a connection, and with it at once the transaction that has failed on it, which holds a room's lock: sqlx would undo
/// that at the connection's next use.
pub(super) async fn close(connection: PgConnection) {
    // What cannot be told to the server, it finds out.
    let _ = tokio::time::timeout(PING, connection.close()).await;
}

async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING, connection.ping()).await, Ok(Ok(())))
}

/// Begins a transaction for a page, with the [room's lock](lock_room), in one exchange with the server. A crash may
/// lose one that was committed, but never one before it: what it held is fetched again, because its checkpoint is lost
/// with it.
///
/// Without bitmap scans: what is read in order is read by the index of that order and no further than the limit. In a table
/// that its statistics do not know yet, PostgreSQL takes a room for small and sorts all of it.
pub(super) async fn begin_in_room(
    connection: &mut PgConnection,
    room_key: i32,
) -> Result<Transaction<'_, Postgres>, Error> {
    let begin = format!(
        "begin; set local synchronous_commit = off; set local enable_bitmapscan = off;
         select pg_advisory_xact_lock_shared({ROOM_LOCK}, {ALL}), pg_advisory_xact_lock({ROOM_LOCK}, {room_key})"
    );
    // Numbers make it up.
    Ok(connection.begin_with(AssertSqlSafe(begin)).await?)
}

/// Makes the transaction the only one at work in the room. Without it, a redaction in one transaction and its target
/// in another would miss each other (P154). Several rooms must be locked in ascending order.
pub(super) async fn lock_room(connection: &mut PgConnection, room_key: i32) -> Result<(), Error> {
    lock_rooms(connection, &[room_key]).await
}

/// The same for several rooms at once; to be called before any other room is locked.
pub(super) async fn lock_rooms(connection: &mut PgConnection, room_keys: &[i32]) -> Result<(), Error> {
    if room_keys.len() > MANY {
        sqlx::query!("select pg_advisory_xact_lock($1, $2)", ROOM_LOCK, ALL).execute(connection).await?;
        return Ok(());
    }
    sqlx::query!(
        "select pg_advisory_xact_lock_shared($1, $2), pg_advisory_xact_lock($1, room_key)
         from (select room_key from unnest($3::int[]) as room_key order by room_key) as ascending",
        ROOM_LOCK,
        ALL,
        room_keys
    )
    .execute(connection)
    .await?;
    Ok(())
}
