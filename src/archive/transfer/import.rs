//! Puts the rows of a room into the archive, in one transaction.

use futures_util::Stream;
use sqlx::{AssertSqlSafe, Executor as _};

use super::Table;
use crate::archive::{
    Error, Writer,
    erasure::{erase_imported, filter::is_erased},
    event::copy::{CopyIn, Rows},
    seal::{SealedEvent, sealed_events},
    verification::{Finding, derive_anew},
    writer::transaction::WriteTransaction,
};

const COPY: &str = "copy archive.events (room_id, event_id, position, received_at, type, sender, state_key, origin_server_ts, \
                    content, redacts, redacted_by, replaces_state, prev_content, relates_to, rel_type, thread_root, raw, \
                    stable_sha256) from stdin (format binary)";
/// Microseconds from 1970 to 2000, from which PostgreSQL counts.
const EPOCH: i64 = 946_684_800_000_000;

/// An event to be stored. Its texts must be such as `text` and `jsonb` accept.
#[derive(Clone, Debug)]
pub(crate) struct ImportedEvent<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) origin_server_ts: Option<i64>,
    pub(crate) content: &'a str,
    pub(crate) redacts: Option<&'a str>,
    pub(crate) redacted_by: Option<&'a str>,
    pub(crate) replaces_state: Option<&'a str>,
    pub(crate) prev_content: Option<&'a str>,
    pub(crate) relates_to: Option<&'a str>,
    pub(crate) rel_type: Option<&'a str>,
    pub(crate) raw: Option<&'a [u8]>,
    pub(crate) stable_sha256: &'a [u8],
    pub(crate) position: Option<i64>,
    /// Microseconds since 1970.
    pub(crate) received_at: i64,
}

/// The import of a room under way. Nothing of it can be seen until it is [finished](Self::finish).
pub(crate) struct Import<'w> {
    transaction: WriteTransaction<'w>,
    room_id: String,
}

