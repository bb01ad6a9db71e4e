//! Reads what a seal covers, and keeps the seals.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::PgExecutor;

use super::{Archive, Error, Writer};

/// An event of a room, in the order of its seals: by day, then by position; those without a position come last, in the
/// order of their ids.
#[derive(Clone, Debug)]
pub(crate) struct SealedEvent {
    /// Days since 1970 by the sender's clock, in UTC. `None`: PostgreSQL cannot represent the time.
    pub(crate) day: Option<i64>,
    pub(crate) event_id: String,
    pub(crate) stable_sha256: Vec<u8>,
    pub(crate) is_placed: bool,
    /// The event with the next lower position, of whichever day.
    pub(crate) event_before: Option<String>,
}

/// An event of a day, and why it may differ from what a seal says.
#[derive(Clone, Debug)]
pub(crate) struct EventOfDay {
    pub(crate) event_id: String,
    pub(crate) stable_sha256: Vec<u8>,
    pub(crate) position: Option<i64>,
    pub(crate) event_before: Option<String>,
    /// Its first copy was stored since, or by a transaction that may have been under way.
    pub(crate) may_be_new: bool,
    /// Its first copy was stored since.
    pub(crate) is_new: bool,
    /// It was redacted or erased since, or a better copy of it replaced the one that was there.
    pub(crate) is_changed: bool,
}

/// A row of `archive.seals`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    /// `YYYY-MM-DD`. Empty: the day of events whose time PostgreSQL cannot represent.
    pub(crate) day: String,
    pub(crate) event_count: i64,
    pub(crate) root: Vec<u8>,
    pub(crate) chain: Vec<u8>,
}

/// A new row of `archive.seals`.
#[derive(Clone, Debug)]
pub(crate) struct NewSeal {
    pub(crate) seal: Seal,
    /// The first eight bytes of each leaf.
    pub(crate) leaves: Vec<u8>,
}

/// How many events back the one is looked for that was before an event when it was sealed.
const FAR: i64 = 20_000;
/// How long a transaction that stores events takes at most. Events of a transaction that was under way when a seal was
/// made were received before that, but the seal does not have them.
const LONGEST_TRANSACTION: &str = "10 minutes";

impl Archive {
    /// The time of the database, as text, to be given to [`Writer::keep_seals`].
    pub(crate) async fn now(&self) -> Result<String, Error> {
        Ok(sqlx::query_scalar!(r#"select now()::text as "now!""#).fetch_one(&self.pool).await?)
    }

    /// Each event of a room, in the order of its seals.
    pub(crate) fn sealed_events<'a>(
        &'a self,
        room_id: &'a str,
    ) -> impl Stream<Item = Result<SealedEvent, Error>> + 'a {
        sealed_events(&self.pool, room_id)
    }

    /// The events of a day, in the order of its seal, with what happened after `since`, a time as PostgreSQL writes it.
    pub(crate) async fn events_of_day(
        &self,
        room_id: &str,
        day: &str,
        since: &str,
        mut read: impl FnMut(EventOfDay),
    ) -> Result<(), Error> {
        let mut rows = sqlx::query_as!(
            EventOfDay,
            r#"with asked as (select $3::text::timestamptz as since, nullif($2, '')::timestamp at time zone 'UTC' as day_start)
               select e.event_id, e.stable_sha256, e.position, previous.event_id as "event_before?",
                      f.received_at >= a.since - $4::text::interval as "may_be_new!", f.received_at >= a.since as "is_new!",
                      (exists (select from archive.redactions r
                               where r.room_id = $1 and r.target_event_id = e.event_id and r.recorded_at >= a.since)
                       or e.redacted_by is not null
                          and exists (select from archive.redactions r
                                      where r.room_id = $1 and r.redaction_event_id = e.redacted_by
                                        and r.recorded_at >= a.since)
                       or exists (select from archive.erasures u
                                  where u.erased_at >= a.since
                                    and (u.user_id = e.sender or e.type = 'm.room.member' and u.user_id = e.state_key))
                       or f.replaced_at >= a.since) is true as "is_changed!"
               from asked a
               join archive.events e on case when a.day_start is null then e.sent_at is null
                                             else e.sent_at >= a.day_start and e.sent_at < a.day_start + interval '24 hours' end
               left join lateral (
                   select p.event_id from archive.events p
                   where p.room_id = $1 and p.position < e.position
                   order by p.position desc limit 1) previous on true
               cross join lateral (
                   select least(e.received_at, min(c.received_at)) as received_at, max(c.replaced_at) as replaced_at
                   from archive.replaced_copies c
                   where c.room_id = $1 and c.event_id = e.event_id) f
               where e.room_id = $1
               order by e.position, e.event_id"#,
            room_id,
            day,
            since,
            LONGEST_TRANSACTION
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            read(row);
        }
        Ok(())
    }

