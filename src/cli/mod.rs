//! The command line, with one file for each command. `main.rs` calls [`main`]. [`Exit`] lists the exit codes.

mod backfill;
mod check;
mod config;
mod erase;
mod evidence;
mod export;
mod grant;
mod healthcheck;
mod hidden;
mod import;
mod keys;
mod login;
mod manual;
mod migrate;
mod progress;
mod psql;
mod resequence;
mod rooms;
mod run;
mod seal;
mod search;
mod status;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};
use ruma::{RoomAliasId, RoomOrAliasId};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Exit,
    archive::{self, requirements::Unmet},
    config::{Config, Overrides},
    daemon::{NoArchive, Stalled},
    matrix, postgres,
    service::http,
    telemetry,
    text::escape,
    transfer::foreign::{BadInput, Failed},
};

/// Archives Matrix rooms into PostgreSQL, with every event stored exactly once.
///
/// Give it a homeserver and an access token. It fetches every room's history, follows new events, and stores both in a
/// database that you query with SQL. Without a configured database it runs a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Arguments {
    /// Configuration file [default: `$BACKSCROLL_CONFIG`, ./backscroll.toml or /etc/backscroll/backscroll.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// What to log: error, warn, info, debug or trace, or a filter such as backscroll=debug,warn
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Every setting can also be an environment variable, BACKSCROLL_SECTION__KEY. \
`backscroll config example` prints all settings and what they mean.

First steps:
  export BACKSCROLL_HOMESERVER__URL=https://matrix.example.org
  export BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE=token
  backscroll login @me:example.org   gets a token and writes it to that file
  backscroll check                   checks the setup and reports problems
  backscroll run                     archives until you stop it
  backscroll search WORDS            finds messages
  backscroll verify                  proves that nothing is missing or altered
  backscroll psql                    opens the archive in psql";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Backfill(backfill::Backfill),
    Status(status::Status),
    Verify(verify::Verify),
    Rooms(rooms::Rooms),
    Search(search::Search),
    Seal(seal::Seal),
    Evidence(evidence::Evidence),
    Export(export::Export),
    Import(import::Import),
    Keys(keys::Keys),
    GrantReader(grant::GrantReader),
    GrantWriter(grant::GrantWriter),
    Check(check::Check),
    Healthcheck(healthcheck::Healthcheck),
    Psql(psql::Psql),
    Config(config::Config),
    Migrate(migrate::Migrate),
    Login(login::Login),
    Erase(erase::Erase),
    Resequence(resequence::Resequence),
    #[command(hide = true)]
    Manual(manual::Manual),
}