impl Writer {
    /// Begins to import a room that the archive does not have.
    ///
    /// # Errors
    /// [`Error::ErasedRoom`] if it was erased here.
    pub(crate) async fn import_room(&self, room_id: &str) -> Result<Import<'_>, Error> {
        let mut transaction = self.begin().await?;
        // Times are read as they were written. The last one means something to Citus alone, which cannot `analyze` in a
        // transaction that has read a table without a connection. So it comes before everything else.
        let settings = "set local timezone = 'UTC'; set local datestyle = 'ISO';
                        set local citus.enable_local_execution = off";
        transaction.execute(settings).await?;
        if is_erased(&mut transaction, room_id).await? {
            transaction.undo(None).await;
            return Err(Error::ErasedRoom(room_id.to_owned()));
        }
        Ok(Import { transaction, room_id: room_id.to_owned() })
    }

    /// Stores keys of homeservers, each as a JSON object, that the archive does not have.
    pub(crate) async fn import_server_keys(&self, keys: &[String]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "insert into archive.server_keys
             select k.* from unnest($1::text[]) as line (line)
             cross join lateral jsonb_populate_record(null::archive.server_keys, line.line::jsonb) k
             on conflict do nothing",
            keys
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Takes over erasures of users, each as a JSON object, so that what comes later of them is covered, too. Returns those
    /// of the users of whom this archive has content; it stays until they are erased here.
    pub(crate) async fn import_erasures(&self, erasures: &[String]) -> Result<Vec<String>, Error> {
        let mut transaction = self.begin().await?;
        let new = sqlx::query_scalar!(
            r#"insert into archive.erasures (user_id, erased_at)
               select line.line::jsonb ->> 'user_id', (line.line::jsonb ->> 'erased_at')::timestamptz
               from unnest($1::text[]) with ordinality as line (line, place)
               order by line.place
               on conflict do nothing
               returning user_id as "user_id!""#,
            erasures
        )
        .fetch_all(&mut *transaction)
        .await?;
        let here = sqlx::query_scalar!(r#"select archive.users_in($1, null) as "user_id!""#, &new)
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(here)
    }
}

impl Import<'_> {
    /// Inserts rows of a table, each a JSON object. Rows of other rooms are left out. Returns how many were inserted.
    pub(crate) async fn insert_rows(&mut self, table: &Table, rows: &[String]) -> Result<u64, Error> {
        let insert = format!(
            "insert into archive.{table} overriding system value
             select r.* from unnest($2::text[]) as given (line)
             cross join lateral jsonb_populate_record(
                 null::archive.{table}, jsonb_build_object('event_count', 0, 'message_count', 0) || given.line::jsonb) r
             where r.room_id = $1",
            table = table.name
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "the name of the table, a constant, is not known to the macro"
        )]
        let inserted = sqlx::query(AssertSqlSafe(insert)).bind(&self.room_id).bind(rows);
        Ok(inserted.execute(&mut *self.transaction).await?.rows_affected())
    }

    /// Begins to insert events. They are there once [`EventRows::finish`] has returned.
    pub(crate) async fn events(&mut self) -> Result<EventRows<'_>, Error> {
        let copy = CopyIn::begin(&mut self.transaction, COPY).await?;
        Ok(EventRows { copy, room_id: &self.room_id })
    }

    /// Derives what follows from the rows, applies the erasures of this archive, and queues the room for the search.
    /// Returns what contradicts itself then, so that it must not be [finished](Self::finish).
    pub(crate) async fn derive(&mut self) -> Result<Vec<Finding>, Error> {
        let transaction = &mut self.transaction;
        sqlx::query!(
            "insert into archive.waiting_edits (room_id, message_id, edit_id)
             select e.room_id, e.relates_to, e.event_id from archive.events e
             where e.room_id = $1 and e.rel_type = 'm.replace' and e.relates_to is not null and e.state_key is null
               and e.redacted_by is null
               and not exists (select from archive.events m where m.room_id = e.room_id and m.event_id = e.relates_to)
             on conflict do nothing",
            self.room_id
        )
        .execute(&mut **transaction)
        .await?;
        // The plans of what follows need to know how much there is.
        transaction
            .execute(
                "analyze archive.events, archive.current_state, archive.state_changes, archive.redactions",
            )
            .await?;
        derive_anew(transaction, &self.room_id).await?;
        sqlx::query!("select archive.skip_numbers($1)", self.room_id).execute(&mut **transaction).await?;
        let erased = sqlx::query_scalar!(
            r#"select user_id as "user_id!" from archive.erasures where user_id is not null order by erasure_id"#
        )
        .fetch_all(&mut **transaction)
        .await?;
        for user_id in erased {
            erase_imported(transaction, &self.room_id, &user_id).await?;
        }
        sqlx::query!("select archive.search_anew($1)", self.room_id).execute(&mut **transaction).await?;
        let rooms = [self.room_id.clone()];
        let found = sqlx::query_as!(
            Finding,
            r#"select kind as "kind!", event_id, detail from archive.inconsistencies($1) limit 100"#,
            &rooms as &[String]
        );
        Ok(found.fetch_all(&mut **transaction).await?)
    }

    /// The events in the order of the room's seals.
    pub(crate) fn sealed_events(&mut self) -> impl Stream<Item = Result<SealedEvent, Error>> + '_ {
        sealed_events(&mut *self.transaction, &self.room_id)
    }

    /// Makes it visible.
    pub(crate) async fn finish(self) -> Result<(), Error> {
        self.transaction.commit().await
    }

    /// Takes all of it back.
    pub(crate) async fn undo(self) {
        self.transaction.undo(None).await;
    }
}

/// Events on their way into the table.
pub(crate) struct EventRows<'i> {
    copy: CopyIn<'i>,
    room_id: &'i str,
}

impl EventRows<'_> {
    pub(crate) async fn add(&mut self, event: &ImportedEvent<'_>) -> Result<(), Error> {
        self.copy.send_much().await?;
        encode(&mut self.copy.rows, self.room_id, event);
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<(), Error> {
        Ok(self.copy.finish().await?)
    }
}

fn encode(rows: &mut Rows, room_id: &str, event: &ImportedEvent<'_>) {
    rows.row(18);
    rows.text(Some(room_id));
    rows.text(Some(event.event_id));
    rows.int8(event.position);
    rows.int8(Some(event.received_at.saturating_sub(EPOCH)));
    rows.text(Some(event.event_type));
    rows.text(Some(event.sender));
    rows.text(event.state_key);
    rows.int8(event.origin_server_ts);
    rows.jsonb(Some(event.content));
    rows.text(event.redacts);
    rows.text(event.redacted_by);
    rows.text(event.replaces_state);
    rows.jsonb(event.prev_content);
    rows.text(event.relates_to);
    rows.text(event.rel_type);
    rows.text(event.relates_to.filter(|_| event.rel_type == Some("m.thread")));
    rows.bytes(event.raw);
    rows.bytes(Some(event.stable_sha256));
}
