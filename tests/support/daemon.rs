//! The program under test, as its users run it: the real binary, configured by environment.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use backscroll::postgres::{Server, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Longer than anything a test waits for takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How Backscroll is to be run.
pub(crate) struct Backscroll {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run that goes on. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    stderr: PathBuf,
}

impl Backscroll {
    /// As the owner of `access_token` on the homeserver at `url`, into the database at `database_url`; `None`: the
    /// embedded one.
    pub(crate) fn new(url: &str, access_token: &str, database_url: Option<&str>) -> Self {
        let directory = tempfile::Builder::new().prefix("bs").tempdir_in("/var/tmp").unwrap();
        // The embedded server runs as another user when we are root.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let backscroll = Self { directory, environment: Vec::new() };
        backscroll.write_token(access_token);
        let token_file = backscroll.token_file().display().to_string();
        let data_dir = backscroll.path().join("data").display().to_string();
        let backscroll = backscroll
            .set("BACKSCROLL_HOMESERVER__URL", url)
            .set("BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE", &token_file)
            .set("BACKSCROLL_DATA_DIR", &data_dir)
            .set("BACKSCROLL_LOG__FORMAT", "json");
        match database_url {
            Some(database_url) => backscroll.set("BACKSCROLL_DATABASE__URL", database_url),
            None => backscroll,
        }
    }

    /// With another setting, such as `BACKSCROLL_BACKFILL__PAGE_SIZE`.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(set, _)| set != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.path().join("token")
    }

    pub(crate) fn write_token(&self, access_token: &str) {
        fs::write(self.token_file(), access_token).unwrap();
        fs::set_permissions(self.token_file(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The command, with nothing of the test's own environment but what programs need.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backscroll"));
        command.args(arguments).env_clear().current_dir(self.path()).stdin(Stdio::null());
        for name in ["PATH", "HOME", "BACKSCROLL_POSTGRES_BIN"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Outcome {
        let mut daemon = self.spawn(arguments, Stdio::piped());
        let mut stdout = daemon.child.stdout.take().unwrap();
        let reader = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut stdout).unwrap());
        let status = daemon.wait().await;
        Outcome { status, stdout: reader.await.unwrap(), stderr: daemon.stderr() }
    }

    /// Runs `backscroll run --once`, which must succeed.
    pub(crate) async fn once(&self) -> Outcome {
        let outcome = self.run(&["run", "--once"]).await;
        assert!(outcome.status.success(), "{:?}\n{}", outcome.status, outcome.stderr);
        assert_eq!(outcome.stdout, "", "a daemon has nothing to say but its log");
        outcome
    }

    /// Starts a command that goes on.
    pub(crate) fn start(&self, arguments: &[&str]) -> Daemon {
        self.spawn(arguments, Stdio::null())
    }

    fn spawn(&self, arguments: &[&str], stdout: Stdio) -> Daemon {
        let (file, stderr) = tempfile::NamedTempFile::new_in(self.path()).unwrap().keep().unwrap();
        let child = self.command(arguments).stdout(stdout).stderr(file).spawn().unwrap();
        Daemon { child, stderr }
    }
}

impl Daemon {
    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        std::io::read_to_string(File::open(&self.stderr).unwrap()).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }

    /// Ends it as a service manager would; it must exit with 0.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait().await;
        assert!(status.success(), "{status:?}\n{}", self.stderr());
    }

    /// Waits until it has logged that.
    pub(crate) async fn says(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.stderr().contains(text) {
            assert!(Instant::now() < deadline, "not said after {PATIENCE:?}: {text}\n{}", self.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.signal(Signal::SIGKILL);
                panic!("not ended after {PATIENCE:?}:\n{}", self.stderr());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `difference` finds none; fails with the last one found.
    pub(crate) async fn settles(&mut self, mut difference: impl AsyncFnMut() -> Option<String>) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(found) = difference().await {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) while {found}:\n{}", self.stderr());
            }
            assert!(Instant::now() < deadline, "still after {PATIENCE:?}: {found}\n{}", self.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `condition` holds; fails if the daemon ends before.
    pub(crate) async fn until(&mut self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) before {what}:\n{}", self.stderr());
            }
            assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}\n{}", self.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The embedded server of an archive at which no Backscroll is at work, run to look into it.
pub(crate) struct Embedded {
    server: Server,
}

impl Embedded {
    pub(crate) async fn open(backscroll: &Backscroll) -> Self {
        let bin_dir = std::env::var_os("BACKSCROLL_POSTGRES_BIN").map(PathBuf::from);
        let settings = Settings { data_dir: backscroll.path().join("data"), bin_dir };
        Self { server: Server::start(&settings).await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) async fn close(self) {
        self.server.stop().await.unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
