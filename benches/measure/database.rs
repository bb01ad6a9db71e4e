//! The PostgreSQL that everything is measured on: the program's own embedded one, as it comes.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use backscroll::{archive::Archive, postgres};
use futures_util::StreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

const TEMPLATE: &str = "archive_template";
/// What one message of a COPY stream holds.
const COPY_PIECE: usize = 64 << 10;

/// A server in a directory of its own, with an empty archive as a template.
pub(crate) struct Database {
    server: postgres::Server,
    directory: tempfile::TempDir,
}

impl Database {
    /// `set`: settings of the server beside its own.
    pub(crate) async fn start(set: &[(String, String)]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("backscroll-bench-").tempdir_in("/var/tmp")?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
        let data_dir = directory.path().join("data");
        let settings = postgres::Settings { data_dir, bin_dir: None };
        let mut database = Self { server: postgres::Server::start(&settings).await?, directory };
        if !set.is_empty() {
            for (name, value) in set {
                database.run("postgres", &format!("alter system set {name} = '{value}'")).await?;
            }
            // Some count only from the start.
            database.server.stop().await?;
            database =
                Self { server: postgres::Server::start(&settings).await?, directory: database.directory };
        }
        database.run("postgres", &format!("create database {TEMPLATE}")).await?;
        let archive = Archive::connect(&database.url(TEMPLATE), 1).await?;
        archive.migrate().await?;
        archive.close().await;
        Ok(database)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await?;
        drop(self.directory);
        Ok(())
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, name: &str) -> String {
        let url = self.server.url();
        url.replace("dbname=backscroll", &format!("dbname={name}"))
            .replace("/backscroll?", &format!("/{name}?"))
    }

    /// Makes an empty archive called `name`, in place of one that there may be, and writes out what lies in memory, so that
    /// no measurement pays for what came before it.
    pub(crate) async fn fresh(&self, name: &str) -> anyhow::Result<String> {
        self.run("postgres", &format!("drop database if exists {name} with (force)")).await?;
        self.run("postgres", &format!("create database {name} template {TEMPLATE}")).await?;
        self.run("postgres", "checkpoint").await?;
        Ok(self.url(name))
    }

    pub(crate) async fn run(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// A number that a query gives.
    pub(crate) async fn number(&self, name: &str, sql: &str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await?;
        let text: String = row.try_get_unchecked(0)?;
        connection.close().await?;
        Ok(text.parse()?)
    }

    /// The archived events, in the order in which they lie in the table, as a binary COPY stream.
    pub(crate) async fn rows(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut connection = PgConnection::connect(&self.url(name)).await?;
        let mut stream = connection.copy_out_raw("copy archive.events to stdout (format binary)").await?;
        let mut rows = Vec::new();
        while let Some(piece) = stream.next().await {
            rows.extend_from_slice(&piece?);
        }
        Ok(rows)
    }

    /// How long one COPY of `rows` into an empty archive's table takes, its commit included.
    pub(crate) async fn copy(&self, name: &str, rows: &[u8]) -> anyhow::Result<Duration> {
        let url = self.fresh(name).await?;
        let mut connection = PgConnection::connect(&url).await?;
        let start = Instant::now();
        let mut copy = connection.copy_in_raw("copy archive.events from stdin (format binary)").await?;
        for piece in rows.chunks(COPY_PIECE) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
        let took = start.elapsed();
        connection.close().await?;
        Ok(took)
    }
}
