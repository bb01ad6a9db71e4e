//! The database sessions of this process. Sessions that can no longer write are closed, and the age of the oldest
//! transaction is known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::nodelay;
use crate::archive::{CONNECT, FRESH, lock};

/// Statements that take longer are logged at the level `debug`.
const SLOW: Duration = Duration::from_secs(1);

/// The state that the sessions of an archive share.
#[derive(Debug, Default)]
pub(in crate::archive) struct Sessions {
    /// Whether this process writes. Then a read-only session is not used.
    is_writer: AtomicBool,
    /// Sessions made before this time are not used again.
    renew_before: Mutex<Option<Instant>>,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

/// A transaction under way, from before it has a session until its end.
#[derive(Debug)]
pub(in crate::archive) struct Step {
    sessions: Arc<Sessions>,
    number: u64,
}

impl Sessions {
    /// A pool of at most `connections`. It tests each when it is returned, so one that is soon used again needs no
    /// second test.
    pub(in crate::archive) fn pool(self: &Arc<Self>, options: PgConnectOptions, connections: u32) -> PgPool {
        let (made, taken) = (Arc::clone(self), Arc::clone(self));
        // At `warn`, which is the default, it would alarm whoever verifies or exports a large room.
        let options = options.log_slow_statements(log::LevelFilter::Debug, SLOW);
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let sessions = Arc::clone(&made);
                Box::pin(async move {
                    nodelay::send_at_once();
                    sessions.prepare(connection).await
                })
            })
            .before_acquire(move |connection, idle| {
                let sessions = Arc::clone(&taken);
                Box::pin(async move {
                    if sessions.is_outdated(&idle) {
                        return Ok(false);
                    }
                    if idle.idle_for > FRESH {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options)
    }

    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // A plan fits the tables as they are when it is made. A cached plan for an empty archive would be used for
        // the first million events, until PostgreSQL analyzes the table. The queries here use indexes, some of them
        // once for each of ten thousand rooms. PostgreSQL then estimates so high a cost that it compiles the query,
        // which takes longer than to run it.
        connection.execute("set plan_cache_mode = force_custom_plan; set jit = off").await?;
        if self.is_writer.load(Ordering::Relaxed) {
            let is_read_only = sqlx::query_scalar!(
                r#"select current_setting('transaction_read_only')::boolean as "is_read_only!""#
            )
            .fetch_one(connection)
            .await?;
            // The address may lead to another server at any time, one that was promoted. So this session is not used
            // again.
            if is_read_only {
                self.renew();
            }
        }
        Ok(())
    }

    /// Only uses sessions that can write from now on.
    pub(in crate::archive) fn are_to_write(&self) {
        self.is_writer.store(true, Ordering::Relaxed);
    }

    /// Makes sure that no session that exists now is used again.
    pub(in crate::archive) fn renew(&self) {
        // A session that is being made counts as existing.
        *lock(&self.renew_before) = Instant::now().checked_add(Duration::from_millis(1));
    }

    /// Whether a session that was made at that time must not be used again.
    pub(in crate::archive) fn is_outdated_since(&self, made: Instant) -> bool {
        lock(&self.renew_before).is_some_and(|renew_before| made < renew_before)
    }

    fn is_outdated(&self, of: &PoolConnectionMetadata) -> bool {
        Instant::now().checked_sub(of.age).is_some_and(|made| self.is_outdated_since(made))
    }

    /// Records that a transaction begins.
    pub(in crate::archive) fn begin(self: &Arc<Self>) -> Step {
        let mut under_way = lock(&self.under_way);
        under_way.last += 1;
        let number = under_way.last;
        under_way.since.insert(number, Instant::now());
        drop(under_way);
        Step { sessions: Arc::clone(self), number }
    }

    /// The age of the oldest transaction under way.
    pub(in crate::archive) fn oldest(&self) -> Option<Duration> {
        lock(&self.under_way).since.values().min().map(Instant::elapsed)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        lock(&self.sessions.under_way).since.remove(&self.number);
    }
}

/// The statement that lets the session's transactions and statements take as long as they need, whatever the server's
/// settings are.
pub(in crate::archive) fn without_timeouts(connection: &PgConnection) -> &'static str {
    // Since 17 (PostgreSQL, "transaction_timeout").
    if connection.server_version_num().is_some_and(|version| version >= 170_000) {
        "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0"
    } else {
        "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_known_until_it_ends() {
        let sessions = Arc::new(Sessions::default());
        assert_eq!(sessions.oldest(), None);
        let first = sessions.begin();
        let second = sessions.begin();
        let both = sessions.oldest().expect("two are under way");
        drop(first);
        assert!(sessions.oldest().is_some_and(|second| second <= both + Duration::from_secs(1)));
        drop(second);
        assert_eq!(sessions.oldest(), None);
    }

    #[test]
    fn sessions_from_before_are_renewed_and_later_ones_stay() {
        let sessions = Sessions::default();
        let before = Instant::now();
        assert!(!sessions.is_outdated_since(before));
        sessions.renew();
        assert!(sessions.is_outdated_since(before));
        assert!(!sessions.is_outdated_since(before + Duration::from_secs(1)));
    }
}
