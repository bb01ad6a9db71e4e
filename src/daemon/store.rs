//! The database, and the server that runs it where that is ours.

use std::time::Duration;

use super::no_archive::NoArchive;
use crate::{
    Error,
    archive::{
        Archive,
        requirements::{self, Connections},
    },
    config::{Config, DatabaseUrl},
    postgres,
};

/// For connections to end; one that waits for a lock does not.
const CLOSE: Duration = Duration::from_millis(500);

/// For what a database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To archive into it.
    Daemon,
    /// To look into what is there.
    Look,
}

/// The database, and the server that runs it where that is ours.
#[derive(Debug)]
pub struct Store {
    /// The archive in it.
    pub archive: Archive,
    /// Its URL, for `psql`.
    pub url: DatabaseUrl,
    /// How many connections it has.
    pub(super) connections: Connections,
    server: Option<postgres::Server>,
}

impl Store {
    /// Connects to the configured database, or starts the embedded one, which is made if it is missing. Nothing is migrated. The
    /// database has what the daemon needs, and there are no more connections than it allows.
    ///
    /// # Errors
    /// Of the configuration, of the embedded server, or of the database.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::connect(config, Purpose::Daemon).await
    }

    /// The same for a command that has nothing to do without an archive: no cluster is made for it.
    ///
    /// # Errors
    /// [`NoArchive`] where the embedded database was never made.
    pub async fn open_existing(config: &Config) -> anyhow::Result<Self> {
        Self::connect(config, Purpose::Look).await
    }

    /// The same for a command that needs the archive's tables.
    ///
    /// # Errors
    /// [`NoArchive`] where there are none.
    pub async fn open_archive(config: &Config) -> anyhow::Result<Self> {
        let store = Self::open_existing(config).await?;
        let problem: anyhow::Error = match store.archive.exists().await {
            Ok(true) => return Ok(store),
            Ok(false) => NoArchive::in_database(&store.url).into(),
            Err(error) => Error::from(error).into(),
        };
        store.close().await?;
        Err(problem)
    }

    async fn connect(config: &Config, purpose: Purpose) -> anyhow::Result<Self> {
        let (server, url) = if let Some(url) = config.database.url()? {
            for warning in url.warnings() {
                tracing::warn!("{warning}");
            }
            (None, url)
        } else {
            let server = start_server(config, purpose == Purpose::Daemon).await?;
            let url = DatabaseUrl::read(&server.url()).map_err(anyhow::Error::msg)?;
            (Some(server), url)
        };
        match Self::connect_to(&url, config, purpose).await {
            Ok((archive, connections)) => Ok(Self { archive, url, connections, server }),
            Err(error) => {
                stop_server(server).await?;
                Err(error)
            }
        }
    }

    async fn connect_to(
        url: &DatabaseUrl,
        config: &Config,
        purpose: Purpose,
    ) -> anyhow::Result<(Archive, Connections)> {
        let mut connections = Connections::for_walks(config.backfill.concurrency);
        if purpose == Purpose::Daemon {
            let found = Archive::inspect(&url.expose()).await.map_err(Error::from)?;
            requirements::judge(&found)?;
            let most = found.connections.most;
            if connections.within(most).walks != connections.walks {
                let (wanted, walks) = (connections.total(), connections.within(most).walks);
                tracing::warn!(
                    most,
                    wanted,
                    walks,
                    "the database allows few connections: fewer rooms are walked at once"
                );
            }
            connections = connections.within(most);
        }
        let archive = Archive::connect(&url.expose(), connections.pool).await.map_err(Error::from)?;
        Ok((archive, connections))
    }

    /// The embedded server, if that is where the archive is.
    pub fn server(&self) -> Option<&postgres::Server> {
        self.server.as_ref()
    }

    /// Closes the connections and stops the server, if it is ours.
    pub async fn close(self) -> anyhow::Result<()> {
        let _ = tokio::time::timeout(CLOSE, self.archive.close()).await;
        stop_server(self.server).await
    }
}

async fn start_server(config: &Config, may_create: bool) -> anyhow::Result<postgres::Server> {
    let settings =
        postgres::Settings { data_dir: config.data_dir.clone(), bin_dir: config.postgres_bin.clone() };
    let server = if may_create {
        postgres::Server::start(&settings).await?
    } else if let Some(server) = postgres::Server::start_existing(&settings).await? {
        server
    } else {
        return Err(NoArchive::in_data_dir(config).into());
    };
    tracing::debug!(adopted = server.adopted(), url = server.url(), "the embedded PostgreSQL is up");
    Ok(server)
}

async fn stop_server(server: Option<postgres::Server>) -> anyhow::Result<()> {
    if let Some(server) = server {
        server.stop().await?;
    }
    Ok(())
}
