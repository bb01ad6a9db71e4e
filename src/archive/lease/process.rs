//! Identifies the process that holds the lease, and finds out whether it has ended.

use std::fs;

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use serde::{Deserialize, Serialize};

/// Identifies a process, so that another process can find out whether it still runs. It includes the start time,
/// because process ids are reused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) host: String,
    pub(super) pid: i32,
    /// The start time, in clock ticks since the machine was started.
    started: Option<u64>,
    /// The boot id of the machine. A sandbox may hide it.
    boot_id: Option<String>,
    machine_id: Option<String>,
    /// The PID namespace: each container numbers its processes itself.
    pid_namespace: Option<String>,
}

impl Process {
    /// This one.
    pub(super) fn current() -> Self {
        let pid = Pid::this().as_raw();
        let read = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Self {
            host: read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname")).unwrap_or_default(),
            pid,
            started: started(pid),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            machine_id: read("/etc/machine-id"),
            pid_namespace: fs::read_link("/proc/self/ns/pid").ok().map(|link| link.display().to_string()),
        }
    }

    /// Whether the process has certainly ended. False for a process of another machine or container, about which
    /// nothing is known.
    pub(super) fn is_gone(&self, now: &Self) -> bool {
        if !self.is_neighbour_of(now) || self.pid <= 0 {
            return false;
        }
        match kill(Pid::from_raw(self.pid), None) {
            Err(Errno::ESRCH) => true,
            // It runs, or another one has its id.
            _ => started(self.pid).zip(self.started).is_some_and(|(found, recorded)| found != recorded),
        }
    }

    /// Whether both are in the same PID namespace of the same machine.
    fn is_neighbour_of(&self, other: &Self) -> bool {
        let same = |ours: &Option<String>, theirs: &Option<String>| {
            ours.as_ref().zip(theirs.as_ref()).map(|(a, b)| a == b)
        };
        let same_machine =
            same(&self.boot_id, &other.boot_id).or_else(|| same(&self.machine_id, &other.machine_id));
        same_machine == Some(true) && same(&self.pid_namespace, &other.pid_namespace) == Some(true)
    }
}

/// The start time of a process: the 22nd field of `proc_pid_stat(5)`, the 20th after the name in parentheses, which
/// may contain anything.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;

    #[test]
    fn only_a_neighbour_that_has_ended_is_gone() {
        let now = Process::current();
        assert!(now.started.is_some() && now.pid_namespace.is_some(), "{now:?}");
        assert!(!now.is_gone(&now));
        let mut child = child::command("true").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("an id");
        child.wait().expect("its end");
        let gone = Process { pid, started: Some(1), ..now.clone() };
        assert!(gone.is_gone(&now));
        let before = Process { started: now.started.map(|started| started - 1), ..now.clone() };
        assert!(before.is_gone(&now), "its id was given out again");
        for elsewhere in [
            Process { boot_id: Some("another start".to_owned()), ..gone.clone() },
            Process { pid_namespace: Some("pid:[1]".to_owned()), ..gone.clone() },
            Process { boot_id: None, machine_id: None, ..gone.clone() },
            Process { pid: 0, ..gone },
            Process::default(),
        ] {
            assert!(!elsewhere.is_gone(&now), "{elsewhere:?}");
        }
    }
}
