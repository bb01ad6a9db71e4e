//! A database for each test, on a real PostgreSQL: the one that `TEST_DATABASE_URL` names, else a private
//! server from this machine's binaries, else a container; with `TEST_POSTGRES=container` the last two in the
//! other order. Never skipped, and never the second choice in silence. With `TEST_CITUS_URL`, the databases
//! are on that server, and distributed by `deploy/citus.sql`.

mod citus;
mod container;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use backscroll::{archive::Archive, postgres};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::OnceCell;

pub(crate) use self::citus::distribute;
use self::container::Container;

/// Where private servers of test runs lie: a place that an unprivileged user can enter.
const PRIVATE: &str = "/var/tmp";
const PREFIX: &str = "backscroll-test-";

/// The server that all tests of this process share, and the name of its migrated template database.
static SERVER: OnceCell<Shared> = OnceCell::const_new();

struct Shared {
    url: String,
    template: String,
    // Held so that it runs as long as the process.
    _server: Server,
}

enum Server {
    Given,
    /// With the extension Citus.
    Citus,
    Private {
        _server: Box<postgres::Server>,
    },
    Container {
        _container: Box<Container>,
    },
}

/// An empty database with the archive's schema. Dropped with the value.
pub(crate) struct TestDatabase {
    url: String,
    /// Whether it goes with its server, which is the test's own.
    goes_with_server: bool,
}

impl TestDatabase {
    pub(crate) async fn new() -> Self {
        let shared = SERVER.get_or_init(start).await;
        Self::from_template(shared, &shared.template).await
    }

    /// Without a schema.
    pub(crate) async fn new_empty() -> Self {
        Self::from_template(SERVER.get_or_init(start).await, "template0").await
    }

    async fn from_template(shared: &Shared, template: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}_{}", shared.template, COUNT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&shared.url).await.unwrap();
        run(&mut admin, &format!("create database {name} template {template}")).await;
        admin.close().await.unwrap();
        Self { url: with_database(&shared.url, &name), goes_with_server: false }
    }

    /// The one at `url`, on a server of the test's own, with the archive's schema.
    pub(crate) async fn at(url: &str) -> Self {
        let archive = Archive::connect(url, 1).await.unwrap();
        archive.migrate().await.unwrap();
        archive.close().await;
        Self { url: url.to_owned(), goes_with_server: true }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL of somebody who does everything as that role.
    pub(crate) fn url_as(&self, role: &str) -> String {
        with_parameter(&self.url, &format!("options=-c%20role%3D{role}"))
    }

    /// The rows of a query, each column as PostgreSQL writes it; null is "∅".
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.url, sql).await
    }

    /// The first column of the rows of a query.
    pub(crate) async fn column(&self, sql: &str) -> Vec<String> {
        self.rows(sql).await.into_iter().map(|row| row.into_iter().next().unwrap()).collect()
    }

    /// The only value of a query's only row.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let column = self.column(sql).await;
        assert_eq!(column.len(), 1, "{sql}: {column:?}");
        column.into_iter().next().unwrap()
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        run(&mut connection, sql).await;
    }
}

/// Whether the databases are distributed. Then a row lock is for one room, and plans and statistics are of parts of tables.
pub(crate) fn on_citus() -> bool {
    std::env::var_os("TEST_CITUS_URL").is_some()
}

/// The rows of a query on any database, as [`TestDatabase::rows`] gives them.
pub(crate) async fn rows(url: &str, sql: &str) -> Vec<Vec<String>> {
    try_rows(url, sql).await.unwrap()
}

