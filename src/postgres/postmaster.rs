//! Who runs the cluster: the lock that every server of ours holds, and `postmaster.pid`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Error;

/// Held by whoever may write to the cluster.
///
/// The lock belongs to the open file, not to a process: the server inherits it as its standard
/// input, and its processes in turn. So it is free when the last of them is gone, and never before,
/// however the server and its parent ended, and in whatever container they ran.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// `None` while somebody else holds it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        }
    }

    /// Notes our process in the file: [`Postmaster::is_orphan`] asks for it.
    pub(super) fn sign(&mut self) -> Result<(), Error> {
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut self.file).map_err(Error::io("write", &self.path))
    }

    /// The standard input of a child that shall hold the lock as well.
    pub(super) fn share(&self) -> Result<Stdio, Error> {
        let file = self.file.try_clone();
        file.map(Stdio::from).map_err(Error::io("share", &self.path))
    }
}

/// The process that [signed](Lock::sign) last.
fn signer(lock: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(lock).ok()?.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The server that `postmaster.pid` tells of. It may be long gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) socket_dir: PathBuf,
    /// It says so itself. Whoever knocks earlier is turned away, and that goes to the log.
    pub(super) is_ready: bool,
}

/// What the process of that number is today.
#[derive(Debug, PartialEq, Eq)]
enum Process {
    /// A server of this very cluster: it works in that directory.
    Server,
    /// Something else that got the number, or a dead server that nobody has reaped.
    Stranger,
    Gone,
    /// Another user's, or there is no `/proc`.
    Unknown,
}

impl Postmaster {
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    /// Lines: process, data directory, start time, port, socket directory, addresses, shared memory,
    /// status. The server writes them bit by bit.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let port = lines.nth(2)?.trim().parse().ok()?;
        let socket_dir = PathBuf::from(lines.next()?);
        socket_dir.is_absolute().then_some(Self {
            pid,
            port,
            socket_dir,
            is_ready: lines.nth(2).is_some_and(|status| status.trim() == "ready"),
        })
    }

    /// Its process is there and is a server of this cluster.
    pub(super) fn is_alive(&self, cluster: &Path) -> bool {
        process(self.pid, cluster) == Process::Server
    }

    /// It runs, but the backscroll that started it does not: it is about to end. To be asked only
    /// while the lock is held, which tells that it was a backscroll that started it.
    pub(super) fn is_orphan(&self, cluster: &Path, lock: &Path) -> bool {
        self.is_alive(cluster)
            && match (parent(self.pid), signer(lock)) {
                (Some(parent), Some(signer)) => parent != signer,
                _ => false,
            }
    }
}

/// Removes a `postmaster.pid` whose number now belongs to somebody else.
///
/// PostgreSQL decides over stale ones by itself, but takes any process of its user with that number
/// for a server. In a container, where numbers repeat from start to start, that is often a thread
/// of ours, or a zombie that nobody reaps, and the server would never start again.
pub(super) fn remove_mistakable(_held: &Lock, cluster: &Path) -> Result<(), Error> {
    let path = cluster.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(());
    };
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    match pid.map(|pid| process(pid, cluster)) {
        Some(Process::Stranger) => fs::remove_file(&path).map_err(Error::io("remove", &path)),
        _ => Ok(()),
    }
}

fn process(pid: u32, cluster: &Path) -> Process {
    let cluster = fs::canonicalize(cluster).unwrap_or_else(|_| cluster.to_owned());
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(dir) if dir == cluster => Process::Server,
        Ok(_) => Process::Stranger,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A zombie keeps its number but has no directory any more.
            if Path::new("/proc").join(pid.to_string()).exists() { Process::Stranger } else { Process::Gone }
        }
        Err(_) => Process::Unknown,
    }
}

/// The fourth field of `/proc/PID/stat`; the second is a name in brackets that may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_writes() {
        let text = "4242\n/d/postgres\n1700000000\n5432\n/d/run\n\n  1 2\nready   \n";
        let postmaster = Postmaster::parse(text).unwrap();
        assert_eq!((postmaster.pid, postmaster.port), (4242, 5432));
        assert_eq!(postmaster.socket_dir, Path::new("/d/run"));
        assert!(postmaster.is_ready);
        let early = Postmaster::parse("4242\n/d\n1\n5432\n/d/run\n\n 1 2\nstarting\n").unwrap();
        assert!(!early.is_ready);
    }

    #[test]
    fn half_a_file_is_none() {
        assert_eq!(Postmaster::parse("4242\n/d/postgres\n1700000000\n5432\n"), None);
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("-7\n/d\n1\n5432\n/d/run\n"), None);
    }

    #[test]
    fn knows_processes_by_their_directory() {
        let me = std::process::id();
        let here = fs::read_link("/proc/self/cwd").unwrap();
        assert_eq!(process(me, &here), Process::Server);
        assert_eq!(process(me, Path::new("/d/postgres")), Process::Stranger);
        assert_eq!(process(u32::MAX, &here), Process::Gone);
        assert_eq!(parent(me), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn the_lock_is_free_when_the_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut lock = Lock::try_take(&path).unwrap().unwrap();
        lock.sign().unwrap();
        assert_eq!(signer(&path), Some(std::process::id()));
        let copy = lock.share().unwrap();
        drop(lock);
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(copy);
        // A child of another test may hold a copy for as long as it takes from fork to exec.
        let free = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            Lock::try_take(&path).unwrap().is_some()
        });
        assert!(free);
    }
}
