//! The archive in the database: SQL, no HTTP. [`Archive`] reads. [`Writer`], of which there is one per database,
//! writes.

mod account;
mod column;
mod database;
mod derived;
mod encryption;
mod erasure;
mod error;
mod event;
mod evidence;
mod import;
mod ingest;
mod lease;
mod redaction;
mod report;
mod resequence;
mod rollback_probe;
mod room;
pub(crate) mod seal;
mod search;
mod timeline;
pub(crate) mod transfer;
pub(crate) mod verification;
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
    database::{inspect, requirements},
    encryption::EncryptionStatus,
    erasure::{Erased, Subject},
    error::Error,
    import::ImportSource,
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
    search::SearchLag,
    walk::{
        Walk, WalkChoice,
        gap::GapState,
        kind::{WalkKind, WalkState},
        operator::{Shown, Span},
    },
    writer::Writer,
};

use self::database::sessions::Sessions;
pub(crate) use self::{
    database::{role::WideRole, waits::Wait},
    encryption::{ImportedSessions, OwnDevice, QueuedSessions, wrong_device_key},
    import::RoomImport,
    search::{Found, SearchQuery, SearchRanges},
};
use crate::config::RedactionPolicy as Policy;

/// How long connecting may take. A database that does not answer is then reported.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that was idle for longer is tested before it is used.
const FRESH: Duration = Duration::from_secs(1);

/// An archive that can be read.
#[derive(Clone, Debug)]
pub struct Archive {
    pool: PgPool,
    sessions: Arc<Sessions>,
    /// The state of this process's lease, once it has one.
    lease_state: Arc<Mutex<Option<lease::Observer>>>,
}

/// A panic in another thread cannot leave these values inconsistent, so a poisoned mutex is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Archive {
    /// Connects to the database at `url`, with at most `connections` connections. A [`Writer`] has additional ones,
    /// for its lock and for the pages that are being stored. Does not migrate.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, Error> {
        let options = url.parse::<PgConnectOptions>()?.application_name("backscroll");
        // An error of the pool is only a timeout. The error of a single connection names the reason.
        let first = tokio::time::timeout(CONNECT, PgConnection::connect_with(&options)).await;
        first.map_err(|_| sqlx::Error::PoolTimedOut)??.close().await?;
        let sessions = Arc::new(Sessions::default());
        let pool = sessions.pool(options, connections);
        Ok(Self { pool, sessions, lease_state: Arc::default() })
    }

    /// The connection options of the pool, for a session outside of it.
    fn options(&self) -> PgConnectOptions {
        (*self.pool.connect_options()).clone()
    }

    /// Call this with an error before a retry. If it means that the server is read-only, the session may be with a
    /// standby to which the address no longer leads. Then all sessions are replaced by new ones.
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
