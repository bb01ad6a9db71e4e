//! Opens the database: the configured one, or that of the private PostgreSQL server, which is started first.

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

/// How long closing the connections may take. A connection that waits for a lock does not close.
const CLOSE: Duration = Duration::from_millis(500);

/// Why the database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To write the archive. A missing cluster is created.
    MayCreate,
    /// To use an existing archive. Nothing is created.
    MustExist,
}

/// An open database, and the private PostgreSQL server if there is one.
#[derive(Debug)]
pub struct Store {
    /// The archive in it.
    pub(crate) archive: Archive,
    /// Its URL, for `psql`.
    pub(crate) url: DatabaseUrl,
    /// How many connections it has.
    pub(super) connections: Connections,
    server: Option<postgres::Server>,
}

impl Store {
    /// Connects to the configured database, or starts the private server and creates its cluster if it is missing.
    /// Checks that the database meets the daemon's requirements, and opens no more connections than it allows. Does
    /// not migrate.
    ///
    /// # Errors
    /// An error of the configuration, of the private server, or of the database.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::connect(config, Purpose::MayCreate).await
    }

    /// The same for a command that needs an existing archive: creates no cluster.
    ///
    /// # Errors
    /// [`NoArchive`] if the private server's cluster does not exist.
    pub(crate) async fn open_existing(config: &Config) -> anyhow::Result<Self> {
        Self::connect(config, Purpose::MustExist).await
    }

    /// The same for a command that needs the archive's tables.
    ///
    /// # Errors
    /// [`NoArchive`] if they do not exist.
    pub(crate) async fn open_archive(config: &Config) -> anyhow::Result<Self> {
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
            let server = start_server(config, purpose == Purpose::MayCreate).await?;
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
        if purpose == Purpose::MayCreate {
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

    /// The private server, if there is one.
    pub(crate) fn server(&self) -> Option<&postgres::Server> {
        self.server.as_ref()
    }

    /// Closes the connections and stops the private server, if there is one.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
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
    tracing::debug!(adopted = server.adopted(), url = server.url(), "the private PostgreSQL is up");
    Ok(server)
}

async fn stop_server(server: Option<postgres::Server>) -> anyhow::Result<()> {
    if let Some(server) = server {
        server.stop().await?;
    }
    Ok(())
}
