//! `backscroll migrate`

use crate::{Error, Exit, config::Config, daemon::Store};

/// Bring the database's schema up to date and do nothing else.
///
/// `run` does this at its start; this command is for those who want to do it at a time of their own.
#[derive(Debug, clap::Args)]
pub(super) struct Migrate {}

impl Migrate {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_existing(config).await?;
        let migrated = store.archive.migrate().await;
        store.close().await?;
        migrated.map_err(Error::from)?;
        eprintln!("The schema is up to date.");
        Ok(Exit::Success)
    }
}
