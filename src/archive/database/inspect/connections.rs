//! How many connections the role may have, and how many of them are free.

use sqlx::PgConnection;

use super::{Error, row};

/// With fewer connections the daemon would wait for itself: one holds the writer's lease, one listens, one stores a
/// page, and two are for `/sync` and for all other queries.
pub(crate) const FEWEST_CONNECTIONS: u32 = 5;

/// The lowest of the limits that apply to the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimit {
    /// The limit.
    pub(crate) most: i64,
    /// How many connections others have now.
    pub(crate) used: i64,
    /// What the limit belongs to.
    pub(crate) of: Limited,
}

/// What a limit of connections belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    /// The role: `alter role … connection limit`.
    Role,
    /// The database: `alter database … connection limit`.
    Database,
    /// The whole server: `max_connections`, less what is reserved.
    Server,
}

impl ConnectionLimit {
    /// How many are free.
    pub(crate) fn free(&self) -> i64 {
        (self.most - self.used).max(0)
    }
}

/// `own`: how many of the connections are this process's.
pub(super) async fn limit(connection: &mut PgConnection, own: i64) -> Result<ConnectionLimit, Error> {
    let query = "
        with role as (select * from pg_roles where rolname = session_user),
             setting as (select name, setting::bigint as value from pg_settings
                         where name in ('max_connections', 'superuser_reserved_connections', 'reserved_connections')),
             -- Of which kind another role's session is, is kept from us.
             client as (select usesysid, datid from pg_stat_activity
                        where coalesce(backend_type, 'client backend') = 'client backend' and usesysid is not null)
        select case when rolsuper then -1 else rolconnlimit end::text,
               (select count(*) from client where usesysid = role.oid)::text,
               (select case when rolsuper then -1 else datconnlimit end from pg_database where datname = current_database())::text,
               (select count(*) from client
                where datid = (select oid from pg_database where datname = current_database()))::text,
               (select sum(case when name = 'max_connections' then value when rolsuper then 0 else -value end) from setting)::text,
               (select count(*) from client)::text
        from role";
    let numbers: Vec<i64> =
        row(connection, query).await?.iter().filter_map(|text| text.parse().ok()).collect();
    let limits = [Limited::Role, Limited::Database, Limited::Server].into_iter().zip(numbers.chunks_exact(2));
    let limits = limits.filter(|(_, numbers)| numbers[0] >= 0).map(|(of, numbers)| ConnectionLimit {
        most: numbers[0],
        used: (numbers[1] - own).max(0),
        of,
    });
    let narrowest = limits.min_by_key(|limit| (limit.free(), limit.most));
    narrowest.ok_or_else(|| sqlx::Error::RowNotFound.into())
}
