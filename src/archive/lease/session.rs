//! The session that holds `archive.writer_lock`: a transaction that stays open, watched so that its end is noticed at once.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions},
};
use tokio::sync::Notify;

use super::Error;
use crate::archive::CONNECT;

/// How often a session that says nothing is asked whether it is there: a connection may be cut without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Within what time it must answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long another session may hold the lock for a moment.
const TAKE: &str = "500ms";

/// A server process: its id, and when it began.
pub(in crate::archive) type Backend = (i32, String);

/// An open transaction with the lock. A [`PgListener`] listens to nothing here: it is what notices the end of its socket
/// while there is nothing to ask.
#[derive(Debug)]
pub(super) struct LockSession {
    // Before the pool, which closes the connection that is given back to it.
    listener: PgListener,
    pool: PgPool,
    backend: Backend,
}

impl LockSession {
    /// Takes the lock; `None` if another session has it.
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

    /// The server's side of it.
    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Returns once the session is lost. `doubted`: to be asked at once whether it is there.
    pub(super) async fn ended(&mut self, doubted: &Notify) {
        loop {
            tokio::select! {
                // It listens to nothing, so whatever comes is of no meaning, but for the end.
                heard = self.listener.try_recv() => match heard {
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return,
                },
                () = doubted.notified() => {}
                () = tokio::time::sleep(KEEP_ALIVE) => {}
            }
            // In a transaction that has failed this fails too.
            let asked = tokio::time::timeout(ANSWER, self.listener.execute("select 1")).await;
            if !matches!(asked, Ok(Ok(_))) {
                return;
            }
        }
    }
}

async fn take(connection: &mut PgConnection) -> Result<Backend, sqlx::Error> {
    // Since 17 (PostgreSQL, "transaction_timeout").
    let newer = connection.server_version_num().is_some_and(|version| version >= 170_000);
    let transaction_timeout = if newer { "set transaction_timeout = 0;" } else { "" };
    // The server notices within half a minute that this machine is gone, and lets the lock go.
    let settings = format!(
        "set idle_in_transaction_session_timeout = 0; set statement_timeout = 0; {transaction_timeout}
         set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3;
         set tcp_user_timeout = 30000; set lock_timeout = '{TAKE}'"
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    let backend = sqlx::query!(
        r#"select pid as "pid!",
                  coalesce(to_char(backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '?') as "since!"
           from pg_stat_activity where pid = pg_backend_pid()"#
    )
    .fetch_one(&mut *connection)
    .await?;
    // Read committed: no snapshot is kept between two statements, which would hold back VACUUM.
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
        // It is closed from this call on, whether or not the end is waited for, and closes what it is given back.
        drop(self.pool.close());
    }
}
