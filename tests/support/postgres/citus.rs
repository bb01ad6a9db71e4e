//! Databases that Citus distributes.

use backscroll::archive::Archive;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::rows;

/// Panics if the server has no Citus.
pub(super) async fn check(url: &str) {
    let available = rows(url, "select 1 from pg_available_extensions where name = 'citus'").await;
    assert!(
        !available.is_empty(),
        "TEST_CITUS_URL: that server has no extension citus. Install Citus there, and set \
         shared_preload_libraries = 'citus'."
    );
}

/// Gives an empty database the archive's schema, and distributes it.
pub(super) async fn make(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let created = sqlx::raw_sql(AssertSqlSafe("create extension citus".to_owned()));
    if let Err(error) = created.execute(&mut connection).await {
        panic!("TEST_CITUS_URL: {error}. Has that server shared_preload_libraries = 'citus'?");
    }
    connection.close().await.unwrap();
    let archive = Archive::connect(url, 1).await.unwrap();
    archive.migrate().await.unwrap();
    archive.close().await;
    distribute(url).await.unwrap();
}

/// Distributes an archive.
pub(crate) async fn distribute(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // Lines with a backslash are for psql.
    let script = include_str!("../../../deploy/citus.sql").lines().filter(|line| !line.starts_with('\\'));
    let script = script.collect::<Vec<_>>().join("\n");
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await?;
    connection.close().await
}
