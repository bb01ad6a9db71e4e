//! A transaction that writes, under the writer's lease.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Postgres, pool::PoolConnection};

use super::PageConnections;
use crate::archive::{
    Error, Writer,
    database::{sessions::Step, transient},
};

/// Within what time a session must answer that is only to end a transaction.
const PING: Duration = Duration::from_secs(5);

/// A transaction under the lease. Dropped without [`commit`](Self::commit) or [`undo`](Self::undo), it ends with its session,
/// and its locks with it: what has failed may have left the session in any state.
#[derive(Debug)]
pub(in crate::archive) struct WriteTransaction<'w> {
    session: Option<Session<'w>>,
    _step: Arc<Step>,
}

#[derive(Debug)]
enum Session<'w> {
    Pooled(PoolConnection<Postgres>),
    /// Of those that are kept for pages, with the time of its making.
    Page {
        connection: PgConnection,
        made: Instant,
        kept_in: &'w PageConnections,
    },
}

impl Deref for Session<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Page { connection, .. } => connection,
        }
    }
}

impl DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Page { connection, .. } => connection,
        }
    }
}

impl Session<'_> {
    fn keep(self) {
        if let Self::Page { connection, made, kept_in } = self {
            kept_in.keep(connection, made);
        }
    }

    /// Ends it, and with it at once the transaction that has failed in it.
    async fn close(self) {
        let closed = async {
            match self {
                Self::Pooled(connection) => connection.close().await,
                Self::Page { connection, .. } => connection.close().await,
            }
        };
        // What cannot be reported to the server, it finds out.
        let _ = tokio::time::timeout(PING, closed).await;
    }
}

impl Deref for WriteTransaction<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.session.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for WriteTransaction<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.session.as_mut().expect("it is there until the end")
    }
}

impl WriteTransaction<'_> {
    pub(in crate::archive) async fn commit(mut self) -> Result<(), Error> {
        self.execute("commit").await?;
        self.session.take().expect("it is there until the end").keep();
        Ok(())
    }

    /// Undoes it, because of `error` if there is one.
    pub(in crate::archive) async fn undo(mut self, error: Option<&Error>) {
        let is_spoilt = error.is_some_and(Error::is_of_the_session);
        let undone =
            !is_spoilt && matches!(tokio::time::timeout(PING, self.execute("rollback")).await, Ok(Ok(_)));
        let session = self.session.take().expect("it is there until the end");
        if undone { session.keep() } else { session.close().await }
    }
}

impl Drop for WriteTransaction<'_> {
    fn drop(&mut self) {
        if let Some(Session::Pooled(connection)) = &mut self.session {
            connection.close_on_drop();
        }
    }
}

impl Writer {
    /// Begins a transaction.
    pub(in crate::archive) async fn begin(&self) -> Result<WriteTransaction<'_>, Error> {
        self.begin_with(false, "").await
    }

    /// Begins a transaction for a page, with the [room's lock](crate::archive::writer::lock_room), in one exchange with the server. A
    /// crash may lose one that was committed, but never one before it: what it held is fetched again, because its checkpoint
    /// is lost with it.
    ///
    /// Without bitmap scans: what is read in order is read by the index of that order and no further than the limit. In a
    /// table that its statistics do not know yet, PostgreSQL takes a room for small and sorts all of it.
    pub(in crate::archive) async fn begin_in_room(
        &self,
        room_key: i32,
    ) -> Result<WriteTransaction<'_>, Error> {
        let lock = format!(
            "; set local synchronous_commit = off; set local enable_bitmapscan = off;
             select from archive.rooms where room_key = {room_key} for no key update"
        );
        self.begin_with(true, &lock).await
    }

    /// Begins a transaction and goes on with `statements` in the same exchange. The session that holds the lease may have
    /// ended without this process knowing it yet: nothing is written then before it is there again.
    async fn begin_with(&self, for_page: bool, statements: &str) -> Result<WriteTransaction<'_>, Error> {
        let step = Arc::new(self.archive().sessions.begin());
        loop {
            let epoch = self.lease.epoch().await?;
            let session = if for_page { self.page_session().await? } else { self.pooled_session().await? };
            let mut transaction = WriteTransaction { session: Some(session), _step: Arc::clone(&step) };
            // Read committed whatever the database's default is: what is read after a lock is to be what was there then.
            let begin = format!(
                "begin isolation level read committed; select archive.begin_writing({epoch}){statements}"
            );
            // Numbers make it up.
            let error = match transaction.execute(AssertSqlSafe(begin)).await {
                Ok(_) => return Ok(transaction),
                Err(error) => Error::from(error),
            };
            transaction.undo(Some(&error)).await;
            match error.code() {
                Some(transient::NO_SESSION) => self.lease.found_missing().await,
                Some(transient::ANOTHER_EPOCH) => return Err(self.lease_taken().await),
                _ => {
                    self.archive().renew_after(&error);
                    return Err(error);
                }
            }
        }
    }

    async fn pooled_session(&self) -> Result<Session<'_>, Error> {
        Ok(Session::Pooled(self.archive().pool.acquire().await?))
    }

    async fn page_session(&self) -> Result<Session<'_>, Error> {
        let (connection, made) = self.page_connections.take(self.archive()).await?;
        Ok(Session::Page { connection, made, kept_in: &self.page_connections })
    }
}
