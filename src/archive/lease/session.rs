//! The session that holds `archive.writer_lock`: an open transaction, which is watched so that its end is noticed at
//! once.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions},
};
use tokio::sync::Notify;

use super::Error;
use crate::archive::{CONNECT, database::sessions::without_timeouts};

/// How often an idle session is tested: a connection may be cut without an error.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait for another session that holds the lock only briefly.
const TAKE: &str = "500ms";

/// A server process: its id and its start time.
pub(in crate::archive) type Backend = (i32, String);

/// An open transaction with the lock. A [`PgListener`] is used here although it listens on no channel, because it
/// notices the end of its socket while it is idle.
#[derive(Debug)]
pub(super) struct LockSession {
    // Declared before the pool, so that it is dropped first. The pool closes the connection that is returned to it.
    listener: PgListener,
    pool: PgPool,
    backend: Backend,
}

impl LockSession {
    /// Takes the lock. `None`: another session has it.
    pub(super) async fn take(options: PgConnectOptions) -> Result<Option<Self>, Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options.application_name("backscroll lease"));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        let mut session = Self { listener, pool, backend: Backend::default() };
        let taken = {
            let connection = sqlx::Acquire::acquire(&mut session.listener).await?;
            take(connection).await
        };
        match taken {
            Ok(backend) => {
                session.backend = backend;
                Ok(Some(session))
            }
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The server process of the session.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Returns once the session is lost. `test_now`: a signal to test the session at once.
    pub(super) async fn ended(&mut self, test_now: &Notify) {
        loop {
            tokio::select! {
                // It listens on no channel, so only the end of the connection matters.
                heard = self.listener.try_recv() => match heard {
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return,
                },
                () = test_now.notified() => {}
                () = tokio::time::sleep(KEEP_ALIVE) => {}
            }
            // This also fails if the transaction has failed.
            let asked = tokio::time::timeout(ANSWER, self.listener.execute("select 1")).await;
            if !matches!(asked, Ok(Ok(_))) {
                return;
            }
        }
    }
}

async fn take(connection: &mut PgConnection) -> Result<Backend, sqlx::Error> {
    // With these settings, the server notices within half a minute that this machine is gone, and releases the lock.
    let settings = format!(
        "{};
         set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3;
         set tcp_user_timeout = 30000; set lock_timeout = '{TAKE}'",
        without_timeouts(connection)
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    let backend = sqlx::query!(
        r#"select pid as "pid!",
                  coalesce(to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '?') as "since!"
           from pg_stat_activity where pid = pg_backend_pid()"#
    )
    .fetch_one(&mut *connection)
    .await?;
    // Read committed keeps no snapshot between two statements. A snapshot would hold back VACUUM.
    connection
        .execute(
            "begin isolation level read committed;
             lock table archive.writer_lock in share update exclusive mode",
        )
        .await?;
    Ok((backend.pid, backend.since))
}

impl Drop for LockSession {
    fn drop(&mut self) {
        // The pool is closed from this call on, even if nobody waits for its end. It closes the connection that is
        // returned to it.
        drop(self.pool.close());
    }
}
