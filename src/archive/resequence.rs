//! Rewrites a room's positions to match the server's order. This is the only operation that changes positions.

use sqlx::PgConnection;

use super::{
    Error, Writer,
    event::quarantine,
    redaction,
    room::{self, Room},
    walk,
    writer::lock_room,
};
use crate::matrix::Page;

/// The progress of reading a room's order.
#[derive(Clone, Debug)]
pub struct Resequence {
    /// The room.
    pub(crate) room_id: String,
    /// The `from` of the next request.
    pub(crate) cursor: Option<String>,
    /// Pages read.
    pub(crate) pages: i64,
}

/// The result of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageRead {
    /// The number of events that it added to the order.
    pub(crate) added: u64,
    /// Whether the room's create event is in the order.
    pub(crate) create_passed: bool,
}

impl Writer {
    /// Begins to read a room's order, or resumes an interrupted run if `since` has not moved.
    ///
    /// # Errors
    /// [`Error::NoSuchRoom`] if the archive does not know the room.
    pub(crate) async fn open_resequence(&self, room_id: &str) -> Result<Resequence, Error> {
        let mut transaction = self.begin().await?;
        let Some(room) = room::find(&mut transaction, room_id).await? else {
            return Err(Error::NoSuchRoom(room_id.to_owned()));
        };
        let stale = sqlx::query!(
            "delete from archive.resequences r using archive.accounts a
             where r.room_id = $1 and r.since is distinct from a.since",
            room.room_id
        )
        .execute(&mut *transaction)
        .await?;
        if stale.rows_affected() > 0 {
            forget_order(&mut transaction, &room.room_id).await?;
        }
        let since = sqlx::query_scalar!("select since from archive.accounts limit 1")
            .fetch_optional(&mut *transaction)
            .await?
            .flatten();
        let resequence = sqlx::query_as!(
            Resequence,
            "insert into archive.resequences as r (room_id, since) values ($1, $2)
             on conflict (room_id) do update set since = r.since
             returning room_id, cursor, pages",
            room.room_id,
            since
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(resequence)
    }

    /// Begins again at the newest event, because the server refuses the cursor.
    pub(crate) async fn restart_resequence(&self, at: &Resequence) -> Result<Resequence, Error> {
        let mut transaction = self.begin().await?;
        move_cursor(&mut transaction, at, None, 0).await?;
        forget_order(&mut transaction, &at.room_id).await?;
        transaction.commit().await?;
        Ok(Resequence { cursor: None, pages: 0, ..at.clone() })
    }

    /// Stores the order of a page and moves the cursor to `next`, in one transaction. Events that the archive lacks
    /// are stored too.
    ///
    /// # Errors
    /// [`Error::CheckpointMoved`] if the cursor is not where `at` says.
    pub(crate) async fn apply_resequence_page(
        &self,
        at: &mut Resequence,
        page: &Page,
        next: Option<&str>,
    ) -> Result<PageRead, Error> {
        let mut transaction = self.begin_in_room(&at.room_id).await?;
        let room = room::get(&mut transaction, &at.room_id).await?;
        for section in [&page.chunk, &page.state] {
            quarantine::keep(&mut transaction, self.policy(), &room, &section.malformed).await?;
            if redaction::state_names_no_target(&mut transaction, &room, section.events.iter()).await? {
                walk::rewalk_now(&mut transaction, &room.room_id).await?;
            }
            self.store_unplaced(&mut transaction, &room, &section.events).await?;
        }
        let added = append_order(&mut transaction, &room, page).await?;
        let next = next.or(at.cursor.as_deref());
        move_cursor(&mut transaction, at, next, at.pages + 1).await?;
        let create_passed = has_create(&mut transaction, &at.room_id).await?;
        transaction.commit().await?;
        let cursor = next.map(str::to_owned);
        (at.cursor, at.pages) = (cursor, at.pages + 1);
        Ok(PageRead { added, create_passed })
    }

    /// Rewrites the room's positions in the order that was read, in one transaction. Returns how many events have a
    /// new position.
    pub(crate) async fn finish_resequence(&self, at: &Resequence) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, &at.room_id).await?;
        merge_unlisted(&mut transaction, &at.room_id).await?;
        let moved = if in_order(&mut transaction, &at.room_id).await? {
            0
        } else {
            number(&mut transaction, &at.room_id).await?;
            move_edges(&mut transaction, &at.room_id).await?;
            let moved = move_events(&mut transaction, &at.room_id).await?;
            search_anew(&mut transaction, &at.room_id).await?;
            moved
        };
        forget_order(&mut transaction, &at.room_id).await?;
        sqlx::query!("delete from archive.resequences where room_id = $1", at.room_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(moved)
    }
}

async fn move_cursor(
    connection: &mut PgConnection,
    at: &Resequence,
    cursor: Option<&str>,
    pages: i64,
) -> Result<(), Error> {
    let moved = sqlx::query!(
        "update archive.resequences set cursor = $4, pages = $5
         where room_id = $1 and cursor is not distinct from $2 and pages = $3",
        at.room_id,
        at.cursor,
        at.pages,
        cursor,
        pages
    )
    .execute(connection)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(Error::CheckpointMoved) }
}

