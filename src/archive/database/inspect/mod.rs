//! Inspects a database without changing it: whether it can contain an archive, and whether it has one.

mod connections;
mod names;
mod pooler;

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, Row as _,
    migrate::{Migrate as _, MigrateError},
    postgres::PgConnectOptions,
};

use super::{
    migrate::{TABLE, failed, migrator},
    role,
};
use crate::archive::{Archive, Error, WideRole, encryption::PublicKeys, lease::Backend};

pub(crate) use self::connections::{ConnectionLimit, FEWEST_CONNECTIONS, Limited};

/// The first migration.
const FIRST: i64 = 1;
/// The advisory lock that a running daemon of an earlier version holds.
const EARLIER_LOCK: i64 = 0x6261_636b_7363_726f;
const DEADLINE: Duration = Duration::from_secs(10);
/// How often, and how soon, it is inspected again if others use too many connections.
const LOOKS_AGAIN: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The result of the inspection.
#[derive(Clone, Debug)]
pub(crate) struct Inspection {
    /// The server's version, such as `15.18`.
    pub(crate) server_version: String,
    /// Its major version.
    pub(crate) major: i32,
    /// Name of the database.
    pub(crate) database: String,
    /// The role of the connection.
    pub(crate) role: String,
    /// The database's encoding.
    pub(crate) encoding: String,
    /// Whether the database can be written.
    pub(crate) access: Access,
    /// The lowest limit of connections.
    pub(crate) connections: ConnectionLimit,
    /// The error of a second connection, if there was one.
    pub(crate) no_second: Option<String>,
    /// Objects of others with names that the migrations need, such as `table public.events`.
    pub(crate) taken: Vec<String>,
    /// The version of the schema, and whether this program can use it. `None`: there is no archive yet.
    pub(crate) schema: Option<Schema>,
    /// The owner of the archive, if the role does not have its rights.
    pub(crate) foreign_owner: Option<String>,
    /// Whether there is a schema `archive` that Backscroll did not create.
    pub(crate) foreign_schema: bool,
    /// Whether the role has the necessary right: to create the schema, to migrate it, or to write to it.
    pub(crate) permitted: bool,
    /// The running Backscroll: the process id of its database backend, and since when.
    pub(crate) writer: Option<(i32, String)>,
    /// Whether search tells capital letters from small ones outside Latin, Greek and Cyrillic: neither the server nor the
    /// database knows the others.
    pub(crate) search_is_limited: bool,
    /// The account of the archive.
    pub(crate) account: Option<FoundAccount>,
    /// The readers and writers with more rights than they need.
    pub(crate) wide_roles: Vec<WideRole>,
}

/// The account of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundAccount {
    /// Its Matrix user id.
    pub(crate) user_id: String,
    /// The public keys of the archive's own device, if it has one.
    pub(crate) device: Option<PublicKeys>,
}

/// Whether the database can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Yes.
    Writable,
    /// `default_transaction_read_only` is on.
    ReadOnly,
    /// The server is a standby, until it is promoted.
    Standby,
}

/// The migrations that were applied to the database.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// The newest one.
    pub(crate) found: i64,
    /// The newest that this Backscroll has.
    pub(crate) known: i64,
    /// How many are not applied yet.
    pub(crate) missing: usize,
    /// A migration that differs from ours of the same version, or was not finished.
    pub(crate) broken: Option<i64>,
    /// Whether a version from before the first release made it. Its tables have another key.
    pub(crate) is_pre_release: bool,
}

