//! PostgreSQL servers of a test's own, to be stopped, broken, copied and promoted.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

/// A server on a Unix socket of its own. Stopped when dropped.
pub(crate) struct Cluster {
    directory: TempDir,
}

/// Where a program of PostgreSQL is.
pub(crate) fn program(name: &str) -> PathBuf {
    std::env::var_os("BACKSCROLL_POSTGRES_BIN").map_or_else(
        || {
            let installed = |major: &u32| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/{name}"));
            (15..30)
                .rev()
                .map(|major| installed(&major))
                .find(|path| path.exists())
                .unwrap_or_else(|| name.into())
        },
        |directory| PathBuf::from(directory).join(name),
    )
}

impl Cluster {
    /// A new one, running.
    pub(crate) fn new() -> Self {
        let cluster = Self::empty();
        cluster.must(
            "initdb",
            &["--pgdata", &cluster.data(), "--username", "backscroll", "--auth", "trust", "--no-sync"],
        );
        cluster.start();
        cluster
    }

    /// A copy of a running one that follows it, running.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let cluster = Self::empty();
        let host = primary.socket_dir();
        cluster.must(
            "pg_basebackup",
            &[
                "--pgdata",
                &cluster.data(),
                "--host",
                &host,
                "--username",
                "backscroll",
                "--checkpoint",
                "fast",
            ],
        );
        cluster.follow(primary);
        cluster.start();
        cluster
    }

    fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("bsc").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = unprivileged() {
            nix::unistd::chown(directory.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        Self { directory }
    }

    /// Has it follow another one from its next start on.
    pub(crate) fn follow(&self, primary: &Self) {
        let data = PathBuf::from(self.data());
        fs::write(data.join("standby.signal"), "").unwrap();
        let from = format!("primary_conninfo = 'host={} user=backscroll'\n", primary.socket_dir());
        fs::write(data.join("postgresql.auto.conf"), from).unwrap();
        if let Some(user) = unprivileged() {
            nix::unistd::chown(&data.join("standby.signal"), Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    pub(crate) fn socket_dir(&self) -> String {
        self.directory.path().display().to_string()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres:///postgres?user=backscroll&dbname=postgres&host={}", self.socket_dir())
    }

    /// The URL of somebody else.
    pub(crate) fn url_of(&self, role: &str) -> String {
        self.url().replace("user=backscroll", &format!("user={role}"))
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&self) {
        let options = format!(
            "-c listen_addresses='' -c fsync=off -c hot_standby=on -c unix_socket_directories='{}'",
            self.socket_dir()
        );
        let log = self.directory.path().join("log").display().to_string();
        self.must(
            "pg_ctl",
            &["start", "--wait", "--pgdata", &self.data(), "--log", &log, "--options", &options],
        );
    }

    /// Stops it; `immediate` is as good as a crash.
    pub(crate) fn stop(&self, mode: &str) {
        self.must("pg_ctl", &["stop", "--wait", "--pgdata", &self.data(), "--mode", mode]);
    }

    /// Makes a primary of a standby.
    pub(crate) fn promote(&self) {
        self.must("pg_ctl", &["promote", "--wait", "--pgdata", &self.data()]);
    }

    fn must(&self, name: &str, arguments: &[&str]) {
        let output = self.command(name, arguments).output().unwrap();
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(output.status.success(), "{name}: {}\n{log}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        // What it leaves running must not hold a pipe.
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        if name == "pg_ctl" {
            command.stdout(Stdio::null());
        }
        if let Some(user) = unprivileged() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            let mut stop = self.command("pg_ctl", &["stop", "--pgdata", &self.data(), "--mode", "immediate"]);
            let _ = stop.stderr(Stdio::null()).status();
        }
    }
}

/// Who the server is to run as where we are root, as which it does not run.
fn unprivileged() -> Option<User> {
    let named = |name| User::from_name(name).ok().flatten();
    Uid::effective().is_root().then(|| named("postgres").or_else(|| named("nobody")).expect("a user"))
}