async fn forget_order(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!("delete from archive.resequenced_events where room_id = $1", room_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Appends the page's events to the order, newest first. An event that is listed twice keeps its first place (P35).
async fn append_order(connection: &mut PgConnection, room: &Room, page: &Page) -> Result<u64, Error> {
    let event_ids: Vec<String> = page.chunk.events.iter().map(|event| event.event_id.clone()).collect();
    let added = sqlx::query!(
        "insert into archive.resequenced_events (room_id, event_id, rank)
         select $1, listed.event_id, listed.place + coalesce(
                (select max(rank) from archive.resequenced_events where room_id = $1), 0)
         from unnest($2::text[]) with ordinality as listed (event_id, place)
         order by listed.place
         on conflict do nothing",
        room.room_id,
        &event_ids
    )
    .execute(connection)
    .await?;
    Ok(added.rows_affected())
}

async fn has_create(connection: &mut PgConnection, room_id: &str) -> Result<bool, Error> {
    let passed = sqlx::query_scalar!(
        r#"select exists (
               select from archive.events e
               join archive.resequenced_events o using (room_id, event_id)
               where e.room_id = $1 and e.type = 'm.room.create' and e.state_key = ''
           ) as "passed!""#,
        room_id
    )
    .fetch_one(connection)
    .await?;
    Ok(passed)
}

/// Adds the placed events that the server no longer lists, for example purged ones.
async fn merge_unlisted(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "insert into archive.resequenced_events as o (room_id, event_id, old_position)
         select e.room_id, e.event_id, e.position
         from archive.events e
         where e.room_id = $1 and e.position is not null
         on conflict (room_id, event_id) do update set old_position = excluded.old_position",
        room_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Numbers the events from the oldest. Listed ones are ordered by rank. Each unlisted one is placed above the event
/// that was below it.
async fn number(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "with grouped as (
             -- An unlisted event is in the group of the last listed one below it.
             select event_id, rank, old_position, count(rank) over (order by old_position) as below
             from archive.resequenced_events
             where room_id = $1 and old_position is not null
         ), anchored as (
             select event_id, rank, old_position,
                    coalesce(rank, max(rank) over (partition by below)) as anchor
             from grouped
             union all
             select event_id, rank, old_position, rank
             from archive.resequenced_events
             where room_id = $1 and old_position is null
         ), numbered as (
             select event_id,
                    row_number() over (order by anchor desc nulls first, rank is null, old_position)
                    - count(*) over () as place
             from anchored
         )
         update archive.resequenced_events o
         -- As a history walk gives them: two to the sixteenth apart, with the newest at zero.
         set new_position = numbered.place << 16
         from numbered
         where o.room_id = $1 and o.event_id = numbered.event_id",
        room_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the room already has the order that was read. Unlisted events then have the same neighbours.
async fn in_order(connection: &mut PgConnection, room_id: &str) -> Result<bool, Error> {
    let in_order = sqlx::query_scalar!(
        r#"select coalesce(bool_and(old_position is not null and (above is null or old_position < above)), true)
                  as "in_order!"
           from (
               select old_position, lag(old_position) over (order by rank) as above
               from archive.resequenced_events
               where room_id = $1 and rank is not null
           ) as listed"#,
        room_id
    )
    .fetch_one(connection)
    .await?;
    Ok(in_order)
}

/// Moves gaps, so that they are between the same events as before, and open walks, so that they are below the same
/// event.
async fn move_edges(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "update archive.gaps g
         set lower_position = case when g.lower_position is not null then coalesce(
                 (select new_position from archive.resequenced_events
                  where room_id = $1 and old_position <= g.lower_position order by old_position desc limit 1),
                 (select min(new_position) from archive.resequenced_events where room_id = $1)) end,
             upper_position = case when g.upper_position is not null then coalesce(
                 (select new_position from archive.resequenced_events
                  where room_id = $1 and old_position >= g.upper_position order by old_position limit 1),
                 -- Above all: as far above as it was.
                 g.upper_position - (select max(old_position) from archive.resequenced_events where room_id = $1)) end
         where g.room_id = $1 and g.state <> 'closed'",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update archive.walks w
         set upper_position = coalesce(
                 (select new_position from archive.resequenced_events
                  where room_id = $1 and old_position >= w.upper_position order by old_position limit 1),
                 w.upper_position - (select max(old_position) from archive.resequenced_events where room_id = $1))
         where w.room_id = $1 and w.state <> 'done' and w.upper_position is not null",
        room_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets the search read the whole room anew, because it names messages by their positions.
async fn search_anew(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!("select archive.search_anew($1)", room_id).execute(connection).await?;
    Ok(())
}

/// Moves the events. They first get positions far above all others, because two events must never share a position.
async fn move_events(connection: &mut PgConnection, room_id: &str) -> Result<u64, Error> {
    sqlx::query!(
        "update archive.events e set position = o.new_position + (1::bigint << 62)
         from archive.resequenced_events o
         where e.room_id = $1 and o.room_id = $1 and e.event_id = o.event_id",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    let moved = sqlx::query!(
        "update archive.events e set position = o.new_position
         from archive.resequenced_events o
         where e.room_id = $1 and o.room_id = $1 and e.event_id = o.event_id",
        room_id
    )
    .execute(connection)
    .await?;
    Ok(moved.rows_affected())
}
