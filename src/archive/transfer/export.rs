//! Reads a room as it is at one moment.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::{AssertSqlSafe, Executor as _, Postgres, Row as _, pool::PoolConnection};

use super::Table;
use crate::archive::{Archive, Error, derived::activity::day_of, room, writer::transaction::literal};

/// From when until when the events were sent that are exported, as PostgreSQL reads times. State events are exported
/// whenever they were sent, because the state of the room needs them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Period {
    /// The first time.
    pub(crate) since: Option<String>,
    /// The time after the last.
    pub(crate) until: Option<String>,
}

impl Period {
    /// Whether it is all of time.
    pub(crate) fn is_all(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// As an SQL condition on the event `e`.
    fn condition(&self) -> String {
        let bound = |time: &Option<String>, test: &str| match time {
            Some(time) => format!("e.sent_at {test} ({})::timestamptz", literal(time)),
            None => "true".to_owned(),
        };
        format!("(e.state_key is not null or {} and {})", bound(&self.since, ">="), bound(&self.until, "<"))
    }
}

/// A row of `archive.events`, as far as it does not follow from others.
#[derive(Clone, Debug)]
pub(crate) struct ExportedEvent {
    pub(crate) event_id: String,
    pub(crate) event_type: String,
    pub(crate) sender: String,
    pub(crate) state_key: Option<String>,
    pub(crate) origin_server_ts: Option<i64>,
    /// JSON.
    pub(crate) content: String,
    pub(crate) redacts: Option<String>,
    pub(crate) redacted_by: Option<String>,
    pub(crate) replaces_state: Option<String>,
    /// JSON.
    pub(crate) prev_content: Option<String>,
    pub(crate) relates_to: Option<String>,
    pub(crate) rel_type: Option<String>,
    /// The exact bytes, where the other columns do not give them.
    pub(crate) raw: Option<Vec<u8>>,
    pub(crate) stable_sha256: Vec<u8>,
    pub(crate) position: Option<i64>,
    /// Microseconds since 1970.
    pub(crate) received_at: i64,
}

impl ExportedEvent {
    /// Days since 1970 by the sender's clock, in UTC. `None`: PostgreSQL cannot represent the time.
    pub(crate) fn day(&self) -> Option<i64> {
        day_of(self.origin_server_ts)
    }
}

/// A room, and how much of it there is.
#[derive(Clone, Debug)]
pub(crate) struct RoomToExport {
    pub(crate) room_id: String,
    pub(crate) event_count: i64,
}

/// How a room is read in its order. PostgreSQL would read it in the table's order and sort it on the disk, which takes
/// twice as long: it takes the rows for more scattered than a room's rows are.
const BY_POSITION: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off";

/// A room at one moment: all that is read from it is of the same transaction.
pub(crate) struct Snapshot {
    connection: PoolConnection<Postgres>,
    room_id: String,
    period: Period,
}

impl Archive {
    /// Opens a room for reading.
    pub(crate) async fn snapshot(&self, room_id: &str, period: &Period) -> Result<Snapshot, Error> {
        let mut connection = self.pool.acquire().await?;
        // If the snapshot is dropped halfway, the pool must not get the transaction.
        connection.close_on_drop();
        let begin = format!(
            "begin isolation level repeatable read read only; set local timezone = 'UTC'; \
             set local datestyle = 'ISO'; set local extra_float_digits = 1; {BY_POSITION}"
        );
        connection.execute(AssertSqlSafe(begin)).await?;
        Ok(Snapshot { connection, room_id: room_id.to_owned(), period: period.clone() })
    }

