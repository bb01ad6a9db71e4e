//! Backward walks. [`crate::backfill`] reads them from the database, and resumes at their checkpoints.

pub(super) mod advance;
pub(super) mod gap;
pub(super) mod history;
mod interrupt;
pub(super) mod kind;
pub(super) mod operator;

use std::time::Duration;

use sqlx::PgConnection;

use super::{Archive, Error, WalkKind, WalkState, Writer, writer::lock_rooms};
use crate::matrix::Membership;

/// A walk begins anew if it has had at most this many pages and all were empty. With more, it might never get past
/// them.
const BEGIN_ANEW: i64 = 32;

/// A row of `archive.walks`.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Internal key.
    pub(crate) walk_id: i64,
    /// The room.
    pub(crate) room_id: String,
    /// The account's membership when the walk was read.
    pub(crate) membership: Membership,
    /// The gap that it fills.
    pub(crate) gap_id: Option<i64>,
    /// The position of the gap's upper edge.
    pub(crate) gap_upper_position: Option<i64>,
    /// What it is for.
    pub(crate) kind: WalkKind,
    /// The token at which it ends.
    pub(crate) to_token: Option<String>,
    /// The checkpoint: the `from` of the next request.
    pub(crate) cursor: Option<String>,
    /// The position of the last event passed. `None`: the walk has not met an event with a position yet.
    pub(crate) upper_position: Option<i64>,
    /// Pages stored.
    pub(crate) pages: i64,
    /// The number of new events.
    pub(crate) events: i64,
    /// The `origin_server_ts` of the last event passed.
    pub(crate) oldest_ts: Option<i64>,
    /// Pages in a row without new events.
    pub(crate) known_pages: i32,
    /// Whether the walk has passed the lower edge of the gap. For a walk through the whole history: whether it has
    /// met an event that was already placed.
    pub(crate) lower_reached: bool,
    /// Responses without `end` at this cursor.
    pub(crate) ends: i32,
    /// Responses with `end` equal to `from` at this cursor.
    pub(crate) repeats: i32,
    /// An earlier cursor, to detect cycles.
    pub(crate) cycle_marker: Option<String>,
    /// Whether it has begun anew at the newest event since it last stalled.
    pub(crate) restarted: bool,
    /// The state.
    pub(crate) state: WalkState,
    /// For a re-walk: how many re-walks in a row before it have found nothing.
    pub(crate) round: i32,
    /// How often in a row it has stalled without finding new events.
    pub(crate) stalls: i32,
    /// The last error.
    pub(crate) last_error: Option<String>,
    /// Seconds until the next request is due.
    pub(crate) due_in_s: f64,
    /// The room's name or alias.
    pub(crate) name: Option<String>,
    /// The `origin_server_ts` of the room's newest event.
    pub(crate) newest_ts: Option<i64>,
    /// The `origin_server_ts` of the room's create event.
    pub(crate) created_ts: Option<i64>,
}

impl Walk {
    /// Whether the next request begins at the account's current `since`, even if `since` was different when the walk
    /// was opened. This is so until the walk has passed an event. From `since` down, all events that `/sync` has
    /// reported are known, so new events are met between their neighbours. From an older token they would appear at
    /// the top, without newer neighbours. From a newer token, the walk would find events that `/sync` is about to
    /// report. So such a walk begins only while `/sync` is current.
    pub(crate) fn begins_at_since(&self) -> bool {
        let does = match self.kind {
            WalkKind::GapWhole | WalkKind::GapKnown | WalkKind::GapRecheck | WalkKind::Rewalk => true,
            // Unless it goes through the whole history from the newest event.
            WalkKind::History => self.cursor.is_some(),
            WalkKind::GapSince | WalkKind::Operator => false,
        };
        // A walk from the operator's `prev_batch` has a position from the start, so it keeps its token.
        does && self.upper_position.is_none() && self.pages < BEGIN_ANEW && !self.restarted
    }

    /// Whether all events are probably new to the archive. Only the first page of a room's or a gap's first walk
    /// meets events that arrived live.
    pub(crate) fn is_fresh(&self) -> bool {
        let is_first = matches!(self.kind, WalkKind::History | WalkKind::GapSince | WalkKind::GapWhole);
        is_first && !self.restarted && self.pages > 0 && self.known_pages == 0
    }

