//! The status of the archive, for `backscroll status` and for the loops.

use crate::{
    archive::{Archive, EncryptionStatus, Error, HistoryState, SearchLag, Wait, database::inspect},
    matrix::Membership,
};

/// The archive as a whole.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    /// The account. `None`: nothing was archived yet.
    pub user_id: Option<String>,
    /// The homeserver's URL.
    pub homeserver: Option<String>,
    /// When the last `/sync` response was committed, RFC 3339.
    pub synced_at: Option<String>,
    /// The same as seconds before now.
    pub synced_ago_s: Option<f64>,
    /// The last error of the homeserver. `None`: its last response was valid.
    pub homeserver_error: Option<String>,
    /// For how many seconds it has failed.
    pub homeserver_failing_s: Option<f64>,
    /// Whether a Backscroll is running on this archive.
    pub at_work: bool,
    /// Sessions that hold locks which transactions of Backscroll have waited for long.
    pub(crate) waits: Vec<Wait>,
    /// Size of the database in bytes.
    pub database_bytes: i64,
    /// The number of rows in quarantine.
    pub quarantined: i64,
    /// Redacted events whose originals are kept.
    pub originals: i64,
    /// Events that the homeserver lists no more, as the last verifications found.
    pub only_here: i64,
    /// How far the search is behind.
    pub search: SearchLag,
    /// How much of the encrypted messages can be read.
    pub encryption: EncryptionStatus,
    /// The archived rooms, including paused ones, ordered by name.
    pub rooms: Vec<RoomStatus>,
}

/// A room's gaps.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct GapCounts {
    /// Open gaps.
    pub(crate) open: i64,
    /// Skipped gaps.
    pub(crate) skipped: i64,
}

/// One room.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RoomStatus {
    /// Room id.
    pub room_id: String,
    /// The current name or alias.
    pub name: Option<String>,
    /// The account's membership.
    pub membership: Membership,
    /// How much of its history is archived, including its gaps.
    pub history_state: HistoryState,
    /// Why the history is stalled or truncated.
    pub history_reason: Option<String>,
    /// Whether it is paused by command.
    pub paused: bool,
    /// Archived events.
    pub event_count: i64,
    /// Pages that the history walk stored.
    pub pages: i64,
    /// Events a second while the history walk was running.
    pub rate: Option<f64>,
    /// Estimated seconds until the walk reaches the room's start, from the covered share of the room's time.
    pub eta_s: Option<f64>,
    /// The `origin_server_ts` of the last event that the walk passed.
    pub oldest_reached_ts: Option<i64>,
    /// The `origin_server_ts` of the first event in the room's order.
    pub oldest_ts: Option<i64>,
    /// The `origin_server_ts` of the create event.
    pub created_ts: Option<i64>,
    /// Gaps.
    pub gaps: GapCounts,
    /// The last error.
    pub last_error: Option<String>,
}

/// A room whose state must be requested.
#[derive(Clone, Debug)]
pub struct StaleRoom {
    /// Room id.
    pub(crate) room_id: String,
    /// Whether it is archived, or will be if there is something to archive.
    pub(crate) watched: bool,
    /// Whether its whole state was stored once.
    pub(crate) bootstrapped: bool,
}

impl StaleRoom {
    /// Whether the archive has a state of the room, which may be wrong.
    pub(crate) fn is_archived(&self) -> bool {
        self.watched && self.bootstrapped
    }
}

impl Archive {
    /// Whether there is an archive in the database, which was migrated at least once.
    ///
    /// # Errors
    /// [`Error::PreReleaseSchema`], besides those of the database.
    pub(crate) async fn exists(&self) -> Result<bool, Error> {
        inspect::must_not_be_pre_release(&mut *self.pool.acquire().await?).await?;
        let exists = sqlx::query_scalar!(
            r#"select exists(select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                             where n.nspname = 'archive' and c.relname = 'accounts') as "exists!""#
        );
        Ok(exists.fetch_one(&self.pool).await?)
    }

