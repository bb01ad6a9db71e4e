//! The private PostgreSQL server, which is used if no database is configured. It runs binaries that are installed on
//! the machine.
//!
//! A data directory contains one cluster, and at most one server runs on it. [`Server::start`] uses a server that is
//! already running, whichever process started it. Otherwise it creates the cluster if it is missing, and starts a
//! server. That server ends when the process that started it ends, even after `SIGKILL`.
//!
//! ```text
//! <data_dir>/postgres        the cluster, complete or absent; owned by the user that runs the server
//!            postgres.init   a cluster that is being created; postgres.stale: one that is being removed
//!            postgres.lock   locked by every process that may write to the cluster, also by the server
//!            postgres.log    the server's log, without statements
//!            run/            the socket, unless it is in $RUNTIME_DIRECTORY or the path is too long
//! ```
//!
//! The server listens only on a Unix socket, in a directory that is closed to other users. Root and the owner of the
//! cluster connect as the role `backscroll`, without a password.

mod binaries;
mod child;
mod cluster;
mod config;
mod dir;
mod error;
mod log;
mod owner;
mod postmaster;
mod server;
mod socket;
mod trust;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

pub use self::error::Error;

use self::binaries::Binaries;
use self::child::Child;
use self::cluster::{Cluster, millis};
use self::postmaster::{Lock, Postmaster};
use self::server::Claim;
use crate::backoff::doubled;

/// The oldest version that the PostgreSQL project supports and that our tests use.
const OLDEST_MAJOR: u32 = 15;
const USER: &str = "backscroll";
const DATABASE: &str = "backscroll";
/// The port is only part of the socket's name. Servers differ by their directories.
const PORT: u16 = 5432;

/// The end of a server that has run at least this long does not count as a repeated failure.
const STEADY: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a server that is not our child is checked.
const ADOPTED_PAUSE: Duration = Duration::from_secs(2);

/// The settings of the private server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory. The cluster is in `<data_dir>/postgres`.
    pub data_dir: PathBuf,
    /// If given, the only directory to search for `initdb` and `postgres`.
    pub bin_dir: Option<PathBuf>,
}

/// A running private server, which this process has started or found running ("adopted").
///
/// If it is dropped without [`stop`](Self::stop), a server that this process has started gets the signal to shut
/// down, and nobody waits for it.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    binaries: Binaries,
    socket_dir: PathBuf,
    port: u16,
    /// `None` while the server is adopted. The mutex is never held across an await.
    child: Mutex<Option<Arc<Child>>>,
    restarts: tokio::sync::Mutex<Restarts>,
}

