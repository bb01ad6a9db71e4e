//! The writer's lease, which allows one process at a time to write to the database.
//!
//! It consists of three parts. A session holds `archive.writer_lock` as long as its process is the writer
//! ([`session`]). The row of `archive.writer_lease` has an epoch, which each new writer increments. Every transaction
//! that writes takes a lock on that table until its end, and then checks that the epoch is its own
//! (`archive.begin_writing`).
//!
//! The session may end at any moment: PostgreSQL restarts, somebody terminates the session, a connection is cut. So
//! it is watched, and replaced as soon as it is lost. No transaction begins to write meanwhile. A new process that
//! finds the lock free gives the recorded writer some time to come back, unless that writer has released the lease or
//! its process has ended. Then it increments the epoch, under a lock that conflicts with that of every write
//! transaction. From then on nothing can be written under the old epoch, not even by an old writer that was suspended
//! and continues.

mod process;
mod session;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
};

pub(super) use self::session::Backend;
use self::{process::Process, session::LockSession};
use super::{Archive, Error, database::inspect};

/// How long to try for the lock before its holder counts as alive: the server needs a moment to notice that a process
/// was killed.
const HELD: Duration = Duration::from_secs(1);
/// How long a writer that has lost its session may take to come back.
const GRACE: Duration = Duration::from_secs(10);
/// How often another session is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries to take the lock back.
const RETAKE_AT_LAST: Duration = Duration::from_secs(1);
/// How long a write waits until the lock is held again, before it fails with an error that is retried.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to wait half a second for the last transactions of the previous writer, before their sessions are
/// terminated.
const WAITS: usize = 6;
/// How often that is tried in all.
const WAITS_AT_LAST: usize = 60;
/// Waits for all write transactions. The commit is synchronous, because no epoch may be used twice after a crash.
const MOVE_ON: &str = "begin isolation level read committed; set local lock_timeout = '500ms';
    set local synchronous_commit = on; lock table archive.writer_lease in share row exclusive mode";

/// The row of `archive.writer_lease`.
#[derive(Debug)]
struct Record {
    epoch: i64,
    process: Process,
    /// Whether the recorded writer has released the lease, or was never the writer of this database.
    is_released: bool,
    taken_at: String,
}

impl Record {
    async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let row = sqlx::query!(
            r#"select l.epoch, coalesce(l.process, '{}')::text as "process!",
                      l.process is null or l.released_at is not null or l.database is distinct from d.oid as "is_released!",
                      coalesce(to_char(l.taken_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '?') as "taken_at!"
               from archive.writer_lease l, pg_database d
               where d.datname = current_database()"#
        )
        .fetch_one(connection)
        .await?;
        // Another version may have written this in another form. Then nothing is known about the process.
        let process = serde_json::from_str(&row.process).unwrap_or_default();
        Ok(Self { epoch: row.epoch, process, is_released: row.is_released, taken_at: row.taken_at })
    }

    fn may_come_back(&self, me: &Process) -> bool {
        !self.is_released && self.process != *me && !self.process.is_gone(me)
    }

    fn in_words(&self) -> String {
        let Process { host, pid, .. } = &self.process;
        let at = if host.is_empty() { String::new() } else { format!(" on {host}") };
        format!("process {pid}{at}, the writer since {}", self.taken_at)
    }
}

/// The state of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// A session holds the lock.
    Held,
    /// The session was lost and is being replaced. The text is the last error.
    Lost(Option<Arc<str>>),
    /// Another process has the lease. The text describes it.
    Taken(Arc<str>),
}

/// The lease of this process.
#[derive(Debug)]
pub(super) struct Lease {
    epoch: i64,
    state: watch::Receiver<State>,
    test_now: Arc<Notify>,
    keeper: AbortHandle,
    _keeper: JoinSet<()>,
}