    /// The status of the archive.
    pub async fn status(&self) -> Result<Status, Error> {
        let whole = sqlx::query!(
            r#"select (select user_id from archive.accounts limit 1) as user_id,
                      (select homeserver from archive.accounts limit 1) as homeserver,
                      (select to_char(synced_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                       from archive.accounts limit 1) as synced_at,
                      (select extract(epoch from now() - synced_at)::float8
                       from archive.accounts limit 1) as synced_ago_s,
                      (select homeserver_error from archive.accounts limit 1) as homeserver_error,
                      (select extract(epoch from now() - homeserver_failing_since)::float8
                       from archive.accounts limit 1) as homeserver_failing_s,
                      pg_database_size(current_database()) as "database_bytes!",
                      (select count(*) from archive.quarantine) as "quarantined!",
                      (select count(*) from archive.originals) as "originals!",
                      (select count(*) from archive.only_here) as "only_here!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let at_work = inspect::writer(&mut *self.pool.acquire().await?).await?.is_some();
        Ok(Status {
            user_id: whole.user_id,
            homeserver: whole.homeserver,
            synced_at: whole.synced_at,
            synced_ago_s: whole.synced_ago_s,
            homeserver_error: whole.homeserver_error,
            homeserver_failing_s: whole.homeserver_failing_s,
            at_work,
            waits: self.waits().await?,
            database_bytes: whole.database_bytes,
            quarantined: whole.quarantined,
            originals: whole.originals,
            only_here: whole.only_here,
            search: self.search_lag().await?,
            encryption: self.encryption_status().await?,
            rooms: self.room_status().await?,
        })
    }

    /// Stale rooms: their state must be compared with the server's, or shows whether a room that the account has left
    /// is wanted. At most `limit` rooms, without those in `except`.
    pub(crate) async fn stale_rooms(&self, except: &[String], limit: usize) -> Result<Vec<StaleRoom>, Error> {
        let rooms = sqlx::query_as!(
            StaleRoom,
            "select room_id, watched, bootstrapped from archive.rooms
             where state_suspect and (watched or membership in ('leave', 'ban')) and room_id <> all ($1)
             order by room_id limit $2",
            except,
            i64::try_from(limit).unwrap_or(i64::MAX)
        );
        Ok(rooms.fetch_all(&self.pool).await?)
    }

    /// Those of these rooms that are no longer stale.
    pub(crate) async fn no_longer_stale(&self, room_ids: &[String]) -> Result<Vec<String>, Error> {
        let rooms = sqlx::query_scalar!(
            r#"select asked.room_id as "room_id!" from unnest($1::text[]) as asked (room_id)
               except
               select r.room_id from archive.rooms r
               where r.room_id = any($1) and r.state_suspect and (r.watched or r.membership in ('leave', 'ban'))"#,
            room_ids
        );
        Ok(rooms.fetch_all(&self.pool).await?)
    }

    /// The number of archived rooms that the account is in.
    pub(crate) async fn followed_rooms(&self) -> Result<usize, Error> {
        let rooms = sqlx::query_scalar!(
            r#"select count(*) as "count!" from archive.rooms where watched and membership = 'join'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(rooms).unwrap_or_default())
    }

    /// The archived rooms, including paused ones. Takes a few index look-ups for each room, whatever the number of
    /// events.
    pub async fn room_status(&self) -> Result<Vec<RoomStatus>, Error> {
        let rows = sqlx::query!(
            r#"select v.room_id as "room_id!", coalesce(v.name, v.canonical_alias) as name, v.membership as "membership!: Membership",
                      v.history_state as "history_state!: HistoryState", v.history_reason, v.event_count as "event_count!",
                      coalesce(w.pages, 0) as "pages!", w.busy_ms as "busy_ms?", w.events as "events?", w.oldest_ts,
                      w.last_error, coalesce(x.paused, false) as "paused!",
                      v.newest_ts, v.oldest_ts as room_oldest_ts,
                      (select e.origin_server_ts from archive.current_state c
                       join archive.events e on e.room_id = c.room_id and e.event_id = c.event_id
                       where c.room_id = r.room_id and c.type = 'm.room.create' and c.state_key = '') as created_ts,
                      (select count(*) from archive.gaps g where g.room_id = r.room_id and g.state = 'open') as "open!",
                      (select count(*) from archive.gaps g where g.room_id = r.room_id and g.state = 'skipped')
                          as "skipped!"
               from public.rooms v
               join archive.rooms r on r.room_id = v.room_id
               left join archive.room_choices x on x.room_id = r.room_id
               left join lateral (
                   select y.pages, y.busy_ms, y.events, y.oldest_ts, y.last_error
                   from archive.walks y
                   where y.room_id = r.room_id
                   order by (y.state <> 'done' and y.kind <> 'rewalk') desc, (y.kind = 'history') desc, y.walk_id desc
                   limit 1
               ) w on true
               where r.watched or x.paused
               order by lower(coalesce(v.name, v.canonical_alias)), v.room_id"#
        )
        .fetch_all(&self.pool)
        .await?;
        #[expect(clippy::cast_precision_loss, reason = "shown, not computed with")]
        let rooms = rows.into_iter().map(|row| {
            let busy_s = row.busy_ms.unwrap_or(0) as f64 / 1000.0;
            let rate = (busy_s > 0.0).then(|| row.events.unwrap_or(0) as f64 / busy_s);
            let walking = row.history_state == HistoryState::Walking && !row.paused;
            RoomStatus {
                eta_s: walking.then(|| eta(busy_s, row.newest_ts, row.oldest_ts, row.created_ts)).flatten(),
                rate,
                room_id: row.room_id,
                name: row.name,
                membership: row.membership,
                history_state: row.history_state,
                history_reason: row.history_reason,
                paused: row.paused,
                event_count: row.event_count,
                pages: row.pages,
                oldest_reached_ts: row.oldest_ts,
                oldest_ts: row.room_oldest_ts,
                created_ts: row.created_ts,
                gaps: GapCounts { open: row.open, skipped: row.skipped },
                last_error: row.last_error,
            }
        });
        Ok(rooms.collect())
    }
}

/// The estimated seconds left, if the rest of the room's time takes as long as the covered part.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn eta(busy_s: f64, newest: Option<i64>, oldest: Option<i64>, created: Option<i64>) -> Option<f64> {
    let (newest, oldest, created) = (newest?, oldest?, created?);
    let covered = newest.checked_sub(oldest).filter(|covered| *covered > 0)? as f64;
    let left = oldest.checked_sub(created).filter(|left| *left >= 0)? as f64;
    Some(busy_s * left / covered)
}