    /// The keys of homeservers as JSON objects.
    pub(crate) async fn exported_server_keys(&self) -> Result<Vec<String>, Error> {
        let keys = sqlx::query_scalar!(
            r#"select (to_jsonb(k) || jsonb_build_object('fetched_at', to_char(
                   k.fetched_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))::text as "key!"
               from archive.server_keys k
               order by k.server_name, k.key_id, k.public_key, k.is_expired"#
        );
        Ok(keys.fetch_all(&self.pool).await?)
    }

    /// The erasures of users who are in these rooms, as JSON objects.
    pub(crate) async fn exported_erasures(&self, room_ids: &[String]) -> Result<Vec<String>, Error> {
        let erased = sqlx::query_scalar!(
            r#"select user_id as "user_id!" from archive.erasures where user_id is not null"#
        )
        .fetch_all(&self.pool)
        .await?;
        let here = sqlx::query_scalar!(r#"select archive.users_in($1, $2) as "user_id!""#, &erased, room_ids)
            .fetch_all(&self.pool)
            .await?;
        let erasures = sqlx::query_scalar!(
            r#"select jsonb_build_object('user_id', u.user_id, 'erased_at', to_char(
                   u.erased_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text as "erasure!"
               from archive.erasures u
               where u.user_id = any($1)
               order by u.erasure_id"#,
            &here
        );
        Ok(erasures.fetch_all(&self.pool).await?)
    }

    /// These rooms, or all that the archive knows, with the number of their events.
    ///
    /// # Errors
    /// [`Error::NoSuchRoom`] for the first that the archive does not have.
    pub(crate) async fn rooms_to_export(&self, room_ids: &[String]) -> Result<Vec<RoomToExport>, Error> {
        let all = room_ids.is_empty();
        let rooms = sqlx::query_as!(
            RoomToExport,
            "select r.room_id, r.event_count from archive.rooms r where $2 or r.room_id = any($1) order by r.room_id",
            room_ids,
            all
        )
        .fetch_all(&self.pool)
        .await?;
        room::all_found(rooms, room_ids, |room| &room.room_id)
    }

    /// A time as PostgreSQL reads it, in one form for all ways to write it.
    pub(crate) async fn time(&self, time: Option<&str>) -> Result<Option<String>, Error> {
        let time = sqlx::query_scalar!(
            r#"select to_char($1::text::timestamptz at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#,
            time
        );
        Ok(time.fetch_one(&self.pool).await?)
    }

    /// Whether the archive has the room.
    pub(crate) async fn is_archived(&self, room_id: &str) -> Result<bool, Error> {
        let is_archived = sqlx::query_scalar!(
            r#"select exists (select from archive.rooms where room_id = $1) as "is_archived!""#,
            room_id
        );
        Ok(is_archived.fetch_one(&self.pool).await?)
    }
}

impl Snapshot {
    /// The events in the room's order, oldest first; those without a position come last.
    pub(crate) fn events(&mut self) -> impl Stream<Item = Result<ExportedEvent, Error>> + '_ {
        let Period { since, until } = &self.period;
        let events = sqlx::query_as!(
            ExportedEvent,
            r#"select e.event_id, e.type as event_type, e.sender, e.state_key, e.origin_server_ts, e.content::text as "content!",
                      e.redacts, e.redacted_by, e.replaces_state, e.prev_content::text as prev_content, e.relates_to,
                      e.rel_type, e.raw, e.stable_sha256, e.position,
                      -- Not `extract`, whose numeric is slow. A double has enough digits.
                      round(date_part('epoch', e.received_at) * 1000000)::bigint as "received_at!"
               from archive.events e
               where e.room_id = $1
                 and (e.state_key is not null
                      or ($2::text is null or e.sent_at >= $2::text::timestamptz)
                         and ($3::text is null or e.sent_at < $3::text::timestamptz))
               order by e.position, e.event_id"#,
            self.room_id,
            since.as_deref(),
            until.as_deref()
        );
        events.fetch(&mut *self.connection).map_err(Error::from)
    }

    /// The rows of a table as JSON objects. The counts of a room are left out, because they follow from its events.
    pub(crate) fn rows(&mut self, table: &Table) -> impl Stream<Item = Result<String, Error>> + '_ {
        let condition = match table.of_period.filter(|_| !self.period.is_all()) {
            Some(condition) => condition.replace("{period}", &self.period.condition()),
            None => "true".to_owned(),
        };
        let row = match (table.name, self.period.is_all()) {
            ("rooms", true) => "to_jsonb(t) - '{event_count,message_count}'::text[]",
            // A part of a room is not all of its history.
            ("rooms", false) => {
                r#"(to_jsonb(t) || '{"verified_at": null}' || case t.history_state when 'complete'
                      then '{"history_state": "truncated", "history_reason": "only a period was exported"}' else '{}' end::jsonb)
                   - '{event_count,message_count}'::text[]"#
            }
            _ => "to_jsonb(t)",
        };
        let query = format!(
            "select ({row})::text from archive.{} t
             where t.room_id = {} and {condition} order by {}",
            table.name,
            literal(&self.room_id),
            table.order
        );
        // It is made of constants and of literals of hexadecimal digits.
        sqlx::raw_sql(AssertSqlSafe(query))
            .fetch(&mut *self.connection)
            .map_err(Error::from)
            .and_then(async |row| Ok(row.try_get(0)?))
    }

    /// Ends the transaction.
    pub(crate) async fn close(mut self) -> Result<(), Error> {
        self.connection.execute("commit").await?;
        Ok(())
    }
}
