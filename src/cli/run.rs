//! `backscroll run`

use crate::{Exit, config::Config, daemon, telemetry::Telemetry};

/// Follow the rooms and fetch their history.
///
/// Runs until stopped (Ctrl-C, SIGTERM). You can stop and start it at any time: it resumes exactly where it stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Store new events, walk every open history and gap, then exit
    #[arg(long)]
    once: bool,
}

impl Run {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        daemon::run(config, telemetry, self.once, super::shutdown_on_signal()?).await?;
        Ok(Exit::Success)
    }
}