    /// The events before a position in the room's order, the next lower one first, at most [`FAR`].
    pub(crate) async fn events_before(&self, room_id: &str, position: i64) -> Result<Vec<String>, Error> {
        let before = sqlx::query_scalar!(
            "select event_id from archive.events where room_id = $1 and position < $2 order by position desc limit $3",
            room_id,
            position,
            FAR
        );
        Ok(before.fetch_all(&self.pool).await?)
    }

    /// Which of these events are not archived.
    pub(crate) async fn not_archived(
        &self,
        room_id: &str,
        event_ids: &[String],
    ) -> Result<Vec<String>, Error> {
        let missing = sqlx::query_scalar!(
            r#"select asked.event_id as "event_id!" from unnest($2::text[]) as asked (event_id)
               where not exists (select from archive.events e where e.room_id = $1 and e.event_id = asked.event_id)"#,
            room_id,
            event_ids
        );
        Ok(missing.fetch_all(&self.pool).await?)
    }

    /// The rooms that have seals.
    pub(crate) async fn sealed_rooms(&self) -> Result<Vec<String>, Error> {
        let rooms = sqlx::query_scalar!(
            "select r.room_id from archive.rooms r
             where exists (select from archive.seals s where s.room_id = r.room_id)"
        );
        Ok(rooms.fetch_all(&self.pool).await?)
    }

    /// The seals of a room, oldest first.
    pub(crate) async fn seals(&self, room_id: &str) -> Result<Vec<Seal>, Error> {
        let seals = sqlx::query_as!(
            Seal,
            r#"select case when isfinite(s.day) then to_char(s.day, 'YYYY-MM-DD') else '' end as "day!",
                      s.event_count, s.root, s.chain
               from archive.seals s where s.room_id = $1 order by s.seal_id"#,
            room_id
        );
        Ok(seals.fetch_all(&self.pool).await?)
    }

    /// The newest seal of a day: the first eight bytes of each leaf, and its time.
    pub(crate) async fn newest_seal(&self, room_id: &str, day: &str) -> Result<(Vec<u8>, String), Error> {
        let seal = sqlx::query!(
            r#"select s.leaves, s.sealed_at::text as "since!" from archive.seals s
               where s.room_id = $1 and s.day = coalesce(nullif($2, '')::date, '-infinity')
               order by s.seal_id desc limit 1"#,
            room_id,
            day
        );
        let seal = seal.fetch_one(&self.pool).await?;
        Ok((seal.leaves, seal.since))
    }
}

/// The same as [`Archive::sealed_events`], for a transaction.
pub(super) fn sealed_events<'e>(
    executor: impl PgExecutor<'e> + 'e,
    room_id: &'e str,
) -> impl Stream<Item = Result<SealedEvent, Error>> + 'e {
    let events = sqlx::query_as!(
        SealedEvent,
        // The names of days are long to compare and to write, and a room has few.
        r#"select e.day, e.event_id as "event_id!", e.stable_sha256 as "stable_sha256!", e.position is not null as "is_placed!",
                  case when e.position is not null then e.event_before end as event_before
           from (select case when p.sent_at is null then null
                             when p.origin_server_ts >= 0 then p.origin_server_ts / 86400000
                             else (p.origin_server_ts + 1) / 86400000 - 1 end as day,
                        p.event_id, p.stable_sha256, p.position, lag(p.event_id) over (order by p.position) as event_before
                 from archive.events p where p.room_id = $1) e
           order by e.day nulls first, e.position, e.event_id"#,
        room_id
    );
    events.fetch(executor).map_err(Error::from)
}

impl Writer {
    /// Adds seals to a room. `sealed_at`: from [`Archive::now`], before the events were read.
    pub(crate) async fn keep_seals(
        &self,
        room_id: &str,
        seals: &[NewSeal],
        sealed_at: &str,
    ) -> Result<(), Error> {
        let mut transaction = self.begin_in_room(room_id).await?;
        for NewSeal { seal, leaves } in seals {
            sqlx::query!(
                "insert into archive.seals (room_id, day, event_count, root, chain, leaves, sealed_at)
                 values ($1, coalesce(nullif($2, '')::date, '-infinity'), $3, $4, $5, $6, $7::text::timestamptz)",
                room_id,
                seal.day,
                seal.event_count,
                seal.root,
                seal.chain,
                leaves,
                sealed_at
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}