    /// The `to` of the next request. It hides events that the server has fetched from other servers (P48), even if a
    /// timeline has reported them. Then events that belong below them would seem to belong above. So there is no `to`
    /// while the walk comes down through the timeline above its gap.
    pub(crate) fn to(&self) -> Option<&str> {
        let is_above = self.gap_upper_position.is_some_and(|edge| self.upper_position > Some(edge));
        self.to_token.as_deref().filter(|_| !is_above)
    }
}

/// Selects open walks.
#[derive(Debug)]
pub struct WalkChoice<'a> {
    /// Whether to include later passes through gaps, and walks that have yet to [begin](Walk::begins_at_since) at
    /// `since`.
    pub(crate) sync_is_current: bool,
    /// Rooms to leave out.
    pub(crate) except: &'a [String],
    /// Leaves out later passes that are not due within this time, and re-walks that are not due.
    pub(crate) only_within: Option<Duration>,
}

/// A walk to open.
#[derive(Debug)]
pub(super) struct NewWalk<'a> {
    pub(super) room_id: &'a str,
    pub(super) gap_id: Option<i64>,
    pub(super) kind: WalkKind,
    pub(super) from_token: Option<&'a str>,
    pub(super) to_token: Option<&'a str>,
    pub(super) upper_position: Option<i64>,
    pub(super) delay_s: f64,
}