impl Lease {
    /// Becomes the writer.
    ///
    /// # Errors
    /// [`Error::AnotherWriter`] if there is another one.
    pub(super) async fn take(archive: &Archive) -> Result<Self, Error> {
        let me = Process::current();
        let mut held_since = None;
        let mut free_since: Option<(i64, Instant)> = None;
        let (session, epoch) = loop {
            let mut connection = archive.pool.acquire().await?;
            if let Some((pid, since)) = inspect::writer(&mut connection).await? {
                if held_since.get_or_insert_with(Instant::now).elapsed() >= HELD {
                    return Err(Error::AnotherWriter { pid, since });
                }
                drop(connection);
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            held_since = None;
            if let Some((pid, since)) = inspect::earlier_writer(&mut connection).await? {
                return Err(Error::AnotherWriter { pid, since });
            }
            let record = Record::read(&mut connection).await?;
            if record.may_come_back(&me) {
                if free_since.is_none_or(|(epoch, _)| epoch != record.epoch) {
                    let holder = record.in_words();
                    tracing::info!(
                        holder,
                        "the writer of this database has lost its session; waiting whether it comes back"
                    );
                    free_since = Some((record.epoch, Instant::now()));
                }
                if free_since.is_some_and(|(_, since)| since.elapsed() < GRACE) {
                    drop(connection);
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                tracing::warn!(
                    holder = record.in_words(),
                    waited_s = GRACE.as_secs(),
                    "the last writer of this database has lost its session and has not come back; taking its place"
                );
            }
            let Some(session) = LockSession::take(archive.options()).await? else { continue };
            let epoch = record.epoch + 1;
            if move_on(&mut connection, record.epoch, epoch, &me).await? {
                break (session, epoch);
            }
        };
        Ok(Self::keep(archive.clone(), session, epoch, me))
    }

    fn keep(archive: Archive, session: LockSession, epoch: i64, me: Process) -> Self {
        let (say, state) = watch::channel(State::Held);
        let test_now = Arc::new(Notify::new());
        let mut keeper = JoinSet::new();
        let run = Keeper { archive, epoch, me, test_now: Arc::clone(&test_now), say }.run(session);
        Self { epoch, state, test_now, keeper: keeper.spawn(run), _keeper: keeper }
    }

    /// Waits until a session holds the lock. Returns the epoch for writing.
    ///
    /// # Errors
    /// [`Error::LeaseTaken`] if another process has become the writer, [`Error::LeaseLost`] if the lock is not held
    /// again within some seconds.
    pub(super) async fn epoch(&self) -> Result<i64, Error> {
        let mut state = self.state.clone();
        let settled =
            tokio::time::timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Lost(_)))).await;
        let settled = settled.ok().and_then(Result::ok).map(|state| state.clone());
        match settled.unwrap_or_else(|| self.state.borrow().clone()) {
            State::Held => Ok(self.epoch),
            State::Taken(by) => Err(Error::LeaseTaken { by: by.to_string() }),
            State::Lost(why) => Err(Error::LeaseLost {
                why: why.map_or_else(|| "it does not answer".to_owned(), |why| why.to_string()),
            }),
        }
    }

    /// Has the session tested at once. Call this after an error of the database, which may have ended it.
    pub(super) fn test_now(&self) {
        self.test_now.notify_one();
    }

    /// The same, and waits a moment for the result.
    pub(super) async fn found_missing(&self) {
        self.test_now();
        let mut state = self.state.clone();
        let lost = state.wait_for(|state| *state != State::Held);
        let _ = tokio::time::timeout(LOOK_AGAIN, lost).await;
    }

    /// Resolves once another process has become the writer.
    pub(super) async fn taken(&self) -> Error {
        let mut state = self.state.clone();
        loop {
            if let State::Taken(by) = &*state.borrow_and_update() {
                return Error::LeaseTaken { by: by.to_string() };
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes the session that holds the lock and does not replace it. Nothing is written after this.
    pub(super) fn let_go(&self) {
        self.keeper.abort();
    }

    /// A handle that can only read the state.
    pub(super) fn observer(&self) -> Observer {
        Observer(self.state.clone())
    }
}

/// Reads the state of the lease.
#[derive(Debug)]
pub(super) struct Observer(watch::Receiver<State>);

impl Observer {
    /// The problem of the lease, if there is one.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::Held => None,
            State::Lost(_) => {
                Some("the session that holds the writer's lease is lost, and is being made anew".to_owned())
            }
            State::Taken(by) => Some(format!("another Backscroll has become the writer ({by})")),
        }
    }
}

/// Changes the epoch from `before` to `after`, once no transaction of an earlier writer is left. Returns false if
/// another process has changed it.
async fn move_on(
    connection: &mut PgConnection,
    before: i64,
    after: i64,
    me: &Process,
) -> Result<bool, Error> {
    let process = serde_json::to_string(me).expect("strings and numbers");
    for wait in 0..WAITS_AT_LAST {
        match try_to_move_on(connection, before, after, &process).await {
            Err(error) if error.code() == Some("55P03") => {
                // sqlx does not roll back if the begin itself has failed.
                connection.execute("rollback").await?;
                if wait >= WAITS {
                    end_their_sessions(connection).await?;
                }
            }
            moved => return moved,
        }
    }
    Err(Error::LeaseLost { why: "transactions of the writer before do not end".to_owned() })
}

