//! The program under measurement, and the replay server that it reads from, as processes.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{process, replay::Replay};

/// A replay server; ends with the value.
pub(crate) struct ReplayServer {
    child: Child,
    pub(crate) url: String,
}

impl ReplayServer {
    pub(crate) fn start(replay: &Replay) -> anyhow::Result<Self> {
        let Replay { rooms, first_room, events, body_bytes, keep, delay_ms, members, timeline } = replay;
        let numbers = [
            *rooms,
            *first_room,
            *events,
            *body_bytes as u64,
            u64::from(*keep),
            *delay_ms,
            *members,
            *timeline,
        ];
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &numbers.map(|number| number.to_string()).join(",")])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut url)?;
        Ok(Self { child, url: url.trim().to_owned() })
    }

    /// The answer to something that only a replay server does.
    pub(crate) async fn conduct(&self, what: &str) -> anyhow::Result<String> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /_matrix/client/bench/{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    /// Processor time that it has taken.
    pub(crate) fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }
}

impl Drop for ReplayServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// From the start of the process to its end.
    pub(crate) took: Duration,
    /// Its processor time.
    pub(crate) cpu: Duration,
    /// Most memory resident, in KiB.
    pub(crate) peak_rss_kib: u64,
}

/// Backscroll as its users run it: with its default settings, but for where to read from and to write to.
pub(crate) struct Archiver {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Archiver {
    pub(crate) fn new(homeserver: &str, database_url: &str) -> anyhow::Result<Self> {
        Self::with_token(homeserver, "replay", database_url)
    }

    pub(crate) fn with_token(homeserver: &str, token: &str, database_url: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, token)?;
        std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600))?;
        let environment = [
            ("BACKSCROLL_HOMESERVER__URL", homeserver),
            ("BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE", &token_file.display().to_string()),
            ("BACKSCROLL_DATABASE__URL", database_url),
            ("BACKSCROLL_DATA_DIR", &directory.path().join("data").display().to_string()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Ok(Self { directory, environment })
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts a command of it; what it logs goes to a file.
    pub(crate) fn start(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let log = std::fs::File::create(self.log())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_backscroll"));
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has logged.
    pub(crate) fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Archives all there is.
    pub(crate) fn once(&self) -> anyhow::Result<Run> {
        let start = Instant::now();
        let child = self.start(&["run", "--once"])?;
        wait(child, start).with_context(|| self.read_log())
    }
}

/// Waits for a process's end and shows what it took: the kernel keeps that of a process that has ended but was not
/// waited for.
pub(crate) fn wait(mut child: Child, start: Instant) -> anyhow::Result<Run> {
    let mut peak_rss_kib = 0;
    loop {
        peak_rss_kib = process::peak_rss_kib(child.id()).max(peak_rss_kib);
        let ended = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
        if ended {
            let (took, cpu) = (start.elapsed(), process::cpu(child.id()));
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "it ended with {status}");
            return Ok(Run { took, cpu, peak_rss_kib });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
