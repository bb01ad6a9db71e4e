//! `backscroll manual`, hidden: the man pages and completions for packages.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Exit;

/// Write the man pages and the shells' completions into a directory, for packages.
#[derive(Debug, clap::Args)]
pub(super) struct Manual {
    /// Directory to write into; created if it is missing
    directory: PathBuf,
}

impl Manual {
    pub(super) fn write(&self) -> anyhow::Result<Exit> {
        self.write_all().with_context(|| format!("failed to write into {}", self.directory.display()))?;
        Ok(Exit::Success)
    }

    fn write_all(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut command = super::Arguments::command();
        clap_mangen::generate_to(command.clone(), &self.directory)?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut command, "backscroll", &self.directory)?;
        }
        Ok(())
    }
}