impl Archive {
    /// Inspects the database at `url`. Does not retry if it is down.
    pub(crate) async fn inspect(url: &str) -> Result<Inspection, Error> {
        let look = async {
            let options = url.parse::<PgConnectOptions>()?.application_name("backscroll check");
            let mut found = inspect_once(&options).await?;
            // A session that has just ended occupies its connection for a moment longer.
            for _ in 0..LOOKS_AGAIN {
                if !found.lacks_free_connections() {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                found = inspect_once(&options).await?;
            }
            Ok(found)
        };
        let late = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(DEADLINE, look).await.unwrap_or_else(|_| Err(late().into()))
    }
}

impl Inspection {
    /// Whether others use so many connections that too few are free for a daemon.
    pub(crate) fn lacks_free_connections(&self) -> bool {
        // A running daemon has these connections.
        let is_running = self.writer.is_some();
        let has_too_few = self.connections.free() < i64::from(FEWEST_CONNECTIONS);
        !is_running && (has_too_few || self.no_second.is_some())
    }
}

async fn inspect_once(options: &PgConnectOptions) -> Result<Inspection, Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    // Checked before any statement is prepared: a pooler would keep the prepared statement, which disturbs others.
    let no_second = pooler::must_have_sessions(options, &mut connection).await?;
    let found = inspect(&mut connection, no_second).await?;
    // A failure to close has no effect on the result.
    let _ = connection.close().await;
    Ok(found)
}

/// The rows of a query in the simple protocol, which returns every column as text.
async fn rows(connection: &mut PgConnection, sql: &'static str) -> Result<Vec<Vec<String>>, Error> {
    let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
    let columns = |row: &sqlx::postgres::PgRow| {
        (0..row.len()).map(|column| row.try_get_unchecked::<String, _>(column)).collect::<Result<_, _>>()
    };
    Ok(rows.iter().map(columns).collect::<Result<_, _>>()?)
}

async fn row(connection: &mut PgConnection, sql: &'static str) -> Result<Vec<String>, Error> {
    let row = rows(connection, sql).await?.into_iter().next();
    Ok(row.ok_or(sqlx::Error::RowNotFound)?)
}

async fn text(connection: &mut PgConnection, sql: &'static str) -> Result<String, Error> {
    Ok(row(connection, sql).await?.into_iter().next().unwrap_or_default())
}

async fn inspect(connection: &mut PgConnection, no_second: Option<String>) -> Result<Inspection, Error> {
    // PostgreSQL still counts the second connection for a moment.
    let own = if no_second.is_none() { 2 } else { 1 };
    let connections = connections::limit(connection, own).await?;
    let standby = text(connection, "select pg_is_in_recovery()::text").await? == "true";
    let server = sqlx::query!(
        r#"select current_setting('server_version') as "version!",
                  current_setting('server_version_num')::int / 10000 as "major!",
                  current_database()::text as "database!", current_user::text as "role!",
                  current_setting('server_encoding') as "encoding!",
                  (pg_is_in_recovery() or current_setting('transaction_read_only')::bool) as "read_only!",
                  exists(select from pg_namespace where nspname = 'archive') as "has_schema!""#
    )
    .fetch_one(&mut *connection)
    .await?;
    let migrated = is_migrated(connection).await?;
    let schema = if migrated { Some(schema(connection).await?) } else { None };
    let current = schema.as_ref().is_some_and(|schema| schema.missing == 0 && !schema.is_pre_release);
    let applied = if migrated { applied(connection).await? } else { Vec::new() };
    let migrator = migrator();
    let text_of = |is_applied: bool| {
        let applied = &applied;
        let of = migrator.iter().filter(move |migration| applied.contains(&migration.version) == is_applied);
        of.map(|migration| migration.sql.as_str())
    };
    Ok(Inspection {
        taken: names::taken(connection, text_of(true), text_of(false)).await?,
        foreign_owner: if migrated { foreign_owner(connection).await?.map(|(_, owner)| owner) } else { None },
        access: match (standby, server.read_only) {
            (true, _) => Access::Standby,
            (false, true) => Access::ReadOnly,
            (false, false) => Access::Writable,
        },
        connections,
        no_second,
        foreign_schema: server.has_schema && !migrated && has_tables(connection).await?,
        permitted: permitted(connection, current).await?,
        writer: writer(connection).await?,
        search_is_limited: current && search_is_limited(connection).await?,
        account: if current { account(connection).await? } else { None },
        wide_roles: if current { role::wide_roles(connection).await? } else { Vec::new() },
        server_version: server.version.split(" (").next().unwrap_or_default().to_owned(),
        major: server.major,
        database: server.database,
        role: server.role,
        encoding: server.encoding,
        schema,
    })
}

