//! `backscroll run`

use crate::{Exit, config::Config, daemon, telemetry::Telemetry};

/// Follow the rooms and fetch their history.
///
/// Runs until stopped (Ctrl-C, SIGTERM). It may be stopped and started at any time: it resumes exactly where it stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Take what is new, walk every history and gap that is open, then exit
    #[arg(long)]
    once: bool,
}

impl Run {
    pub(super) async fn run(self, config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
        daemon::run(config, telemetry, self.once, super::shutdown_on_signal()?).await?;
        Ok(Exit::Success)
    }
}