/// The same of a server that may not be there.
pub(crate) async fn try_rows(url: &str, sql: &str) -> Result<Vec<Vec<String>>, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // The simple protocol answers in text, whatever the type.
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await?;
    let text = |row: &sqlx::postgres::PgRow, index| {
        row.try_get_unchecked::<Option<String>, _>(index).unwrap().unwrap_or_else(|| "∅".to_owned())
    };
    Ok(rows.iter().map(|row| (0..row.len()).map(|index| text(row, index)).collect()).collect())
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.goes_with_server {
            return;
        }
        let (url, name) = self.url.rsplit_once("dbname=").map_or_else(
            || (self.url.clone(), String::new()),
            |(url, name)| (format!("{url}dbname=postgres"), name.to_owned()),
        );
        // No runtime may be at hand here, and a test that panics must not hang: a thread of its own, joined.
        let drop_database = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&url).await?;
                let statement = format!("drop database if exists {name} with (force)");
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            })
        };
        let dropped = std::thread::spawn(drop_database).join();
        let dropped_or_failing = matches!(dropped, Ok(Ok(()))) || std::thread::panicking();
        assert!(dropped_or_failing, "a test database could not be dropped: {dropped:?}");
    }
}

/// The URL with another database, named in its query, which wins over its path.
fn with_database(url: &str, name: &str) -> String {
    with_parameter(url, &format!("dbname={name}"))
}

fn with_parameter(url: &str, parameter: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{parameter}")
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

async fn start() -> Shared {
    let template = format!("backscroll_test_{}", std::process::id());
    let (url, server) = if let Ok(url) = std::env::var("TEST_CITUS_URL") {
        citus::check(&url).await;
        (url, Server::Citus)
    } else if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
        (url, Server::Given)
    } else {
        start_server().await
    };
    let mut admin = PgConnection::connect(&url).await.expect("connect to the test server");
    run(&mut admin, &format!("create database {template}")).await;
    if matches!(server, Server::Citus) {
        citus::make(&with_database(&url, &template)).await;
        // Its maintenance daemon stays connected, and a database that has connections cannot be copied.
        run(&mut admin, &format!("alter database {template} allow_connections false")).await;
        let connections = format!("from pg_stat_activity where datname = '{template}'");
        run(&mut admin, &format!("select pg_terminate_backend(pid, 10000) {connections}")).await;
        return Shared { url, template, _server: server };
    }
    admin.close().await.unwrap();
    let archive = Archive::connect(&with_database(&url, &template), 1).await.unwrap();
    archive.migrate().await.unwrap();
    archive.close().await;
    Shared { url, template, _server: server }
}

async fn start_server() -> (String, Server) {
    if std::env::var("TEST_POSTGRES").is_ok_and(|wanted| wanted == "container") {
        match container::start().await {
            Ok(container) => return in_container(container),
            Err(error) => say(&format!("no container ({error}); this machine's PostgreSQL instead")),
        }
        return on_this_machine(private_server().await.expect(REMEDIES));
    }
    match private_server().await {
        Ok(server) => on_this_machine(server),
        Err(error) => {
            say(&format!("no PostgreSQL on this machine ({error}); a container instead"));
            in_container(container::start().await.expect(REMEDIES))
        }
    }
}

const REMEDIES: &str = "set TEST_DATABASE_URL, or install PostgreSQL, or start a container engine";

fn on_this_machine(server: postgres::Server) -> (String, Server) {
    (server.url(), Server::Private { _server: Box::new(server) })
}

fn in_container(container: Container) -> (String, Server) {
    say("in a container");
    (container.url.clone(), Server::Container { _container: Box::new(container) })
}

/// Says where the database is, even if no test fails.
fn say(text: &str) {
    // The test runner would keep back what `eprintln!` prints.
    let _ = writeln!(std::io::stderr(), "PostgreSQL for the tests: {text}");
}

async fn private_server() -> Result<postgres::Server, postgres::Error> {
    sweep();
    let data_dir = Path::new(PRIVATE).join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir_all(&data_dir).unwrap();
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o711)).unwrap();
    let bin_dir = std::env::var_os("BACKSCROLL_POSTGRES_BIN").map(PathBuf::from);
    postgres::Server::start(&postgres::Settings { data_dir, bin_dir }).await
}

/// Removes what earlier test processes left: a process that is gone cannot do it.
fn sweep() {
    for entry in fs::read_dir(PRIVATE).unwrap().flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
