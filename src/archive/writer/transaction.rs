//! A transaction that writes, under the writer's lease.

use std::{
    fmt::Write as _,
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

/// How long a session may take to end a transaction.
const PING: Duration = Duration::from_secs(5);

/// A transaction under the lease. If it is dropped without [`commit`](Self::commit) or [`undo`](Self::undo), its
/// session is closed, because a failure may have left the session in any state.
#[derive(Debug)]
pub(in crate::archive) struct WriteTransaction<'w> {
    session: Option<Session<'w>>,
    _step: Arc<Step>,
}

#[derive(Debug)]
enum Session<'w> {
    Pooled(PoolConnection<Postgres>),
    /// One of the connections for pages, and when it was made.
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

    /// Closes the session, which ends the failed transaction at once.
    async fn close(self) {
        let closed = async {
            match self {
                Self::Pooled(connection) => connection.close().await,
                Self::Page { connection, .. } => connection.close().await,
            }
        };
        // If this fails, the server itself notices that the connection is closed.
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

    /// Rolls the transaction back, because of `error` if there is one.
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

    /// Begins a transaction for a page, with the [room's lock](crate::archive::writer::lock_room), in one round trip.
    /// After a crash, committed transactions may be missing (`synchronous_commit = off`), but only the latest ones.
    /// Their pages are fetched again, because their checkpoints are missing too.
    ///
    /// Bitmap scans are off, so that an ordered read uses the index of that order and stops at the limit. Before a
    /// table has statistics, PostgreSQL would assume that a room is small, and sort all of it.
    pub(in crate::archive) async fn begin_in_room(
        &self,
        room_id: &str,
    ) -> Result<WriteTransaction<'_>, Error> {
        let lock = format!(
            "; set local synchronous_commit = off; set local enable_bitmapscan = off;
             select archive.lock_rooms(array[{}])",
            literal(room_id)
        );
        self.begin_with(true, &lock).await
    }

    /// Begins a transaction and runs `statements` in the same round trip. The session that holds the lease may have
    /// ended unnoticed. Then this waits until the lease is held again.
    async fn begin_with(&self, for_page: bool, statements: &str) -> Result<WriteTransaction<'_>, Error> {
        let step = Arc::new(self.archive().sessions.begin());
        loop {
            let epoch = self.lease.epoch().await?;
            let session = if for_page { self.page_session().await? } else { self.pooled_session().await? };
            let mut transaction = WriteTransaction { session: Some(session), _step: Arc::clone(&step) };
            // Read committed, whatever the database's default is: a read after a lock must see what is committed at
            // that time.
            let begin = format!(
                "begin isolation level read committed; select archive.begin_writing({epoch}){statements}"
            );
            // The text contains only numbers and literals of hexadecimal digits, so it cannot be an injection.
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

/// An SQL expression for a text, in hexadecimal digits.
pub(in crate::archive) fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() * 2 + 40);
    literal.push_str("convert_from(decode('");
    for byte in text.bytes() {
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push_str(r#"', 'hex'), 'UTF8') collate "C""#);
    literal
}
