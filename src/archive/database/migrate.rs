//! Applies pending migrations, also while others read the database.

use std::time::{Duration, Instant};

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection,
    migrate::{Migrate as _, MigrateError, Migration, Migrator},
};

use super::{inspect, sessions::without_timeouts, waits::Wait};
use crate::archive::{Archive, CONNECT, Error};

/// The table of the applied migrations.
pub(in crate::archive) const TABLE: &str = "archive._sqlx_migrations";
/// How long one statement of a migration waits for a lock at first. Readers of the views queue behind it, so this is
/// short. It is shorter than the default `deadlock_timeout`, so that the migration fails and not a reader.
const LOCK: Duration = Duration::from_millis(500);
/// How long it waits at last, if readers always hold a lock. The time doubles with each try.
const LOCK_AT_LAST: Duration = Duration::from_secs(15);
/// How long temporary failures are retried.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause between two tries, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// After this many tries, the sessions that hold locks are logged.
const SAY_AFTER: u32 = 5;

/// The migrations that this program has.
pub(in crate::archive) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    // The table is in our own schema, because other programs may use the database too.
    migrator.create_schema("archive");
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

impl Archive {
    /// Applies the pending migrations, each in its own transaction. Nobody else can apply one at the same time.
    /// Temporary failures, such as a lock that a reader holds, are retried for two minutes.
    ///
    /// Without pending migrations nothing is written, so a role without the right to create tables is sufficient.
    pub async fn migrate(&self) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSES[0];
        for tries in 1_u32.. {
            let lock = LOCK.saturating_mul(2_u32.saturating_pow(tries - 1)).min(LOCK_AT_LAST);
            let error = match self.try_to_migrate(lock).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !error.passes() || Instant::now() >= end {
                return Err(error);
            }
            if tries == SAY_AFTER {
                let holders = self.holders().await;
                tracing::warn!(%error, holders, "the database cannot be brought up to date yet; trying again");
            }
            self.renew_after(&error);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
        unreachable!("the time is over before the numbers are")
    }

    async fn try_to_migrate(&self, lock: Duration) -> Result<(), Error> {
        if inspect::is_up_to_date(&mut *self.pool.acquire().await?).await? {
            return Ok(());
        }
        let options = self.options();
        let connect = PgConnection::connect_with(&options);
        let mut connection =
            tokio::time::timeout(CONNECT, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let migrated = migrate(&mut connection, lock).await;
        // The work is committed, or the end of the session rolls it back.
        let _ = tokio::time::timeout(CONNECT, connection.close()).await;
        migrated
    }

    /// The sessions with locks on the archive's tables and views, as far as this role may see them.
    async fn holders(&self) -> String {
        let holders = sqlx::query_as!(
            Wait,
            r#"select 0::float8 as "waited_s!", a.pid as "pid!", a.usename::text as "user?",
                      a.application_name as "application?",
                      to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC') as "since?"
               from pg_stat_activity a
               where a.pid <> pg_backend_pid() and a.pid in (
                   select l.pid from pg_locks l
                   join pg_class c on c.oid = l.relation
                   join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname in ('archive', 'public', 'room_reader') and l.granted
                     and l.database = (select oid from pg_database where datname = current_database()))
               order by a.xact_start nulls last, a.pid limit 5"#
        )
        .fetch_all(&self.pool)
        .await;
        let holders: Vec<_> = holders.unwrap_or_default().iter().map(Wait::holder).collect();
        holders.join("; ")
    }
}

async fn migrate(connection: &mut PgConnection, lock: Duration) -> Result<(), Error> {
    // An index on millions of rows takes long.
    let settings = format!(
        "{}; set lock_timeout = {}; set default_transaction_isolation = 'read committed'",
        without_timeouts(connection),
        lock.as_millis()
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    make_table(connection).await?;
    let migrator = migrator();
    if let Some(version) = connection.dirty_version(TABLE).await.map_err(failed)? {
        return Err(Error::Migrate(MigrateError::Dirty(version)));
    }
    for migration in migrator.iter() {
        apply(connection, &migrator, migration).await?;
    }
    Ok(())
}

/// Creates the table of the applied migrations. If two processes create it at the same time, one of them fails once.
async fn make_table(connection: &mut PgConnection) -> Result<(), Error> {
    for is_last in [false, true] {
        if inspect::is_migrated(connection).await? {
            return Ok(());
        }
        let made = async {
            connection.create_schema_if_not_exists("archive").await?;
            connection.ensure_migrations_table(TABLE).await
        };
        match made.await.map_err(failed) {
            Ok(()) => return Ok(()),
            Err(error) if is_last || !matches!(error.code(), Some("23505" | "42P06" | "42P07")) => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// Applies the next pending migration, in a transaction with a lock that only the owner may take.
async fn apply(
    connection: &mut PgConnection,
    migrator: &Migrator,
    migration: &Migration,
) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute(AssertSqlSafe(format!("lock table {TABLE} in share row exclusive mode"))).await?;
    // Read after the lock was taken: another process may have applied it meanwhile.
    let applied = transaction.list_applied_migrations(TABLE).await.map_err(failed)?;
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    for other in &applied {
        match migrator.iter().find(|migration| migration.version == other.version) {
            Some(ours) if ours.checksum != other.checksum => {
                return Err(Error::Migrate(MigrateError::VersionMismatch(other.version)));
            }
            None if other.version > known => return Err(Error::NewerSchema { found: other.version, known }),
            None => return Err(Error::Migrate(MigrateError::VersionMissing(other.version))),
            Some(_) => {}
        }
    }
    if applied.iter().any(|other| other.version == migration.version) {
        return Ok(transaction.rollback().await?);
    }
    transaction.apply(TABLE, migration).await.map_err(failed)?;
    Ok(transaction.commit().await?)
}

/// Converts an error of the migration. An error of the database stays one.
pub(in crate::archive) fn failed(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) => Error::Database(error),
        MigrateError::ExecuteMigration(error, version) => {
            let passing = Error::Database(error);
            if passing.passes() {
                return passing;
            }
            let Error::Database(error) = passing else { return passing };
            Error::Migrate(MigrateError::ExecuteMigration(error, version))
        }
        error => Error::Migrate(error),
    }
}
