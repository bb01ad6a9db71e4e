//! The database's edge: SQL, no HTTP. [`Archive`] reads; [`Writer`], of which there is one per database, writes.

mod account;
mod column;
mod database;
mod erasure;
mod error;
mod event;
mod ingest;
mod lease;
mod redaction;
mod report;
mod resequence;
mod rollback_probe;
mod room;
mod timeline;
mod walk;
mod writer;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgPool},
};

pub use self::{
    account::Account,
    database::{inspect, requirements, role::WideRole, waits::Wait},
    erasure::{Erased, Subject},
    error::Error,
    ingest::sync_response::{Intake, SyncOutcome},
    report::status::{GapCounts, RoomStatus, StaleRoom, Status},
    resequence::{PageRead, Resequence},
    rollback_probe::Anchor,
    room::{
        choice::{Change, ChosenRoom},
        current_state::Cause,
        history::HistoryState,
        state_order::{StateOrder, StateRequest},
    },
    walk::{
        Walk, WalkChoice,
        gap::GapState,
        kind::{WalkKind, WalkState},
        operator::{Shown, Span},
    },
    writer::Writer,
};

use self::database::sessions::Sessions;
use crate::config::RedactionPolicy as Policy;

/// How long a connection may take, so that a dead database is reported and not waited for.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection may have been idle to be taken without a test.
const FRESH: Duration = Duration::from_secs(1);

/// An archive that can be read.
#[derive(Clone, Debug)]
pub struct Archive {
    pool: PgPool,
    sessions: Arc<Sessions>,
    /// Of this process's lease, once it has one.
    lease_state: Arc<Mutex<Option<lease::Observer>>>,
}

/// Numbers and words stay what they are if somebody panics beside them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Archive {
    /// Connects to the database at `url`, with at most `connections` connections; a [`Writer`] has its own beside them, for its
    /// lock and for the pages in hand. Nothing is migrated.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, Error> {
        let options = url.parse::<PgConnectOptions>()?.application_name("backscroll");
        // The pool would only say that it waited for a connection in vain; a single one says why.
        let first = tokio::time::timeout(CONNECT, PgConnection::connect_with(&options)).await;
        first.map_err(|_| sqlx::Error::PoolTimedOut)??.close().await?;
        let sessions = Arc::new(Sessions::default());
        let pool = sessions.pool(options, connections);
        Ok(Self { pool, sessions, lease_state: Arc::default() })
    }

    /// How the sessions of the pool connect, for one of its own.
    fn options(&self) -> PgConnectOptions {
        (*self.pool.connect_options()).clone()
    }

    /// To be called with an error that is to be tried again. One that says that nothing can be written may come from a standby
    /// to which the address no longer leads: every session is made anew.
    fn renew_after(&self, error: &Error) {
        if error.is_read_only() {
            self.sessions.renew();
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
