//! `backscroll config`

use std::io::Write as _;

use crate::{Exit, config};

/// Show the effective configuration, or a documented example.
#[derive(Debug, clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the effective value of each setting and where it comes from; secrets are masked
    Show,
    /// Print an example file with every setting, its default and its meaning
    Example,
}

impl Config {
    /// Whether the command works without a valid configuration.
    pub(super) fn needs_no_configuration(&self) -> bool {
        matches!(self.command, Command::Example)
    }

    pub(super) fn show(config: Option<&config::Config>) -> anyhow::Result<Exit> {
        let text = config.map_or_else(|| config::EXAMPLE.to_owned(), config::Config::show);
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(Exit::Success)
    }
}
