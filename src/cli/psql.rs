//! `backscroll psql`

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use crate::{
    child,
    config::{Config, DatabaseUrl},
    daemon::{Store, in_database},
};

/// Open the archive in psql, or run psql with ARGS.
///
/// Works with the configured database and with the private one, whether the daemon is running or not. Try
/// `backscroll psql -- -c 'select * from rooms'`.
#[derive(Debug, clap::Args)]
pub(super) struct Psql {
    /// Arguments for psql
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Psql {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let store = Store::open_existing(config).await?;
        if !store.archive.exists().await.map_err(crate::Error::from)? {
            eprintln!("backscroll: {}", in_database(&store.url));
        }
        let program = store.server().map_or_else(|| "psql".into(), |server| server.bin_dir().join("psql"));
        let command = self.command(&program, &store.url, store.server().is_none());
        let status = run(command).await;
        store.close().await?;
        let status = status.with_context(|| {
            format!("failed to run {}: install PostgreSQL's client programs", program.display())
        })?;
        Ok(ExitCode::from(code(status)))
    }

    /// The password is passed in the environment, because every user can see the arguments of a process. Backscroll's
    /// own secrets are not passed. `foreign`: the server is the operator's, so the operator's `PG…` variables apply.
    fn command(self, program: &Path, url: &DatabaseUrl, foreign: bool) -> Command {
        let mut command = child::command(program);
        child::pass(&mut command, |name| {
            child::TERMINAL.contains(&name)
                || name.starts_with("LC_")
                || name.starts_with("PSQL")
                || foreign && name.starts_with("PG") && !name.starts_with("PGSERVICE")
        });
        command.arg(url.without_password()).args(self.arguments);
        command.envs(url.password().map(|password| ("PGPASSWORD", password.expose_secret())));
        command
    }
}

async fn run(command: Command) -> std::io::Result<ExitStatus> {
    // Ctrl-C cancels a query in psql and must not end this process, which waits for psql.
    let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::process::Command::from(command).status().await
}

fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
