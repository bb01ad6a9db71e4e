//! A migration among readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use backscroll::archive::Archive;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, migrate::Migrator};
use tokio::task::JoinSet;

use crate::support::{postgres::TestDatabase, random};

/// Views, in different orders, so that each takes locks in an order of its own.
const QUERIES: [&str; 4] = [
    "select count(*) from rooms; select count(*) from events",
    "begin; select count(*) from current_state; select count(*) from rooms;
     select count(*) from gaps; commit",
    "begin; select count(*) from gaps; select count(*) from events; select count(*) from messages; commit",
    "select count(*) from rooms join events using (room_id) join members using (room_id)",
];

async fn database_of(version: i64) -> TestDatabase {
    let database = TestDatabase::new_empty().await;
    let migrations = sqlx::migrate!();
    let earlier: Vec<_> =
        migrations.iter().filter(|migration| migration.version <= version).cloned().collect();
    let mut migrator = Migrator { migrations: earlier.into(), ..Migrator::DEFAULT };
    migrator.create_schema("archive");
    migrator.dangerous_set_table_name("archive._sqlx_migrations");
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    database
}

/// A database of an earlier version is brought up to date by two at once, while readers read it without a pause.
#[tokio::test]
async fn a_migration_gives_way_to_readers_and_ends() {
    for round in 0..3 * random::dose() {
        let database = database_of([5, 8, 13][usize::try_from(round % 3).unwrap()]).await;
        let (done, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut readers = JoinSet::new();
        for query in QUERIES {
            let (url, done, read) = (database.url().to_owned(), Arc::clone(&done), Arc::clone(&read));
            readers.spawn(async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                while !done.load(Ordering::Relaxed) {
                    // A view may be replaced between two statements; the reader's own deadlock may be reported to it.
                    let _ = sqlx::raw_sql(query).execute(&mut connection).await;
                    let _ = sqlx::raw_sql("rollback").execute(&mut connection).await;
                    read.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while read.load(Ordering::Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let migrate = async || {
            let archive = Archive::connect(database.url(), 2).await.unwrap();
            let migrated = archive.migrate().await;
            archive.close().await;
            migrated
        };
        let (one, other) = tokio::join!(migrate(), migrate());
        done.store(true, Ordering::Relaxed);
        readers.join_all().await;
        one.unwrap();
        other.unwrap();
    }
}

/// Whoever holds what a migration needs for long is waited for, and named if it does not end; and that is a passing error.
#[tokio::test]
async fn a_reader_in_a_long_transaction_is_waited_for() {
    let database = database_of(13).await;
    let mut reader = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; select count(*) from rooms, events").execute(&mut reader).await.unwrap();
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    let waiting = async {
        let waits = "select count(*) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0
                       and datname = current_database()";
        // More than once: it gives way in between, so that others can read.
        for _ in 0..3 {
            while database.value(waits).await == "0" {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while database.value(waits).await != "0" {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert_eq!(database.value("select count(*) from rooms").await, "0");
        reader.close().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(archive.migrate(), waiting);
    migrated.unwrap();
    archive.close().await;
}

/// The lock of migrations is one that a role without rights cannot take.
#[tokio::test]
async fn nobody_without_a_right_can_hold_up_a_migration() {
    let database = database_of(13).await;
    let name = database.value("select current_database()").await;
    let mut anybody = PgConnection::connect(database.url()).await.unwrap();
    // As sqlx makes its number: 0x3d32ad9e times the CRC-32 of the database's name.
    let mut crc = flate2::Crc::new();
    crc.update(name.as_bytes());
    let lock = format!("select pg_advisory_lock({})", 0x3d32_ad9e_i64 * i64::from(crc.sum()));
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut anybody).await.unwrap();
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    archive.migrate().await.unwrap();
    archive.close().await;
    anybody.close().await.unwrap();
}