impl Command {
    fn is_daemon(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Backfill(_)
                | Self::Resequence(_)
                | Self::Export(_)
                | Self::Import(_)
                | Self::Config(_)
        )
    }
}

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A broken pipe is no reason to fail.
            let _ = error.print();
            let asked_for_text = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked_for_text { Exit::Success } else { Exit::Usage });
        }
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Config(command) = &arguments.command
        && command.needs_no_configuration()
    {
        return Ok(config::Config::show(None)?.into());
    }
    if let Command::Manual(command) = &arguments.command {
        return Ok(command.write()?.into());
    }
    if let Command::Evidence(command) = &arguments.command
        && let Some(file) = command.file_to_check()
    {
        return Ok(evidence::check(file)?.into());
    }
    let mut overrides = Overrides::default();
    // A command's result is its output, so it logs only warnings.
    let quiet = (!arguments.command.is_daemon()).then(|| "warn".to_owned());
    if let Some(level) = arguments.log_level.or(quiet) {
        overrides.set("log.level", "--log-level", level);
    }
    let config = Config::load(arguments.config.as_deref(), &overrides)?;
    if let Command::Config(_) = &arguments.command {
        return Ok(config::Config::show(Some(&config))?.into());
    }
    let telemetry = telemetry::start(&config.log)?;
    // `check` prints the warnings itself.
    for warning in config.warnings.iter().filter(|_| !matches!(arguments.command, Command::Check(_))) {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let exit = match arguments.command {
            Command::Run(command) => Box::pin(command.run(config, &telemetry)).await,
            Command::Backfill(command) => command.run(config, &telemetry).await,
            Command::Status(command) => command.run(&config).await,
            Command::Verify(command) => Box::pin(command.run(config, &telemetry)).await,
            Command::Seal(command) => Box::pin(command.run(&config)).await,
            Command::Rooms(command) => command.run(&config).await,
            Command::Search(command) => command.run(&config).await,
            Command::GrantReader(command) => command.run(&config).await,
            Command::GrantWriter(command) => command.run(&config).await,
            Command::Check(command) => command.run(&config).await,
            Command::Healthcheck(command) => command.run(&config).await,
            Command::Psql(command) => return command.run(&config).await,
            Command::Config(_) | Command::Manual(_) => unreachable!("was run above, without a runtime"),
            Command::Migrate(command) => command.run(&config).await,
            Command::Login(command) => command.run(&config).await,
            Command::Erase(command) => command.run(&config).await,
            Command::Evidence(command) => Box::pin(command.run(&config)).await,
            Command::Export(command) => Box::pin(command.run(&config)).await,
            Command::Import(command) => Box::pin(command.run(&config)).await,
            Command::Keys(command) => Box::pin(command.run(&config)).await,
            Command::Resequence(command) => Box::pin(command.run(config, &telemetry)).await,
        };
        Ok(exit?.into())
    })
}

/// The id of a room that was named by its id, or by an alias that the archive knows.
async fn archived_room(archive: &archive::Archive, room: &RoomOrAliasId) -> Result<String, Error> {
    let Ok(alias) = <&RoomAliasId>::try_from(room.as_str()) else { return Ok(room.as_str().to_owned()) };
    let room_id = archive.room_called(alias.as_str()).await?;
    Ok(room_id.ok_or_else(|| archive::Error::NoSuchAlias(alias.to_string()))?)
}

/// Prints the error, and its root cause if the error's text does not contain it.
fn complain(error: &anyhow::Error) {
    let failed = error.is::<archive::Error>() || error.is::<matrix::Error>();
    let failed = if failed { "failed to " } else { "" };
    // Text from a server or a file must not control the terminal. Line breaks are Backscroll's own.
    let text = format!("{failed}{error}");
    let cause = error.root_cause().to_string();
    let text = if text.contains(&cause) { text } else { format!("{text}: {cause}") };
    let lines: Vec<_> = text.lines().map(escape).collect();
    eprintln!("backscroll: {}", lines.join("\n"));
}

fn exit_code(error: &anyhow::Error) -> Exit {
    None.or_else(|| Some(error.downcast_ref::<Error>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<archive::Error>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<crate::config::Error>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<postgres::Error>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<http::Error>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<Unmet>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<BadInput>()?.exit_code()))
        .or_else(|| Some(error.downcast_ref::<Failed>()?.exit_code()))
        .or_else(|| error.downcast_ref::<Stalled>().map(|_| Stalled::EXIT_CODE))
        .or_else(|| error.downcast_ref::<NoArchive>().map(|_| NoArchive::EXIT_CODE))
        .or_else(|| error.downcast_ref::<telemetry::Error>().map(|_| Exit::Configuration))
        .or_else(|| error.downcast_ref::<std::io::Error>().map(|_| Exit::Io))
        .unwrap_or(Exit::Other)
}

/// Cancelled by the first SIGINT or SIGTERM; the second ends the process at once.
fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "outlives every loop: the second signal must be heard to the end"
    )]
    tokio::spawn(async move {
        let [interrupt, terminate] = &mut signals;
        for count in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if count > 0 {
                Exit::Interrupted.now();
            }
            tracing::info!("stopping: finishing the work under way; a second signal stops at once");
            token.cancel();
        }
    });
    Ok(shutdown)
}