impl Server {
    /// Adopts a running server, or creates the cluster if necessary and starts a server. Returns once it accepts
    /// queries. Waits for a server that is just starting or stopping.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let begun = Instant::now();
        let data_dir =
            std::path::absolute(&settings.data_dir).map_err(Error::io("find", &settings.data_dir))?;
        let bin_dir = settings.bin_dir.clone();
        let blocking = tokio::task::spawn_blocking(move || survey(&data_dir, bin_dir.as_deref()));
        let (cluster, binaries) =
            blocking.await.map_err(|error| Error::io("survey", &settings.data_dir)(error.into()))??;
        let server = match server::claim(&cluster).await? {
            Claim::Live(postmaster) => Self::adopt(cluster, binaries, postmaster),
            Claim::Free(lock) => Self::launch(cluster, binaries, lock).await?,
        };
        info!(
            url = server.url(),
            major = server.binaries.major,
            adopted = server.adopted(),
            duration_ms = millis(begun),
            "the private PostgreSQL is ready"
        );
        Ok(server)
    }

    /// The same, but creates no cluster. `None`: there is none.
    pub(crate) async fn start_existing(settings: &Settings) -> Result<Option<Self>, Error> {
        match presence(&settings.data_dir) {
            Presence::Missing => Ok(None),
            Presence::There | Presence::Unknown => Self::start(settings).await.map(Some),
        }
    }

    fn adopt(cluster: Cluster, binaries: Binaries, postmaster: Postmaster) -> Self {
        Self::new(cluster, binaries, postmaster.socket_dir, postmaster.port, None)
    }

    async fn launch(cluster: Cluster, binaries: Binaries, lock: Lock) -> Result<Self, Error> {
        // Another process may have created it meanwhile.
        if cluster.major()?.is_none() {
            cluster.init(&binaries, &lock).await?;
        }
        let program = binaries.postgres();
        let socket_dir = socket::prepare_dir(&cluster.data_dir, &cluster.owner, &program, PORT)?;
        let child = server::launch(&cluster, &binaries, &socket_dir, lock).await?;
        Ok(Self::new(cluster, binaries, socket_dir, PORT, Some(child)))
    }

    fn new(
        cluster: Cluster,
        binaries: Binaries,
        socket_dir: PathBuf,
        port: u16,
        child: Option<Child>,
    ) -> Self {
        Self {
            cluster,
            binaries,
            socket_dir,
            port,
            child: Mutex::new(child.map(Arc::new)),
            restarts: tokio::sync::Mutex::new(Restarts::new()),
        }
    }

    /// The directory of the Unix socket, for `psql -h`.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port, which is only part of the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection string for psql and sqlx. It contains no secret.
    pub fn url(&self) -> String {
        url(&self.socket_dir, self.port)
    }

    /// The directory of `psql`, `pg_dump` and the other programs of the same version.
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.dir
    }

    /// Whether another process has started the server and will stop it.
    pub fn adopted(&self) -> bool {
        self.child().is_none()
    }

    /// Returns once the server accepts queries. Restarts it if it has ended, or if it was adopted and its process has
    /// stopped it.
    ///
    /// The first restart happens at once. If the server keeps ending, each restart waits longer, up to 30 s. Callers
    /// need a delay of their own only after an error. The socket stays the same, so a pool only has to reconnect.
    pub async fn ensure_running(&self) -> Result<(), Error> {
        let mut restarts = self.restarts.lock().await;
        self.cluster.log().trim()?;
        let child = self.child().clone();
        let is_up = match child {
            Some(child) => server::recovers(&child, &self.cluster, &self.socket_dir).await?,
            None => server::is_ready(&self.socket_dir, self.port).await?,
        };
        if is_up {
            return Ok(());
        }
        restarts.pause().await;
        self.restart(&mut restarts).await
    }

    async fn restart(&self, restarts: &mut Restarts) -> Result<(), Error> {
        let child = match server::claim(&self.cluster).await? {
            Claim::Live(postmaster) if postmaster.socket_dir != self.socket_dir => {
                return Err(Error::Moved { from: self.socket_dir.clone(), to: postmaster.socket_dir });
            }
            Claim::Live(_) => None,
            Claim::Free(lock) => {
                restarts.count();
                let owner = &self.cluster.owner;
                owner.private_dir(&self.socket_dir).map_err(Error::io("create", &self.socket_dir))?;
                let place = &self.socket_dir;
                Some(server::launch(&self.cluster, &self.binaries, place, lock).await?)
            }
        };
        warn!(adopted = child.is_none(), "the private PostgreSQL is back");
        *self.child() = child.map(Arc::new);
        Ok(())
    }

    /// Keeps the server running until this future is dropped.
    pub async fn supervise(&self) -> Infallible {
        loop {
            self.ended().await;
            while let Err(error) = self.ensure_running().await {
                error!(%error, "failed to restart the private PostgreSQL");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Resolves once the server has ended.
    async fn ended(&self) {
        let exit = self.child().as_ref().map(|child| child.exit());
        if let Some(exit) = exit {
            child::ended(exit).await;
            return;
        }
        while matches!(server::is_ready(&self.socket_dir, self.port).await, Ok(true)) {
            tokio::time::sleep(ADOPTED_PAUSE).await;
        }
    }

    /// Shuts down a server that this process has started: it closes all connections and writes everything to disk. An
    /// adopted server keeps running.
    pub async fn stop(self) -> Result<(), Error> {
        let Some(child) = self.child().take() else {
            return Ok(());
        };
        server::stop(&child).await?;
        server::tidy(&self.cluster, &self.socket_dir);
        info!("the private PostgreSQL has shut down");
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Arc<Child>>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a cluster in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is one, or something else has its name.
    There,
    /// There is none.
    Missing,
    /// This user may not read the directory.
    Unknown,
}

/// Whether a data directory contains a cluster. Changes nothing.
pub(crate) fn presence(data_dir: &Path) -> Presence {
    let dir = data_dir.join("postgres");
    let is_empty = std::fs::read_dir(&dir).is_ok_and(|mut all| all.next().is_none());
    match std::fs::metadata(&dir) {
        Ok(_) if !is_empty => Presence::There,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Presence::Unknown,
        Ok(_) | Err(_) => Presence::Missing,
    }
}

/// The cluster in the data directory and the binaries on this machine. Changes nothing, but creates the directory.
fn survey(data_dir: &Path, bin_dir: Option<&Path>) -> Result<(Cluster, Binaries), Error> {
    let cluster = Cluster::at(data_dir)?;
    let binaries = Binaries::find(bin_dir, &cluster.dir, cluster.major()?, &cluster.owner)?;
    cluster.owner.must_reach(&cluster.data_dir, &binaries.postgres())?;
    Ok((cluster, binaries))
}

/// How often in a row the server was restarted, and when last.
#[derive(Debug)]
struct Restarts {
    in_a_row: u32,
    last: Instant,
}

impl Restarts {
    fn new() -> Self {
        Self { in_a_row: 0, last: Instant::now() }
    }

    async fn pause(&mut self) {
        if self.last.elapsed() >= STEADY {
            self.in_a_row = 0;
        }
        tokio::time::sleep(pause(self.in_a_row)).await;
    }

    fn count(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Instant::now();
    }
}

/// The delay before a restart: 0, then 0.2 s, which doubles each time.
fn pause(in_a_row: u32) -> Duration {
    match in_a_row {
        0 => Duration::ZERO,
        n => doubled(FIRST_PAUSE, n - 1, LONGEST_PAUSE),
    }
}

fn url(socket_dir: &Path, port: u16) -> String {
    let mut host = String::new();
    for byte in socket_dir.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            host.push(char::from(*byte));
        } else {
            write!(host, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    format!("postgres:///{DATABASE}?host={host}&port={port}&user={USER}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_survives_any_path() {
        assert_eq!(
            url(Path::new("/srv/a b&c/ü"), 5432),
            "postgres:///backscroll?host=%2Fsrv%2Fa%20b%26c%2F%C3%BC&port=5432&user=backscroll"
        );
    }

    #[test]
    fn restarts_come_ever_more_slowly() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), Duration::from_millis(200));
        assert_eq!(pause(2), Duration::from_millis(400));
        assert_eq!(pause(30), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
