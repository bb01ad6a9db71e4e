//! The one writer of a database.

pub(super) mod transaction;

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};

use super::{Archive, Error, FRESH, Policy, StateOrder, lease::Lease};

/// How long releasing the lease may take at shutdown.
const RELEASE: Duration = Duration::from_millis(300);
/// How long a session may take to answer.
const PING: Duration = Duration::from_secs(5);

/// The right to write to the database. Functions that write need it, and first check that this process still holds
/// the lease.
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
    /// [`Error::AnotherWriter`] if there is another one. It waits a second first, because the server needs a moment
    /// to notice that a writer was killed. A writer that has lost its session gets some time to come back.
    pub(crate) async fn writer(&self, policy: Policy) -> Result<Writer, Error> {
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
    pub(crate) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Decides which of two reports of a room's state is newer.
    pub(crate) fn state_order(&self) -> &StateOrder {
        &self.state_order
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// Call this after an error of the database. The session that holds the lease may have ended, or the server may
    /// now be a standby.
    pub(crate) fn failed(&self, error: &Error) {
        self.archive.renew_after(error);
        self.lease.test_now();
    }

    /// Resolves once another Backscroll has become the writer, even if no transaction of this one has failed yet.
    pub(crate) async fn lease_taken(&self) -> Error {
        self.lease.taken().await
    }

    /// Releases the lease, so that the next writer does not wait for this one to come back.
    pub(crate) async fn release(&self) {
        let released = async {
            let mut transaction = self.begin().await?;
            sqlx::query!("update archive.writer_lease set released_at = now()")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        // If this fails, the next writer waits.
        if let Ok(Err(error)) = tokio::time::timeout(RELEASE, released).await {
            tracing::debug!(%error, "that this process writes no more could not be noted");
        }
        // Otherwise the end of the private server would look like the loss of a session.
        self.lease.let_go();
    }
}

/// Separate connections for pages, as many as are stored at once. The one that was used last is taken first, because
/// its server process and the processor's caches still have what the next page needs. The pool would use them in
/// turn, and test each when it is returned.
#[derive(Debug, Default)]
pub(super) struct PageConnections(std::sync::Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    made: Instant,
    used: Instant,
}

impl PageConnections {
    /// A connection, and when it was made.
    pub(super) async fn take(&self, archive: &Archive) -> Result<(PgConnection, Instant), Error> {
        while let Some(Kept { mut connection, made, used }) = self.pop() {
            let is_usable = !archive.sessions.is_outdated_since(made)
                && (used.elapsed() <= FRESH || answers(&mut connection).await);
            if is_usable {
                return Ok((connection, made));
            }
        }
        // It may have been in the pool for a while, but the pool has removed outdated connections.
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

/// Locks the room for this transaction. Without the lock, a redaction in one transaction and its target in another
/// would miss each other (P154). Several rooms must be locked in ascending order.
///
/// It is the lock of the room's row. Every role that can connect could take an advisory lock, but only a role that
/// may write to the room can take this one.
pub(super) async fn lock_room(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    lock_rooms(connection, &[room_id]).await
}

/// The same for several rooms at once. Call it before any other room is locked.
pub(super) async fn lock_rooms(connection: &mut PgConnection, room_ids: &[&str]) -> Result<(), Error> {
    sqlx::query!("select archive.lock_rooms($1)", room_ids as &[&str]).execute(connection).await?;
    Ok(())
}
