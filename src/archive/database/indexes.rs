//! Rebuilds the indexes of `archive.events` and `archive.activity` that inserting has left half empty.
//!
//! History is stored from the newest event to the oldest, and new events at the end of each room. In an index that
//! begins with the room, both are places between other entries. PostgreSQL splits a full page there into two halves,
//! and one of them gets no further entry. So such an index becomes up to twice as large as it need be.
//!
//! `archive.index_builds` says how many events there were when an index was last built, and in which file it was. After
//! `reindex`, `vacuum full` or a restore the file is another one, so it does not matter who built the index.

use std::{collections::HashMap, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::sessions::without_timeouts;
use crate::archive::{Archive, CONNECT, Error, Writer};

/// An index is rebuilt after at least this many new events.
const EVENTS: i64 = 100_000;
/// And once at least one of so many events is newer than it. So rebuilding costs each event the same, however large
/// the archive becomes.
const ONE_IN: i64 = 3;
/// It is not rebuilt if a walk has stored a page within this time.
const QUIET: Duration = Duration::from_secs(10);

/// An index that is to be rebuilt.
#[derive(Debug)]
pub(crate) struct HalfEmptyIndex {
    /// Its name in schema `archive`.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: i64,
    /// Whether this role may rebuild it. Only its owner may.
    pub(crate) is_ours: bool,
}

impl Archive {
    /// The largest index that is to be rebuilt now.
    ///
    /// Each query reads either the catalogue or one table, because a distributed database cannot join them.
    pub(crate) async fn half_empty_index(&self) -> Result<Option<HalfEmptyIndex>, Error> {
        let events = archived_events(&mut *self.pool.acquire().await?).await?;
        let is_due = sqlx::query_scalar!(
            r#"select index_name as "name!" from archive.index_builds
               where $1 - event_count >= $2 and ($1 - event_count) * $3 >= $1"#,
            events,
            EVENTS,
            ONE_IN
        );
        let due = is_due.fetch_all(&self.pool).await?;
        if due.is_empty() || self.is_walking().await? {
            return Ok(None);
        }
        let largest = sqlx::query_as!(
            HalfEmptyIndex,
            r#"select c.relname::text as "name!", pg_relation_size(c.oid) as "bytes!",
                      pg_has_role(c.relowner, 'usage') as "is_ours!"
               from pg_class c
               where c.relnamespace = 'archive'::regnamespace and c.relname = any ($1)
               order by 2 desc, 1
               limit 1"#,
            &due
        );
        Ok(largest.fetch_optional(&self.pool).await?)
    }

    /// Whether a walk has stored a page just now.
    async fn is_walking(&self) -> Result<bool, Error> {
        let walks = sqlx::query_scalar!(
            r#"select exists (
                   select 1 from archive.walks where updated_at > now() - make_interval(secs => $1)
               ) as "is_walking!""#,
            QUIET.as_secs_f64()
        );
        Ok(walks.fetch_one(&self.pool).await?)
    }

    /// The size of an index.
    pub(crate) async fn index_bytes(&self, name: &str) -> Result<i64, Error> {
        let bytes = sqlx::query_scalar!(
            r#"select coalesce(pg_relation_size(to_regclass(format('archive.%I', $1::text))), 0) as "bytes!""#,
            name
        );
        Ok(bytes.fetch_one(&self.pool).await?)
    }

    /// Drops what a rebuilding that was interrupted has left, if this role may. Each new event would be inserted there,
    /// too. If another session rebuilds an index right now, this waits for its end, and then there is nothing to drop.
    pub(crate) async fn drop_unfinished_indexes(&self) -> Result<(), Error> {
        // PostgreSQL, "reindex", "Rebuilding Indexes Concurrently": they have these names, and are not valid.
        let drops = sqlx::query_scalar!(
            r#"select format('drop index concurrently if exists archive.%I', c.relname) as "drop!"
               from pg_index i
               join pg_class c on c.oid = i.indexrelid
               where i.indrelid in ('archive.events'::regclass, 'archive.activity'::regclass) and not i.indisvalid
                 and c.relname ~ '_cc(new|old)[0-9]*$' and pg_has_role(c.relowner, 'usage')"#
        )
        .fetch_all(&self.pool)
        .await?;
        if drops.is_empty() {
            return Ok(());
        }
        let mut connection = self.connect_to_rebuild().await?;
        for drop in drops {
            connection.execute(AssertSqlSafe(drop)).await?;
        }
        Ok(connection.close().await?)
    }

    /// A session of its own, because it may take long, and its settings are others. It is not one of those whose waits
    /// for a lock are reported: it waits until no older transaction needs the index as it was, which delays nobody.
    async fn connect_to_rebuild(&self) -> Result<PgConnection, Error> {
        let options = self.options().application_name("backscroll indexes");
        let connect = PgConnection::connect_with(&options);
        let mut connection =
            tokio::time::timeout(CONNECT, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let settings = format!(
            "{}; set lock_timeout = 0; set client_min_messages = error; set max_parallel_maintenance_workers = 0",
            without_timeouts(&connection)
        );
        connection.execute(AssertSqlSafe(settings)).await?;
        // The server ends the statement soon after this process has ended. Some systems cannot (PostgreSQL,
        // "client_connection_check_interval"); then it ends when it is done.
        if let Err(error) = connection.execute("set client_connection_check_interval = '1s'").await {
            tracing::debug!(%error, "the server does not notice when a client is gone");
        }
        Ok(connection)
    }
}

impl Writer {
    /// Records which indexes were built, by whomever, since this was last called.
    pub(crate) async fn note_index_builds(&self) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        let recorded = sqlx::query!("select index_name, file_node from archive.index_builds")
            .fetch_all(&mut *transaction)
            .await?;
        let recorded: HashMap<_, _> =
            recorded.into_iter().map(|row| (row.index_name, row.file_node)).collect();
        let indexes = sqlx::query!(
            r#"select c.relname::text as "name!", pg_relation_filenode(c.oid) as "file_node!"
               from pg_index i
               join pg_class c on c.oid = i.indexrelid
               join pg_am m on m.oid = c.relam
               where i.indrelid in ('archive.events'::regclass, 'archive.activity'::regclass)
                 and i.indisvalid and m.amname = 'btree'"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        let events = archived_events(&mut transaction).await?;
        for index in indexes {
            let known = recorded.get(&index.name);
            if known == Some(&index.file_node) {
                continue;
            }
            // One that is not known yet may have been filled since it was built.
            let event_count = if known.is_some() { events } else { 0 };
            sqlx::query!(
                "insert into archive.index_builds (index_name, file_node, event_count, built_at) values ($1, $2, $3, now())
                 on conflict (index_name) do update
                     set file_node = excluded.file_node, event_count = excluded.event_count, built_at = excluded.built_at",
                index.name,
                index.file_node,
                event_count
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }

    /// Rebuilds an index while others read and write. Needs the space of the new index until the old one is dropped.
    /// Waits for every older transaction of the database.
    pub(crate) async fn rebuild_index(&self, index: &HalfEmptyIndex) -> Result<(), Error> {
        let archive = self.archive();
        archive.drop_unfinished_indexes().await?;
        let reindex = sqlx::query_scalar!(
            r#"select format('reindex index concurrently archive.%I', $1::text) as "reindex!""#,
            index.name
        )
        .fetch_one(&archive.pool)
        .await?;
        let mut connection = archive.connect_to_rebuild().await?;
        connection.execute(AssertSqlSafe(reindex)).await?;
        connection.close().await?;
        self.note_index_builds().await
    }
}

async fn archived_events(connection: &mut PgConnection) -> Result<i64, Error> {
    let events = sqlx::query_scalar!(
        r#"select coalesce(sum(event_count), 0)::bigint as "events!" from archive.rooms"#
    );
    Ok(events.fetch_one(connection).await?)
}
