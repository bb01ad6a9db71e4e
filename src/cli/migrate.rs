//! `backscroll migrate`

use crate::{Error, Exit, config::Config, daemon::Store};

/// Migrate the database's schema to this version and do nothing else.
///
/// `run` does this when it starts. Use this command to migrate at another time, or with another role.
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