async fn try_to_move_on(
    connection: &mut PgConnection,
    before: i64,
    after: i64,
    process: &str,
) -> Result<bool, Error> {
    let mut transaction = connection.begin_with(MOVE_ON).await?;
    let moved = sqlx::query!(
        "update archive.writer_lease l
         set epoch = $2, process = $3::text::jsonb, taken_at = now(), released_at = null, database = d.oid
         from pg_database d
         where d.datname = current_database() and l.epoch = $1",
        before,
        after,
        process
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(moved.rows_affected() == 1)
}

/// Terminates the sessions that still write under an epoch whose writer has lost the lock.
async fn end_their_sessions(connection: &mut PgConnection) -> Result<(), Error> {
    let pids = sqlx::query_scalar!(
        r#"select l.pid as "pid!" from pg_locks l
           where l.locktype = 'relation' and l.relation = 'archive.writer_lease'::regclass and l.granted
             and l.database = (select oid from pg_database where datname = current_database())
             and l.mode = 'RowExclusiveLock' and l.pid <> pg_backend_pid()"#
    )
    .fetch_all(&mut *connection)
    .await?;
    // One query for each: a single query might terminate a session before it has checked which locks that holds.
    for pid in pids {
        match sqlx::query!("select pg_terminate_backend($1)", pid)
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::from)
        {
            Ok(_) => {
                tracing::warn!(
                    pid,
                    "ending a session of the writer before, which is not the writer any more"
                );
            }
            // It belongs to another role. It may end by itself.
            Err(error) if error.code() == Some("42501") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps a session that holds the lock.
struct Keeper {
    archive: Archive,
    epoch: i64,
    me: Process,
    test_now: Arc<Notify>,
    say: watch::Sender<State>,
}

impl Keeper {
    async fn run(self, mut session: LockSession) {
        loop {
            session.ended(&self.test_now).await;
            self.say.send_replace(State::Lost(None));
            tracing::warn!(
                pid = session.backend().0,
                "the session that holds the writer's lease is lost; taking it back"
            );
            let lost = session.backend().clone();
            drop(session);
            match self.take_back(&lost).await {
                Some(new) => session = new,
                None => return,
            }
            tracing::info!(pid = session.backend().0, "the writer's lease is held again");
            self.say.send_replace(State::Held);
        }
    }

    /// Takes the lock again, however long that takes. `None`: another process has become the writer.
    async fn take_back(&self, lost: &Backend) -> Option<LockSession> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.try_to_take_back(lost).await {
                Ok(Some(session)) => return Some(session),
                Ok(None) => {}
                Err(Error::LeaseTaken { by }) => {
                    self.say.send_replace(State::Taken(by.into()));
                    return None;
                }
                Err(error) => {
                    self.archive.renew_after(&error);
                    let why: Arc<str> = error.to_string().into();
                    tracing::debug!(%error, "the writer's lease could not be taken back yet");
                    self.say.send_replace(State::Lost(Some(why)));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETAKE_AT_LAST);
        }
    }

    async fn try_to_take_back(&self, lost: &Backend) -> Result<Option<LockSession>, Error> {
        let mut connection = self.archive.pool.acquire().await?;
        self.recorded(&mut connection).await?;
        let Some(session) = LockSession::take(self.archive.options()).await? else {
            self.end_the_lost(&mut connection, lost).await?;
            return Ok(None);
        };
        // Nobody else can change the epoch while this session holds the lock.
        let epoch = self.recorded(&mut connection).await?;
        // A standby was promoted that had not received the row of our lease.
        if epoch < self.epoch && !move_on(&mut connection, epoch, self.epoch, &self.me).await? {
            return Ok(None);
        }
        Ok(Some(session))
    }

    /// The recorded epoch, unless it is that of a later writer.
    async fn recorded(&self, connection: &mut PgConnection) -> Result<i64, Error> {
        let record = Record::read(connection).await?;
        let is_ours = record.epoch < self.epoch || (record.epoch == self.epoch && record.process == self.me);
        if is_ours { Ok(record.epoch) } else { Err(Error::LeaseTaken { by: record.in_words() }) }
    }

    /// Terminates our old session: the server may not have noticed that it ended, because a firewall that drops a
    /// connection informs neither side.
    async fn end_the_lost(&self, connection: &mut PgConnection, lost: &Backend) -> Result<(), Error> {
        if inspect::writer(connection).await?.as_ref() != Some(lost) {
            return Ok(());
        }
        let pid = lost.0;
        tracing::warn!(
            pid,
            "ending the database session that held the lease for this daemon and was cut off"
        );
        sqlx::query!("select pg_terminate_backend($1)", pid).fetch_one(connection).await?;
        Ok(())
    }
}
