//! A child process that ends with this process.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::{oneshot, watch};

/// A running program of PostgreSQL. When this process dies for any reason, the kernel sends the child a signal to
/// end. Dropping the handle sends the same signal and does not wait.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    death_signal: Signal,
    /// False once the child was reaped. From then on, the kernel may give its process id to another process.
    killable: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts the command in its own process group, so that Ctrl-C does not stop the server before our last
    /// transaction has ended.
    pub(super) async fn spawn(mut command: Command, death_signal: Signal) -> io::Result<Self> {
        command.process_group(0);
        die_with_parent(&mut command, death_signal);
        let (started, start) = oneshot::channel();
        // The kernel sends the death signal when the thread that forked ends. So the child gets a thread that lives
        // as long as it does. A worker thread of tokio might end at any time and would stop the server.
        thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || run(command, death_signal, started))?;
        start.await.unwrap_or_else(|_| Err(io::Error::other("the spawning thread ended")))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub(super) fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// A future that resolves when the child ends and does not borrow it.
    pub(super) fn exit(&self) -> watch::Receiver<Option<ExitStatus>> {
        self.exit.clone()
    }

    pub(super) fn signal(&self, signal: Signal) {
        let killable = self.killable.lock().unwrap_or_else(PoisonError::into_inner);
        if *killable {
            // The child may just have ended by itself.
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(self.death_signal);
    }
}

/// Starts a child on its own thread and waits for its end.
fn run(mut command: Command, death_signal: Signal, started: oneshot::Sender<io::Result<Child>>) {
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // Closes our copies of the child's file descriptors.
    drop(command);
    let pid = Pid::from_raw(process.id().cast_signed());
    let (ended, exit) = watch::channel(None);
    let killable = Arc::new(Mutex::new(true));
    // If nobody waits for the child, its handle is dropped here, which stops it.
    let _ = started.send(Ok(Child { pid, death_signal, killable: Arc::clone(&killable), exit }));
    let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let mut killable = killable.lock().unwrap_or_else(PoisonError::into_inner);
    *killable = false;
    let status = process.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
    drop(killable);
    ended.send_replace(Some(status));
}

/// Resolves with the exit status once the child has ended.
pub(super) async fn ended(mut exit: watch::Receiver<Option<ExitStatus>>) -> ExitStatus {
    match exit.wait_for(Option::is_some).await {
        Ok(status) => status.expect("waited for a status"),
        // The waiting thread has ended without a result, which only a panic can cause.
        Err(_) => ExitStatus::from_raw(0),
    }
}

#[expect(unsafe_code, reason = "pre_exec: the closure makes two plain system calls and allocates nothing")]
fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = Pid::this();
    let arm = move || {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have died before the signal was armed.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    };
    // SAFETY: `arm` runs between fork and exec. It calls prctl and getppid only, takes no lock and
    // does not allocate: `ErrorKind` converts without a heap cell.
    unsafe {
        command.pre_exec(arm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_and_the_drop_ends_it() {
        let mut command = crate::child::command("sleep");
        command.arg("60");
        let child = Child::spawn(command, Signal::SIGKILL).await.unwrap();
        assert!(child.ended().is_none());
        let exit = child.exit();
        drop(child);
        assert_eq!(ended(exit).await.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let command = crate::child::command("/nonexistent/postgres");
        let error = Child::spawn(command, Signal::SIGINT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
