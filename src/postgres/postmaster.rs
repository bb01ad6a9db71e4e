//! Which process runs the cluster: the lock that every private server holds, and `postmaster.pid`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::OFlag;

use super::Error;
use super::dir::Dir;

const LOCK: &str = "postgres.lock";
const PID_FILE: &str = "postmaster.pid";

/// The lock of every process that may write to the cluster.
///
/// The lock belongs to the open file, not to a process. The server inherits it as its standard input, and so do the
/// server's processes. It is free when the last of them has ended and not before, however the server and its parent
/// ended, and in whichever container they ran.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// `None`: another process holds it.
    pub(super) fn try_take(data: &Dir) -> Result<Option<Self>, Error> {
        let path = data.path(LOCK);
        let file = data.file(LOCK, OFlag::O_RDWR | OFlag::O_CREAT).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Writes our process id to the file, for [`Postmaster::is_orphan`].
    pub(super) fn sign(&mut self) -> Result<(), Error> {
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut self.file).map_err(Error::io("write", &self.path))
    }

    /// The standard input for a child that must hold the lock too.
    pub(super) fn share(&self) -> Result<Stdio, Error> {
        let file = self.file.try_clone();
        file.map(Stdio::from).map_err(Error::io("share", &self.path))
    }
}

/// The process that [signed](Lock::sign) last.
fn signer(data: &Dir) -> Option<u32> {
    data.read(LOCK).ok()?.trim().parse().ok()
}

/// The server that `postmaster.pid` names. It may have ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) socket_dir: PathBuf,
    /// Whether the server has written that it is ready. An earlier connection is refused, which the server logs.
    pub(super) is_ready: bool,
}

/// What the process with that id is now.
#[derive(Debug, PartialEq, Eq)]
enum Process {
    /// A server of this cluster: its working directory is the cluster.
    Server,
    /// Another process with the same id, or a server that has ended and was not reaped.
    Stranger,
    Gone,
    /// Unknown: it belongs to another user, or there is no `/proc`.
    Unknown,
}

impl Postmaster {
    pub(super) fn read(cluster: &Dir) -> Option<Self> {
        Self::parse(&cluster.read(PID_FILE).ok()?)
    }

    /// Parses the lines: process, data directory, start time, port, socket directory, addresses, shared memory,
    /// status. The server writes them one after the other, so some may be missing.
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

    /// Whether its process exists and is a server of this cluster.
    pub(super) fn is_alive(&self, cluster: &Path) -> bool {
        process(self.pid, cluster) == Process::Server
    }

    /// Whether it runs although the backscroll that started it has ended, so that it will end too. Call this only
    /// while another process holds the lock, which shows that a backscroll started it.
    pub(super) fn is_orphan(&self, cluster: &Path, data: &Dir) -> bool {
        self.is_alive(cluster)
            && match (parent(self.pid), signer(data)) {
                (Some(parent), Some(signer)) => parent != signer,
                _ => false,
            }
    }
}

/// Removes a `postmaster.pid` of a server that has ended, if PostgreSQL itself would not remove it.
///
/// PostgreSQL removes most stale files itself. But it refuses to start if the file is empty or damaged, for example
/// after a full disk or a power failure. It also takes any process of its user with that id for a server. In a
/// container, where ids repeat after every start, that is often a thread of ours or a zombie, and the server would
/// never start again.
pub(super) fn remove_mistakable(_held: &Lock, cluster: &Dir, path: &Path) -> Result<(), Error> {
    let is_mistakable = match cluster.read(PID_FILE) {
        Ok(text) => is_mistakable(&text, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // It is a link, a pipe, or a file that its owner may not read.
        Err(_) => true,
    };
    if is_mistakable {
        cluster.remove(PID_FILE).map_err(Error::io("remove", &cluster.path(PID_FILE)))?;
    }
    Ok(())
}

fn is_mistakable(text: &str, cluster: &Path) -> bool {
    // A server in single-user mode writes its process id with a minus sign.
    let number = |line: &str| line.trim().parse::<i32>().ok().map(i32::unsigned_abs).filter(|pid| *pid != 0);
    let Some(pid) = text.lines().next().and_then(number) else { return true };
    process(pid, cluster) == Process::Stranger && !holds_memory(text)
}

/// Whether processes still use the server's shared memory segment, which the seventh line names by key and id.
/// PostgreSQL refuses to start while any process uses it, for example the rest of a server that Backscroll did not
/// start.
fn holds_memory(text: &str) -> bool {
    let Some(segment) = text.lines().nth(6) else { return false };
    let names: Vec<&str> = segment.split_whitespace().collect();
    let all = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    // Columns: key, id, mode, size, creator, last user, number of processes (proc_sysvipc_shm(5)).
    all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|columns| {
        names.len() == 2 && columns.starts_with(&names) && columns.get(6).is_some_and(|count| *count != "0")
    })
}

fn process(pid: u32, cluster: &Path) -> Process {
    let cluster = fs::canonicalize(cluster).unwrap_or_else(|_| cluster.to_owned());
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(dir) if dir == cluster && is_postgres(pid) => Process::Server,
        // A zombie keeps its process id but has no working directory.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && !Path::new(&format!("/proc/{pid}")).exists() =>
        {
            Process::Gone
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound && is_postgres(pid) => Process::Unknown,
        Ok(_) | Err(_) => Process::Stranger,
    }
}

/// Whether the process has the name of a PostgreSQL server. True if that is unknown. Every user may read the name.
fn is_postgres(pid: u32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return true };
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(program);
    program.contains("postgres") || program.contains("postmaster")
}

/// The parent: the fourth field of `/proc/PID/stat`. The second field is a name in brackets that may contain anything.
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
        use std::os::unix::process::CommandExt as _;
        let me = std::process::id();
        let here = fs::read_link("/proc/self/cwd").unwrap();
        let mut server = crate::child::command("sleep").arg0("postgres").arg("60").spawn().unwrap();
        // It has its name from exec on, which `spawn` has waited for.
        assert_eq!(process(server.id(), &here), Process::Server);
        assert_eq!(process(server.id(), Path::new("/d/postgres")), Process::Stranger);
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(process(me, &here), Process::Stranger, "in that directory, and no server");
        assert_eq!(process(me, Path::new("/d/postgres")), Process::Stranger);
        assert_eq!(process(u32::MAX, &here), Process::Gone);
        assert_eq!(parent(me), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_file_that_names_no_server_is_mistakable() {
        let (cluster, me) = (Path::new("/d/postgres"), std::process::id());
        for text in ["", "\n", "garbage", "\0\0\0\0", "0\n", "99999999999999\n/d", "\u{fffd}\n"] {
            assert!(is_mistakable(text, cluster), "{text:?}");
        }
        for sign in ["", "-"] {
            assert!(is_mistakable(&format!("{sign}{me}\n/d/postgres\n"), cluster));
            assert!(
                !is_mistakable(&format!("{sign}{}\n/d/postgres\n", i32::MAX), cluster),
                "PostgreSQL's own business"
            );
        }
    }

    #[test]
    fn the_lock_is_free_when_the_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = Dir::open(dir.path()).unwrap();
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
