//! One run of the server: claim the cluster, start, wait until it is ready, stop.

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

/// Between two looks at a server that is coming or going.
const PAUSE: Duration = Duration::from_millis(15);
/// For somebody else's server to come up or to be gone: an initialisation on a slow disk, a
/// recovery.
const CLAIM_PATIENCE: Duration = Duration::from_mins(2);
/// For our own: it says that it is recovering, and its death would be noticed.
const START_PATIENCE: Duration = Duration::from_mins(10);
/// For the C library, in bytes (mallopt(3)): what a page's rows have taken in a server process is kept for the next page. As
/// it comes, it is given back to the kernel after each and taken again, to be cleared each time.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "16777216"),
    ("MALLOC_MMAP_THRESHOLD_", "4194304"),
    ("MALLOC_TOP_PAD_", "1048576"),
];

/// How a cluster is found.
pub(super) enum Claim {
    /// A server runs and would carry out a query.
    Live(Postmaster),
    /// Nobody is there, nor can be until the lock is dropped.
    Free(Lock),
}

/// Adopts a live server, waits for one that is coming or going, or takes the lock.
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

/// Starts the server and waits until it is ready. It holds the lock from here on.
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

/// What a killed server left in a directory that only servers of this cluster use: PostgreSQL
/// removes it too, unless it mistakes somebody for its maker.
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

/// Until a server of ours carries out queries. Fails at once when it ends instead.
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

/// Waits for a running server that does not answer just now, as after the crash of one of its
/// processes. True once it answers, false once it has ended.
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

/// Asks ever less politely: cut the connections and write everything out; drop everything, the
/// next start recovers; die.
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

/// Takes the empty socket directory away, unless the next server is already moving in.
pub(super) fn tidy(cluster: &Cluster, socket_dir: &Path) {
    if let Ok(Some(_lock)) = Lock::try_take(&cluster.data) {
        // Not ours alone to judge: a directory that is in use is not empty.
        let _ = fs::remove_dir(socket_dir);
    }
}
