//! One run of the server: claims the cluster, starts the server, waits until it is ready, stops it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::warn;

use super::binaries::Binaries;
use super::child::{Child, ended};
use super::cluster::Cluster;
use super::postmaster::{Lock, Postmaster, remove_mistakable};
use super::socket::{Answer, knock, socket_file};
use super::{Error, PORT, config};

/// How often a server that is starting or stopping is checked.
const PAUSE: Duration = Duration::from_millis(15);
/// How long another process's server may take to start or stop, for example to initialise on a slow disk or to recover.
const CLAIM_PATIENCE: Duration = Duration::from_mins(2);
/// How long our own server may take. It reports that it is recovering, and its end would be noticed.
const START_PATIENCE: Duration = Duration::from_mins(10);
/// A setting of the C library, in bytes (mallopt(3)): a server process keeps the memory for a page's rows for the
/// next page. By default it returns the memory to the kernel after each page and gets it back zeroed each time, which
/// costs time.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "16777216"),
    ("MALLOC_MMAP_THRESHOLD_", "4194304"),
    ("MALLOC_TOP_PAD_", "1048576"),
];

/// The state in which a cluster is found.
pub(super) enum Claim {
    /// A server runs and accepts queries.
    Live(Postmaster),
    /// No server runs, and none can start until the lock is dropped.
    Free(Lock),
}

/// Finds a running server, waits for one that is starting or stopping, or takes the lock.
pub(super) async fn claim(cluster: &Cluster) -> Result<Claim, Error> {
    let deadline = Instant::now() + CLAIM_PATIENCE;
    loop {
        let lock = Lock::try_take(&cluster.data)?;
        let postmaster = cluster.postmaster();
        let is_alive = postmaster.as_ref().is_some_and(|postmaster| postmaster.is_alive(&cluster.dir));
        if let Some(postmaster) = postmaster {
            let is_dying = lock.is_none() && postmaster.is_orphan(&cluster.dir, &cluster.data);
            let may_answer = postmaster.is_ready && !is_dying;
            if may_answer && is_ready(&postmaster.socket_dir, postmaster.port).await? {
                return Ok(Claim::Live(postmaster));
            }
        }
        match lock {
            Some(lock) if !is_alive => return Ok(Claim::Free(lock)),
            _ if Instant::now() > deadline => {
                return Err(Error::Busy {
                    dir: cluster.dir.clone(),
                    log: cluster.log().path(),
                    seconds: CLAIM_PATIENCE.as_secs(),
                });
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

pub(super) async fn is_ready(socket_dir: &Path, port: u16) -> Result<bool, Error> {
    match knock(socket_dir, port).await {
        Answer::Ready => Ok(true),
        Answer::NotYet => Ok(false),
        Answer::Refused { code, message } => Err(Error::Refused { code, message }),
    }
}

/// Starts the server and waits until it is ready. The server holds the lock from then on.
pub(super) async fn launch(
    cluster: &Cluster,
    binaries: &Binaries,
    socket_dir: &Path,
    mut lock: Lock,
) -> Result<Child, Error> {
    cluster.write_settings()?;
    remove_mistakable(&lock, &cluster.open()?, &cluster.dir)?;
    remove_socket(socket_dir)?;
    let log = cluster.log();
    log.trim()?;
    let before = log.len();
    lock.sign()?;
    let mut command = cluster.owner.command(&binaries.postgres());
    command
        .arg("-D")
        .arg(&cluster.dir)
        .args(config::arguments(socket_dir))
        .envs(MALLOC)
        .stdin(lock.share()?)
        .stdout(Stdio::null())
        .stderr(log.append()?);
    let child = Child::spawn(command, Signal::SIGINT)
        .await
        .map_err(|source| cluster.cannot_run(source, "postgres"))?;
    drop(lock);
    wait_ready(&child, cluster, socket_dir, before).await?;
    Ok(child)
}

/// Removes the socket files of a killed server from a directory that only servers of this cluster use. PostgreSQL
/// removes them too, unless another process now has the old server's id.
fn remove_socket(dir: &Path) -> Result<(), Error> {
    let socket = socket_file(dir, PORT);
    let mut lock = socket.clone().into_os_string();
    lock.push(".lock");
    for path in [socket, lock.into()] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Waits until our own server accepts queries. Fails at once if it ends.
async fn wait_ready(child: &Child, cluster: &Cluster, socket_dir: &Path, before: u64) -> Result<(), Error> {
    let begun = Instant::now();
    let mut logged = begun;
    loop {
        if let Some(status) = child.ended() {
            return Err(cluster.log().failure("postgres", status, before));
        }
        let says_so = cluster.postmaster().is_some_and(|it| it.is_ready);
        if says_so && is_ready(socket_dir, PORT).await? {
            return Ok(());
        }
        if begun.elapsed() > START_PATIENCE {
            return Err(Error::NotReady { log: cluster.log().path(), seconds: START_PATIENCE.as_secs() });
        }
        if logged.elapsed() > Duration::from_secs(10) {
            logged = Instant::now();
            warn!(waited_s = begun.elapsed().as_secs(), "the private PostgreSQL is not ready yet");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for a running server that does not answer, for example after one of its processes has crashed. True once it
/// answers, false once it has ended.
pub(super) async fn recovers(child: &Child, cluster: &Cluster, socket_dir: &Path) -> Result<bool, Error> {
    match wait_ready(child, cluster, socket_dir, cluster.log().len()).await {
        Ok(()) => Ok(true),
        Err(Error::Failed { status, said, .. }) => {
            warn!(status, said, "the private PostgreSQL has ended");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Stops the server in three steps, each only if the one before took too long: a fast shutdown, which closes
/// connections and writes everything to disk; an immediate one, after which the next start recovers; and SIGKILL.
pub(super) async fn stop(child: &Child) -> Result<(), Error> {
    let ways = [
        (Signal::SIGINT, Duration::from_secs(10)),
        (Signal::SIGQUIT, Duration::from_secs(5)),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ];
    for (signal, patience) in ways {
        child.signal(signal);
        if tokio::time::timeout(patience, ended(child.exit())).await.is_ok() {
            return Ok(());
        }
        warn!(%signal, pid = child.pid(), "the private PostgreSQL has not ended yet");
    }
    Err(Error::Undead(child.pid()))
}

/// Removes the socket directory if it is empty. The next server may already use it.
pub(super) fn tidy(cluster: &Cluster, socket_dir: &Path) {
    if let Ok(Some(_lock)) = Lock::try_take(&cluster.data) {
        // It is not empty, so another server uses it.
        let _ = fs::remove_dir(socket_dir);
    }
}