pub(super) async fn open(connection: &mut PgConnection, walk: &NewWalk<'_>) -> Result<(), Error> {
    sqlx::query!(
        "insert into archive.walks (room_id, gap_id, kind, from_token, to_token, cursor, upper_position, not_before)
         values ($1, $2, $3, $4, $5, $4, $6, now() + make_interval(secs => $7))",
        walk.room_id,
        walk.gap_id,
        walk.kind as _,
        walk.from_token,
        walk.to_token,
        walk.upper_position,
        walk.delay_s
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Opens a re-walk, which finds events that the server has learnt since `walk`, unless one is open already. The
/// intervals grow, and start again with the first one after a walk that found something. Without intervals there is
/// no re-walk.
pub(super) async fn schedule_rewalk(
    connection: &mut PgConnection,
    walk: &Walk,
    intervals: &[Duration],
) -> Result<(), Error> {
    let round =
        if walk.kind == WalkKind::Rewalk && walk.events == 0 { walk.round.saturating_add(1) } else { 0 };
    let interval = intervals.get(usize::try_from(round).unwrap_or_default()).or(intervals.last());
    let Some(interval) = interval else { return Ok(()) };
    // Not in one statement: Citus would number the walk on the room's server, which numbers from elsewhere.
    let is_scheduled = sqlx::query_scalar!(
        r#"select exists (
               select from archive.walks
               where room_id = $1 and kind = 'rewalk' and state <> 'done' and walk_id <> $2
           ) as "is_scheduled!""#,
        walk.room_id,
        walk.walk_id
    )
    .fetch_one(&mut *connection)
    .await?;
    if !is_scheduled {
        sqlx::query!(
            "insert into archive.walks (room_id, kind, round, not_before)
             values ($1, 'rewalk', $2, now() + make_interval(secs => $3))",
            walk.room_id,
            round,
            interval.as_secs_f64()
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Opens a re-walk that is due now, because something was reported that only the room's events can show.
pub(super) async fn rewalk_now(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    let hurried = sqlx::query!(
        "update archive.walks set not_before = now()
         where room_id = $1 and kind = 'rewalk' and state = 'open' and pages = 0 and cursor is null",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    if hurried.rows_affected() == 0 {
        sqlx::query!("insert into archive.walks (room_id, kind) values ($1, 'rewalk')", room_id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Reopens stalled walks: in `room_id`, after `/sync` has reported something that may help; `None`: in all rooms. Each
/// may begin anew once more if the server refuses its token. Returns their number.
pub(super) async fn reopen_stalled(
    connection: &mut PgConnection,
    room_id: Option<&str>,
) -> Result<usize, Error> {
    let reopened = sqlx::query!(
        "with reopened as (
             update archive.walks
             set state = 'open', restarted = false, repeats = 0, ends = 0, landmark = null, not_before = now(),
                 stalls = case when $1::text is null then stalls else 0 end
             where state = 'stalled' and room_id = coalesce($1, room_id) returning room_id, kind
         ), rooms as (
             update archive.rooms set history_state = 'walking', history_reason = null
             where room_id in (select room_id from reopened where kind = 'history') and history_state = 'stalled'
         )
         select room_id from reopened",
        room_id
    )
    .fetch_all(connection)
    .await?;
    Ok(reopened.len())
}

/// Ends the walks through a room's history, because another walk will pass all of their events.
pub(super) async fn finish_all(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "update archive.walks set state = 'done', updated_at = now()
         where room_id = $1 and state <> 'done' and kind in ('history', 'operator')",
        room_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The positions, above `floor`, to which unfinished walks from the newest event have come down.
pub(super) async fn passed_from_newest(
    connection: &mut PgConnection,
    room_id: &str,
    floor: Option<i64>,
) -> Result<Vec<i64>, Error> {
    let passed = sqlx::query_scalar!(
        r#"select upper_position as "upper_position!" from archive.walks
           where room_id = $1 and state <> 'done' and from_token is null
             and upper_position is not null and ($2::bigint is null or upper_position > $2)"#,
        room_id,
        floor
    )
    .fetch_all(connection)
    .await?;
    Ok(passed)
}

impl Archive {
    /// The open walks that are due first, at most `limit`, and one for each watched room, because two would make the
    /// server do its work twice (P17). In a room, the order is:
    ///
    /// 1. A walk from the newest event that has not met a placed event yet. Only this walk finds the events between
    ///    those that it has placed and those that `/sync` had reported.
    /// 2. The first pass through the newest gap.
    /// 3. The walk that is due first.
    pub(crate) async fn open_walks(&self, choice: &WalkChoice<'_>, limit: usize) -> Result<Vec<Walk>, Error> {
        let mut walks = sqlx::query_as!(
            Walk,
            r#"select f.walk_id, f.room_id, f.membership as "membership: Membership", f.gap_id, f.kind as "kind: WalkKind", f.to_token, f.cursor, f.upper_position,
                      null::bigint as gap_upper_position,
                      f.pages, f.events, f.oldest_ts, f.known_pages, f.lower_reached, f.ends, f.repeats, f.landmark as cycle_marker, f.restarted,
                      f.state as "state: WalkState", f.round, f.stalls, f.last_error, greatest(extract(epoch from f.not_before - now()), 0)::float8 as "due_in_s!",
                      null::text as name, null::bigint as newest_ts, null::bigint as created_ts
               from (
                   select * from (
                       select distinct on (w.room_id) w.*, r.membership
                       from archive.walks w
                       join archive.rooms r using (room_id)
                       where w.state = $1 and r.watched and w.room_id <> all ($3::text[])
                         and ($2 or case
                             when w.kind in ('gap_known', 'gap_recheck') then false
                             when w.kind = 'rewalk' then w.upper_position is not null
                             when w.kind = 'history' then w.upper_position is not null or w.cursor is null
                             else true
                         end)
                       order by w.room_id,
                                w.kind = 'history' and w.from_token is null and w.upper_position is not null
                                    and not w.lower_reached desc,
                                case when w.kind in ('gap_since', 'gap_whole') then w.gap_id end desc nulls last,
                                w.not_before, w.walk_id
                   ) first
                   -- Here, because no older gap of the room is to be walked instead.
                   where ($2 or first.kind <> 'gap_whole' or first.upper_position is not null)
                     and ($4::float8 is null or first.not_before <= now() or case first.kind
                         when 'gap_recheck' then first.not_before <= now() + make_interval(secs => $4)
                         when 'rewalk' then first.pages > 0
                         else true
                     end)
                   order by first.not_before, first.walk_id
                   limit $5
               ) f
               order by f.not_before, f.walk_id"#,
            // The query has a parameter, so that it is planned each time. Otherwise PostgreSQL would keep its first
            // plan.
            WalkState::Open as _,
            choice.sync_is_current,
            choice.except,
            choice.only_within.map(|within| within.as_secs_f64()),
            i64::try_from(limit).unwrap_or(i64::MAX)
        )
        .fetch_all(&self.pool)
        .await?;
        self.describe(&mut walks).await?;
        Ok(walks)
    }

    /// Fills in what the walks' rooms and gaps say.
    async fn describe(&self, walks: &mut [Walk]) -> Result<(), Error> {
        // Each value of a room is one index look-up. For a join with the views, the planner might read the whole
        // archive as long as it has no statistics.
        let rooms: Vec<&str> = walks.iter().map(|walk| walk.room_id.as_str()).collect();
        let gaps: Vec<Option<i64>> = walks.iter().map(|walk| walk.gap_id).collect();
        let rows = sqlx::query!(
            "select gap_upper_position, name, newest_ts, created_ts from archive.surroundings($1, $2)",
            &rooms as &[&str],
            &gaps as &[Option<i64>]
        )
        .fetch_all(&self.pool)
        .await?;
        for (walk, row) in walks.iter_mut().zip(rows) {
            walk.gap_upper_position = row.gap_upper_position;
            // Of a walk that is not due, only the time is of interest.
            if walk.due_in_s <= 0.0 {
                (walk.name, walk.newest_ts, walk.created_ts) = (row.name, row.newest_ts, row.created_ts);
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Reopens the stalled walks that are due. Until such a walk finds new events, its room still counts as stalled.
    /// Returns when the next one is due.
    pub(crate) async fn reopen_due(&self) -> Result<Option<Duration>, Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.walks w
             set state = 'open', restarted = false, repeats = 0, ends = 0, landmark = null
             from archive.rooms r
             where w.state = 'stalled' and w.not_before <= now() and r.room_id = w.room_id and r.watched"
        )
        .execute(&mut *transaction)
        .await?;
        let next_s = sqlx::query_scalar!(
            r#"select extract(epoch from min(w.not_before) - now())::float8 from archive.walks w
               join archive.rooms r using (room_id)
               where w.state = 'stalled' and r.watched"#
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(next_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// Reopens all stalled walks, when the daemon starts.
    pub(crate) async fn reopen_stalled(&self) -> Result<usize, Error> {
        let mut transaction = self.begin().await?;
        let room_ids =
            sqlx::query_scalar!("select distinct room_id from archive.walks where state = 'stalled'")
                .fetch_all(&mut *transaction)
                .await?;
        let room_ids: Vec<&str> = room_ids.iter().map(String::as_str).collect();
        lock_rooms(&mut transaction, &room_ids).await?;
        let reopened = reopen_stalled(&mut transaction, None).await?;
        transaction.commit().await?;
        Ok(reopened)
    }
}

/// Moves the checkpoint from `before` to `after` in the caller's transaction, and counts the new events. The position
/// is stored only after the walk has passed an event or can no longer begin anew. Until then it is just above all
/// events, which is only right at this moment.
///
/// # Errors
/// [`Error::CheckpointMoved`] if the stored checkpoint is not `before`. The transaction must then be rolled back.
pub(super) async fn save(
    connection: &mut PgConnection,
    before: &Walk,
    after: &Walk,
    busy: Duration,
    pause_s: f64,
) -> Result<(), Error> {
    let busy_ms = i64::try_from(busy.as_millis()).unwrap_or(i64::MAX);
    let has_passed = after.oldest_ts.is_some() && after.cursor != before.cursor;
    let place = after.upper_position.filter(|_| has_passed || after.pages >= BEGIN_ANEW);
    let moved = sqlx::query!(
        // The condition names a column: Citus would drop all of the statement where a condition is false by itself.
        "with counted as (
             update archive.rooms set event_count = event_count + $18
             where room_id = $19 and event_count <> event_count + $18
         )
         update archive.walks
         set cursor = $4, upper_position = coalesce($5, upper_position), pages = $6, events = $7,
             busy_ms = busy_ms + $8, oldest_ts = $9, known_pages = $10, lower_reached = $11, ends = $12, repeats = $13,
             landmark = $14, state = $15, last_error = $16, not_before = now() + make_interval(secs => $17),
             updated_at = now(), stalls = $20
         where room_id = $19 and walk_id = $1 and cursor is not distinct from $2 and pages = $3 and state = 'open'",
        before.walk_id,
        before.cursor,
        before.pages,
        after.cursor,
        place,
        after.pages,
        after.events,
        busy_ms,
        after.oldest_ts,
        after.known_pages,
        after.lower_reached,
        after.ends,
        after.repeats,
        after.cycle_marker,
        after.state as _,
        after.last_error,
        pause_s,
        after.events - before.events,
        before.room_id,
        after.stalls
    )
    .execute(connection)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(Error::CheckpointMoved) }
}