/// Whether the schema is that of this Backscroll. If not, the role may migrate it.
///
/// # Errors
/// [`Error::PreReleaseSchema`], [`Error::NewerSchema`], or [`Error::OlderSchema`] if the tables belong to another role.
pub(in crate::archive) async fn is_up_to_date(connection: &mut PgConnection) -> Result<bool, Error> {
    if !is_migrated(connection).await? {
        return Ok(false);
    }
    let Schema { found, known, missing, broken, is_pre_release } = schema(connection).await?;
    if is_pre_release {
        return Err(Error::PreReleaseSchema);
    }
    if found > known {
        return Err(Error::NewerSchema { found, known });
    }
    if let Some(version) = broken {
        return Err(Error::Migrate(MigrateError::VersionMismatch(version)));
    }
    if missing == 0 {
        return Ok(true);
    }
    match foreign_owner(connection).await? {
        None => Ok(false),
        Some((role, owner)) => Err(Error::OlderSchema { found, known, role, owner }),
    }
}

/// Our role and the owner of the archive's tables, if the role does not have the owner's rights.
async fn foreign_owner(connection: &mut PgConnection) -> Result<Option<(String, String)>, Error> {
    let owner = sqlx::query!(
        r#"select pg_get_userbyid(c.relowner)::text as "name!", current_user::text as "role!",
                  pg_has_role(c.relowner, 'usage') as "is_ours!"
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where n.nspname = 'archive' and c.relname = '_sqlx_migrations'"#
    )
    .fetch_one(connection)
    .await?;
    Ok((!owner.is_ours).then_some((owner.role, owner.name)))
}

pub(in crate::archive) async fn is_migrated(connection: &mut PgConnection) -> Result<bool, Error> {
    // Not to_regclass: it fails where the schema may not be used.
    let is_migrated = sqlx::query_scalar!(
        r#"select exists(select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                         where n.nspname = 'archive' and c.relname = '_sqlx_migrations') as "is_migrated!""#
    );
    Ok(is_migrated.fetch_one(connection).await?)
}

async fn schema(connection: &mut PgConnection) -> Result<Schema, Error> {
    let migrator = migrator();
    let unfinished = connection.dirty_version(TABLE).await.map_err(failed)?;
    let applied = connection.list_applied_migrations(TABLE).await.map_err(failed)?;
    let ours = |version| migrator.iter().find(|migration| migration.version == version);
    let altered = applied.iter().filter(|applied| {
        ours(applied.version).is_some_and(|migration| migration.checksum != applied.checksum)
    });
    let altered = altered.min_by_key(|applied| applied.version);
    let is_applied = |version| applied.iter().any(|applied| applied.version == version);
    // Before the first release the migrations began anew several times. Since then, the first one has not changed.
    let is_pre_release = altered.is_some_and(|applied| applied.version == FIRST);
    Ok(Schema {
        found: applied.iter().map(|applied| applied.version).max().unwrap_or_default(),
        known: migrator.iter().map(|migration| migration.version).max().unwrap_or_default(),
        missing: migrator.iter().filter(|migration| !is_applied(migration.version)).count(),
        broken: unfinished.or(altered.map(|applied| applied.version)),
        is_pre_release,
    })
}

