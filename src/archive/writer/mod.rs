//! The one writer of a database.

pub(super) mod transaction;

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};

use super::{Archive, Error, FRESH, Policy, StateOrder, lease::Lease};

/// For a last word to the database: whoever stops the daemon does not wait long.
const RELEASE: Duration = Duration::from_millis(300);
/// Within what time a session must answer.
const PING: Duration = Duration::from_secs(5);

/// The right to write to the database: functions that write take it, and begin by a look whether the lease is still
/// this one's.
#[derive(Debug)]
pub struct Writer {
    archive: Archive,
    policy: Policy,
    pub(super) lease: Lease,
    pub(super) page_connections: PageConnections,
    state_order: StateOrder,
}

impl Archive {
    /// Becomes the database's writer.
    ///
    /// # Errors
    /// [`Error::AnotherWriter`] if there is one: after a second, within which the server will have noticed the end of a
    /// writer that was killed. A writer that has lost its session is given some time to come back first.
    pub async fn writer(&self, policy: Policy) -> Result<Writer, Error> {
        self.sessions.are_to_write();
        let lease = Lease::take(self).await.inspect_err(|error| self.renew_after(error))?;
        *super::lock(&self.lease_state) = Some(lease.observer());
        Ok(Writer {
            archive: self.clone(),
            policy,
            lease,
            page_connections: PageConnections::default(),
            state_order: StateOrder::default(),
        })
    }
}

impl Writer {
    /// The archive, for reading.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Which of two words about a room's state is the newer.
    pub fn state_order(&self) -> &StateOrder {
        &self.state_order
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// To be called after an error of the database: it may have ended the session that holds the lease, or have come from a
    /// server that is not to be written to any more.
    pub fn failed(&self, error: &Error) {
        self.archive.renew_after(error);
        self.lease.doubt();
    }

    /// Resolves once another Backscroll has become the writer, which is no error of any transaction yet.
    pub async fn lease_taken(&self) -> Error {
        self.lease.taken().await
    }

    /// Says that this process writes no more, so that the next writer need not wait whether it comes back.
    pub async fn release(&self) {
        let released = async {
            let mut transaction = self.begin().await?;
            sqlx::query!("update archive.writer_lease set released_at = now()")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        // The next one waits, then.
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE, released).await {
            tracing::debug!(%error, "that this process writes no more could not be noted");
        }
        // Else the end of a server of ours would look like the loss of a session.
        self.lease.let_go();
    }
}

/// Connections of their own for the pages, as many as are stored at once. The one that was used last is taken first: its
/// server process has at hand what the next page needs, and so have the processor's caches. The pool would give one after
/// the other, each tested as it comes back.
#[derive(Debug, Default)]
pub(super) struct PageConnections(std::sync::Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    made: Instant,
    used: Instant,
}

impl PageConnections {
    /// One, and when it was made.
    pub(super) async fn take(&self, archive: &Archive) -> Result<(PgConnection, Instant), Error> {
        while let Some(Kept { mut connection, made, used }) = self.pop() {
            let is_usable = !archive.sessions.is_outdated_since(made)
                && (used.elapsed() <= FRESH || answers(&mut connection).await);
            if is_usable {
                return Ok((connection, made));
            }
        }
        // It may have been in the pool for a while, but no longer than since the last of these was found outdated.
        let made = Instant::now();
        Ok((archive.pool.acquire().await?.detach(), made))
    }

    pub(super) fn keep(&self, connection: PgConnection, made: Instant) {
        self.kept().push(Kept { connection, made, used: Instant::now() });
    }

    fn pop(&self) -> Option<Kept> {
        self.kept().pop()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answers(connection: &mut PgConnection) -> bool {
    matches!(tokio::time::timeout(PING, connection.ping()).await, Ok(Ok(())))
}

/// Makes the transaction the only one at work in the room. Without it, a redaction in one transaction and its target
/// in another would miss each other (P154). Several rooms must be locked in ascending order.
///
/// The lock is the one of the room's row: an advisory lock could be taken by anybody who may connect, and this only by who
/// may write to the room.
pub(super) async fn lock_room(connection: &mut PgConnection, room_key: i32) -> Result<(), Error> {
    lock_rooms(connection, &[room_key]).await
}

/// The same for several rooms at once; to be called before any other room is locked.
pub(super) async fn lock_rooms(connection: &mut PgConnection, room_keys: &[i32]) -> Result<(), Error> {
    // PostgreSQL locks the rows in the order in which they leave the sort.
    sqlx::query!(
        r#"select room_key as "room_key!" from archive.rooms where room_key = any($1)
           order by room_key for no key update"#,
        room_keys
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}
