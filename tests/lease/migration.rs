//! A migration while others use the database.

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

/// The version before the first migration that needs a lock on a table that is there: 0008 makes an index of the events.
const BEFORE_AN_INDEX: i64 = 7;

/// Locks that such a migration waits for, taken in different orders, and reads.
const STATEMENTS: [&str; 4] = [
    "begin; delete from archive.events where false; delete from archive.rooms where false; commit",
    "begin; delete from archive.rooms where false; delete from archive.events where false; commit",
    "delete from archive.events where false",
    "select count(*) from archive.events join archive.rooms using (room_id)",
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

/// A database of an earlier version is brought up to date by two at once, while others use it without a pause.
#[tokio::test]
async fn a_migration_gives_way_to_others_and_ends() {
    for round in 0..3 * random::dose() {
        let database = database_of([3, 5, BEFORE_AN_INDEX][usize::try_from(round % 3).unwrap()]).await;
        let (done, ran) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let mut others = JoinSet::new();
        for statement in STATEMENTS {
            let (url, done, ran) = (database.url().to_owned(), Arc::clone(&done), Arc::clone(&ran));
            others.spawn(async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                while !done.load(Ordering::Relaxed) {
                    // A deadlock may be reported to either side, but each of the others goes on.
                    if sqlx::raw_sql(statement).execute(&mut connection).await.is_err() {
                        let _ = sqlx::raw_sql("rollback").execute(&mut connection).await;
                    } else {
                        ran.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while ran.load(Ordering::Relaxed) < 20 {
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
        others.join_all().await;
        one.unwrap();
        other.unwrap();
    }
}

/// Whoever holds what a migration needs for long is waited for, and others get their turn meanwhile.
#[tokio::test]
async fn a_long_transaction_is_waited_for() {
    let database = database_of(BEFORE_AN_INDEX).await;
    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("begin; delete from archive.events where false").execute(&mut holder).await.unwrap();
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    let waiting = async {
        let waits = "select count(*) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0
                       and datname = current_database()";
        // More than once: it gives way in between, so that others can write.
        for _ in 0..3 {
            until(async || database.value(waits).await != "0").await;
            until(async || database.value(waits).await == "0").await;
        }
        let write =
            "with gone as (delete from archive.events where false returning 1) select count(*) from gone";
        assert_eq!(database.value(write).await, "0");
        holder.close().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(archive.migrate(), waiting);
    migrated.unwrap();
    archive.close().await;
}

/// Waits until it holds; panics if it does not within half a minute.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held).await.expect("the migration waits, and gives way");
}

/// The lock of migrations is one that a role without rights cannot take.
#[tokio::test]
async fn nobody_without_a_right_can_hold_up_a_migration() {
    let database = database_of(BEFORE_AN_INDEX).await;
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
