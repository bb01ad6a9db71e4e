//! The embedded default: a private PostgreSQL, run from binaries that are already on the machine.
//!
//! One data directory holds one cluster, and at most one server runs on it. Whoever needs it calls
//! [`Server::start`]: a live server is adopted, whoever started it; otherwise the cluster is made if
//! it is missing, and a server is started that ends when its parent does, even by `SIGKILL`.
//!
//! ```text
//! <data_dir>/postgres        the cluster, whole or absent; owned by the user the server runs as
//!            postgres.init   one in the making; postgres.stale: one being removed
//!            postgres.lock   locked by whoever may write to the cluster, the server included
//!            postgres.log    what the server says about itself, never about statements
//!            run/            the socket, unless $RUNTIME_DIRECTORY has a place or the path is too long
//! ```
//!
//! The server listens on a Unix socket in a directory closed to others, and lets root and the owner
//! of the cluster in as the role `backscroll`, without a password. Nothing here uses the network.

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

/// The oldest version that is still supported by its makers and that we are tested with.
const OLDEST_MAJOR: u32 = 15;
const USER: &str = "backscroll";
const DATABASE: &str = "backscroll";
/// Only names the socket: the directory is what distinguishes servers.
const PORT: u16 = 5432;

/// A server that has run this long was all right: its end is not one in a row.
const STEADY: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two looks at a server that is not our child.
const ADOPTED_PAUSE: Duration = Duration::from_secs(2);

/// What the private server depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The parent directory; the cluster goes to `<data_dir>/postgres`.
    pub data_dir: PathBuf,
    /// The only place to look for `initdb` and `postgres`, if given.
    pub bin_dir: Option<PathBuf>,
}

/// A running private server, started by us or adopted.
///
/// Dropped without [`stop`](Self::stop), a server of ours is asked to shut down and not waited for.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    binaries: Binaries,
    socket_dir: PathBuf,
    port: u16,
    /// `None` while the server is somebody else's. Never held across a wait.
    child: Mutex<Option<Arc<Child>>>,
    restarts: tokio::sync::Mutex<Restarts>,
}

impl Server {
    /// Returns once the server carries out queries: adopts a live one, else makes the cluster if
    /// need be and starts one. Waits for a server that is just coming or going.
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

    /// The same where a cluster was made before; `None`: there is none, and none is made.
    pub async fn start_existing(settings: &Settings) -> Result<Option<Self>, Error> {
        match presence(&settings.data_dir) {
            Presence::Missing => Ok(None),
            Presence::There | Presence::Unknown => Self::start(settings).await.map(Some),
        }
    }

    fn adopt(cluster: Cluster, binaries: Binaries, postmaster: Postmaster) -> Self {
        Self::new(cluster, binaries, postmaster.socket_dir, postmaster.port, None)
    }

    async fn launch(cluster: Cluster, binaries: Binaries, lock: Lock) -> Result<Self, Error> {
        // Another process may have made it since we looked.
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

    /// The directory of the Unix socket, as `psql -h` takes it.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port, which is part of the socket's name and nothing else.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection string, as psql and sqlx take it. It holds no secret.
    pub fn url(&self) -> String {
        url(&self.socket_dir, self.port)
    }

    /// Where `psql`, `pg_dump` and the like of the same version are.
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.dir
    }

    /// The server is another process's, which will stop it.
    pub fn adopted(&self) -> bool {
        self.child().is_none()
    }

    /// Returns once the server carries out queries, started again if it has ended, or if the
    /// process that we had adopted it from has stopped it.
    ///
    /// The first restart comes at once; when the server keeps ending, each waits longer, up to 30 s.
    /// Callers need no delay of their own but after an error. The place stays the same, so that a
    /// pool only has to connect again.
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

    /// Keeps the server running until the caller stops waiting.
    pub async fn supervise(&self) -> Infallible {
        loop {
            self.ended().await;
            while let Err(error) = self.ensure_running().await {
                error!(%error, "failed to restart the private PostgreSQL");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Resolves once the server no longer runs.
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

    /// Shuts down a server of ours: connections are cut, everything is written out. An adopted one
    /// is left alone.
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

/// Whether there is a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is one, or something in its place.
    There,
    /// There is none.
    Missing,
    /// This user may not look.
    Unknown,
}

/// Whether a data directory holds a cluster. Nothing is changed.
pub fn presence(data_dir: &Path) -> Presence {
    let dir = data_dir.join("postgres");
    let is_empty = std::fs::read_dir(&dir).is_ok_and(|mut all| all.next().is_none());
    match std::fs::metadata(&dir) {
        Ok(_) if !is_empty => Presence::There,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Presence::Unknown,
        Ok(_) | Err(_) => Presence::Missing,
    }
}

/// What is on this machine and in that directory, without changing either but for making the
/// directory.
fn survey(data_dir: &Path, bin_dir: Option<&Path>) -> Result<(Cluster, Binaries), Error> {
    let cluster = Cluster::at(data_dir)?;
    let binaries = Binaries::find(bin_dir, &cluster.dir, cluster.major()?, &cluster.owner)?;
    cluster.owner.must_reach(&cluster.data_dir, &binaries.postgres())?;
    Ok((cluster, binaries))
}

/// How often in a row the server was started again, and when last.
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

/// Nothing, then 0.2 s, doubled each time.
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
