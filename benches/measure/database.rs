//! The PostgreSQL that everything is measured on: the program's own embedded one, as it comes.

use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use backscroll::{archive::Archive, postgres};
use futures_util::StreamExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// The role that everything is done as.
const USER: &str = "backscroll";
const TEMPLATE: &str = "archive_template";
/// What one message of a COPY stream holds.
const COPY_PIECE: usize = 64 << 10;

/// A server in a directory of its own, with an empty archive as a template.
pub(crate) struct Database {
    server: postgres::Server,
    tcp: Option<Listening>,
    directory: tempfile::TempDir,
}

/// A server that also listens on loopback TCP; shut down with the value.
struct Listening {
    process: Child,
    port: u16,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _ = self.process.wait();
    }
}

impl Database {
    /// `set`: settings of the server beside its own.
    pub(crate) async fn start(set: &[(String, String)]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("backscroll-bench-").tempdir_in("/var/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
        let data_dir = directory.path().join("data");
        let settings = postgres::Settings { data_dir, bin_dir: None };
        let mut database = Self { server: postgres::Server::start(&settings).await?, tcp: None, directory };
        if !set.is_empty() {
            for (name, value) in set {
                database.run("postgres", &format!("alter system set {name} = '{value}'")).await?;
            }
            // Some count only from the start.
            database.server.stop().await?;
            let server = postgres::Server::start(&settings).await?;
            database = Self { server, ..database };
        }
        database.run("postgres", &format!("create database {TEMPLATE}")).await?;
        let archive = Archive::connect(&database.url(TEMPLATE), 1).await?;
        archive.migrate().await?;
        archive.close().await;
        Ok(database)
    }

    /// Starts the server anew, as it was but for that it also listens on loopback TCP, which the program's own never does.
    pub(crate) async fn listen(self) -> anyhow::Result<Self> {
        let Self { server, directory, .. } = self;
        let data_dir = directory.path().join("data");
        let text = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid"))?;
        let running = Path::new("/proc").join(text.lines().next().context("its process")?);
        let hba = directory.path().join("hba");
        std::fs::write(&hba, "local all all trust\nhost all all 127.0.0.1/32 trust\n")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = same_command(&running)?;
        // The old one's directory goes with it.
        let sockets = directory.path().join("sockets");
        std::fs::create_dir(&sockets)?;
        let owner = std::fs::metadata(&running)?;
        std::os::unix::fs::chown(&sockets, Some(owner.uid()), Some(owner.gid()))?;
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("hba_file={}", hba.display()),
            format!("unix_socket_directories={}", sockets.display()),
        ] {
            command.args(["-c", &setting]);
        }
        server.stop().await?;
        command.stderr(std::fs::File::create(directory.path().join("log"))?);
        let mut tcp = Listening { process: command.current_dir("/").spawn()?, port };
        let is_ready = |text: String| text.contains("ready");
        while !std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).is_ok_and(is_ready) {
            anyhow::ensure!(tcp.process.try_wait()?.is_none(), "PostgreSQL does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let server = postgres::Server::start(&postgres::Settings { data_dir, bin_dir: None }).await?;
        anyhow::ensure!(server.adopted(), "another server was started");
        Ok(Self { server, tcp: Some(tcp), directory })
    }

    /// The URL of one of its databases by loopback TCP.
    pub(crate) fn tcp_url(&self, name: &str) -> anyhow::Result<String> {
        let port = self.tcp.as_ref().context("it listens")?.port;
        Ok(format!("postgres://{USER}@127.0.0.1:{port}/{name}"))
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await?;
        drop(self.tcp);
        drop(self.directory);
        Ok(())
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, name: &str) -> String {
        let url = self.server.url();
        url.replace("dbname=backscroll", &format!("dbname={name}"))
            .replace("/backscroll?", &format!("/{name}?"))
    }

    /// Makes an empty archive called `name`, in place of one that there may be, and writes out what lies in memory, so that
    /// no measurement pays for what came before it.
    pub(crate) async fn fresh(&self, name: &str) -> anyhow::Result<String> {
        self.run("postgres", &format!("drop database if exists {name} with (force)")).await?;
        self.run("postgres", &format!("create database {name} template {TEMPLATE}")).await?;
        self.run("postgres", "checkpoint").await?;
        Ok(self.url(name))
    }

    pub(crate) async fn run(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// A number that a query gives.
    pub(crate) async fn number(&self, name: &str, sql: &str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
        let text: String = row.try_get_unchecked(0)?;
        connection.close().await?;
        Ok(text.parse()?)
    }

    /// The archived events, in the order in which they lie in the table, as a binary COPY stream.
    pub(crate) async fn rows(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        let mut stream = connection.copy_out_raw("copy archive.events to stdout (format binary)").await?;
        let mut rows = Vec::new();
        while let Some(piece) = stream.next().await {
            rows.extend_from_slice(&piece?);
        }
        Ok(rows)
    }

    /// How long one COPY of `rows` into an empty archive's table takes, its commit included.
    pub(crate) async fn copy(&self, name: &str, rows: &[u8]) -> anyhow::Result<Duration> {
        let url = self.fresh(name).await?;
        let mut connection = PgConnection::connect(&url).await?;
        let start = Instant::now();
        let mut copy = connection.copy_in_raw("copy archive.events from stdin (format binary)").await?;
        for piece in rows.chunks(COPY_PIECE) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
        let took = start.elapsed();
        connection.close().await?;
        Ok(took)
    }
}

/// What a process of `/proc` runs: the same program with the same arguments, environment and user.
fn same_command(process: &Path) -> anyhow::Result<Command> {
    let (line, variables) =
        (std::fs::read(process.join("cmdline"))?, std::fs::read(process.join("environ"))?);
    let parts = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|byte| *byte == 0).filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let mut command = Command::new(std::fs::read_link(process.join("exe"))?);
    // An empty list of addresses is `listen_addresses=`; the last one given counts.
    command.args(parts(&line).iter().skip(1).map(|part| OsStr::from_bytes(part))).env_clear();
    for variable in parts(&variables) {
        if let Some(equals) = variable.iter().position(|byte| *byte == b'=') {
            let (name, value) = variable.split_at(equals);
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
        }
    }
    let owner = std::fs::metadata(process)?;
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}