/// # Errors
/// [`Error::PreReleaseSchema`] if the tables are of a version from before the first release.
pub(in crate::archive) async fn must_not_be_pre_release(connection: &mut PgConnection) -> Result<(), Error> {
    if is_migrated(connection).await? && schema(connection).await?.is_pre_release {
        return Err(Error::PreReleaseSchema);
    }
    Ok(())
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, Error> {
    match connection.list_applied_migrations(TABLE).await {
        Ok(applied) => Ok(applied.iter().map(|applied| applied.version).collect()),
        Err(MigrateError::Execute(error)) => Err(Error::Database(error)),
        Err(error) => Err(Error::Migrate(error)),
    }
}

async fn has_tables(connection: &mut PgConnection) -> Result<bool, Error> {
    let has_tables = sqlx::query_scalar!(
        r#"select exists(select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                         where n.nspname = 'archive') as "has_tables!""#
    );
    Ok(has_tables.fetch_one(connection).await?)
}

/// Whether the role may write to a schema that is up to date, or make it so.
async fn permitted(connection: &mut PgConnection, current: bool) -> Result<bool, Error> {
    let permitted = sqlx::query_scalar!(
        r#"select case
               when $1 then (
                   select has_schema_privilege(n.oid, 'usage') and bool_and(
                          has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
                          and has_table_privilege(c.oid, 'update'))
                   from pg_class c join pg_namespace n on n.oid = c.relnamespace
                   -- what the owner alone writes
                   where n.nspname = 'archive' and c.relkind = 'r' and c.relname not in ('_sqlx_migrations', 'reader_rooms')
                   group by n.oid)
               else coalesce((select has_schema_privilege(oid, 'create') from pg_namespace where nspname = 'archive'),
                             has_database_privilege(current_database(), 'create'))
                   and (select has_schema_privilege(oid, 'create') from pg_namespace where nspname = 'public')
           end"#,
        current
    )
    .fetch_one(connection)
    .await?;
    Ok(permitted == Some(true))
}

async fn search_is_limited(connection: &mut PgConnection) -> Result<bool, Error> {
    let limited = sqlx::query_scalar!(r#"select archive.lower_case_source() = 'table' as "limited!""#);
    match limited.fetch_one(connection).await {
        // The role may not read it, which `permitted` reports.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => Ok(false),
        result => Ok(result?),
    }
}

async fn account(connection: &mut PgConnection) -> Result<Option<FoundAccount>, Error> {
    let account = sqlx::query_scalar!("select user_id from archive.accounts order by account_key limit 1");
    let user_id = match account.fetch_optional(&mut *connection).await {
        // The role may not read it, which `permitted` reports.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => return Ok(None),
        result => result?,
    };
    let Some(user_id) = user_id else { return Ok(None) };
    Ok(Some(FoundAccount { user_id, device: PublicKeys::stored(connection).await? }))
}

/// The session that holds the writer's lease. None in a schema from before the lease.
pub(in crate::archive) async fn writer(connection: &mut PgConnection) -> Result<Option<Backend>, Error> {
    let holder = sqlx::query!(
        r#"select l.pid as "pid!",
                  coalesce(to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '?') as "since!"
           from pg_locks l
           join pg_class c on c.oid = l.relation
           join pg_namespace n on n.oid = c.relnamespace
           left join pg_stat_activity a on a.pid = l.pid
           where l.locktype = 'relation' and l.mode = 'ShareUpdateExclusiveLock' and l.granted
             and l.database = (select oid from pg_database where datname = current_database())
             and n.nspname = 'archive' and c.relname = 'writer_lock'"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(holder.map(|holder| (holder.pid, holder.since)))
}

/// The writing session of an earlier version. Every role can take its lock, so only a role that may write counts.
pub(in crate::archive) async fn earlier_writer(
    connection: &mut PgConnection,
) -> Result<Option<Backend>, Error> {
    let holder = sqlx::query!(
        r#"select l.pid as "pid!",
                  coalesce(to_char(a.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), '?') as "since!"
           from pg_locks l
           join pg_stat_activity a on a.pid = l.pid
           where l.locktype = 'advisory' and l.granted and l.objsubid = 1
             and l.database = (select oid from pg_database where datname = current_database())
             and (l.classid::bigint << 32 | l.objid::bigint) = $1
             and has_table_privilege(a.usesysid, 'archive.accounts', 'update')"#,
        EARLIER_LOCK
    )
    .fetch_optional(connection)
    .await?;
    Ok(holder.map(|holder| (holder.pid, holder.since)))
}
