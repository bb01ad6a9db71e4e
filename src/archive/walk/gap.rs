//! Known holes. A gap is opened by the transaction that moves `since` past it, and closed by the one that stores the
//! last page of its last walk: *archive + gaps = room*.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::NewWalk;
use crate::archive::{Error, Walk, WalkKind, WalkState, column::text_column, walk};

/// A hole to be opened.
#[derive(Debug)]
pub(in crate::archive) struct NewGap<'a> {
    pub(in crate::archive) room_key: i32,
    pub(in crate::archive) reason: &'a str,
    /// Token above; the walks begin there.
    pub(in crate::archive) upper_token: Option<&'a str>,
    /// Token below.
    pub(in crate::archive) lower_token: Option<&'a str>,
    pub(in crate::archive) upper_event_id: Option<&'a str>,
    pub(in crate::archive) upper_position: Option<i64>,
    /// Where `upper_token` stands, if that is above the gap.
    pub(in crate::archive) from_position: Option<i64>,
    /// The last archived event below.
    pub(in crate::archive) lower: Option<(String, i64)>,
}

/// Where a gap stands; stored in `archive.gaps.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapState {
    /// Being filled by walks. Set by the transaction that moves `since` past the hole.
    Open,
    /// Left by the operator's choice: nothing walks it. Set where a `prev_batch` of theirs or `backscroll backfill` begins
    /// below what is newer.
    Skipped,
    /// Filled. Set by the last walk through the gap; of a skipped one, by any walk that passes it.
    Closed,
}

text_column!(GapState { Open = "open", Skipped = "skipped", Closed = "closed" });

/// Opens a gap and the first walk that is to fill it.
///
/// Down to the old token where there is one (P161); else down to the room's start, from above all that is known. A newer gap's
/// first pass goes down to the token below the room's lowest gap whose first pass has not come to its end: what arrived in the
/// newer one may belong into the older one, and would be shown without its neighbours there.
pub(in crate::archive) async fn open(connection: &mut PgConnection, gap: &NewGap<'_>) -> Result<(), Error> {
    let gap_id = insert(connection, gap, GapState::Open).await?;
    tracing::info!(room.key = gap.room_key, gap.id = gap_id, reason = gap.reason, "a gap was opened");
    Ok(())
}

/// Records a hole that the operator chose to leave.
pub(in crate::archive) async fn skip(connection: &mut PgConnection, gap: &NewGap<'_>) -> Result<(), Error> {
    insert(connection, gap, GapState::Skipped).await?;
    Ok(())
}

/// The gap's row, and if it is open its first walk. Returns the gap's key.
async fn insert(connection: &mut PgConnection, gap: &NewGap<'_>, state: GapState) -> Result<i64, Error> {
    let (kind, from_position) = match gap.lower_token {
        Some(_) => (WalkKind::GapSince, gap.from_position.or(gap.upper_position)),
        None => (WalkKind::GapWhole, None),
    };
    let (lower_event_id, lower_position) = gap.lower.clone().unzip();
    let gap_id = sqlx::query_scalar!(
        r#"with lowest as (
               select g.lower_token from archive.walks w join archive.gaps g using (gap_id)
               where w.room_key = $1 and w.kind = 'gap_since' and w.state <> 'done'
               order by g.gap_id limit 1
           ), gap as (
               insert into archive.gaps (room_key, reason, upper_token, lower_token, upper_event_id, lower_event_id,
                                         upper_position, lower_position, state)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
               returning gap_id, state
           ), walk as (
               insert into archive.walks (room_key, gap_id, kind, from_token, to_token, cursor, upper_position)
               select $1, gap.gap_id, $10, $3, case when $4::text is not null then coalesce((select lower_token from lowest), $4) end,
                      $3, $11
               from gap where gap.state = 'open'
           )
           select gap_id as "gap_id!" from gap"#,
        gap.room_key,
        gap.reason,
        gap.upper_token,
        gap.lower_token,
        gap.upper_event_id,
        lower_event_id,
        gap.upper_position,
        lower_position,
        state as _,
        kind as _,
        from_position
    )
    .fetch_one(connection)
    .await?;
    Ok(gap_id)
}

/// Why a room that is taken up again has a gap.
pub(in crate::archive) const NOT_WATCHED: &str = "the room was not watched";

/// Where a room's timeline ends.
#[derive(Clone, Debug, Default)]
pub(in crate::archive) struct Top {
    /// Its newest event, and that one's position.
    pub(in crate::archive) newest: Option<(String, i64)>,
    /// The upper edge of its highest gap that is not filled, also one that was left by the operator.
    pub(in crate::archive) upper_edge: Option<i64>,
    /// Whether a walk is to come through its whole past, from above all that is there then.
    pub(in crate::archive) awaits_walk: bool,
}

impl Top {
    /// Above what live events must stand.
    pub(in crate::archive) fn position(&self) -> Option<i64> {
        self.newest.as_ref().map(|(_, position)| *position).max(self.upper_edge)
    }
}

/// Where the room's timeline ends now.
pub(in crate::archive) async fn top(connection: &mut PgConnection, room_key: i32) -> Result<Top, Error> {
    Ok(tops(connection, &[room_key]).await?.remove(&room_key).unwrap_or_default())
}

/// The same for several rooms.
pub(in crate::archive) async fn tops(
    connection: &mut PgConnection,
    room_keys: &[i32],
) -> Result<HashMap<i32, Top>, Error> {
    let rows = sqlx::query!(
        r#"select room.room_key as "room_key!", newest.event_id as "event_id?", newest.position as "position?",
                  (select max(g.upper_position) from archive.gaps g
                   where g.room_key = room.room_key and g.state <> 'closed') as upper_edge,
                  exists (
                      select from archive.walks w
                      where w.room_key = room.room_key and w.kind = 'gap_whole' and w.state = 'open'
                        and w.pages = 0 and w.upper_position is null
                  ) as "awaits_walk!"
           from unnest($1::int[]) as room (room_key)
           left join lateral (
               select e.event_id, e.position from archive.events e
               where e.room_key = room.room_key and e.position is not null
               order by e.position desc
               limit 1
           ) as newest on true"#,
        room_keys
    )
    .fetch_all(connection)
    .await?;
    let top = |event_id: Option<String>, position, upper_edge, awaits_walk| Top {
        newest: event_id.zip(position),
        upper_edge,
        awaits_walk,
    };
    Ok(rows
        .into_iter()
        .map(|row| (row.room_key, top(row.event_id, row.position, row.upper_edge, row.awaits_walk)))
        .collect())
}

/// The upper edge of a hole that the operator left, if `walk` begins or ends at one of its tokens.
pub(in crate::archive) async fn edge_at(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<Option<i64>, Error> {
    let edge = sqlx::query_scalar!(
        "select upper_position from archive.gaps
         where room_key = $1 and state = 'skipped' and (upper_token = $2 or lower_token = $3)",
        walk.room_key,
        walk.cursor,
        walk.to_token
    )
    .fetch_optional(connection)
    .await?;
    Ok(edge.flatten())
}

/// Lets the hole that the operator left at the top of a room end at `token`, from which it is to be walked.
pub(in crate::archive) async fn begin_at(
    connection: &mut PgConnection,
    room_key: i32,
    token: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.gaps set upper_token = $2
         where room_key = $1 and state = 'skipped' and upper_token is null",
        room_key,
        token
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Closes the holes that the operator left and that a finished walk of theirs has passed, or one that begins above them all:
/// at the newest event, a history, one through a gap without a lower token, or a rewalk. `all`: whatever there is below it; else those that
/// it has come below.
pub(in crate::archive) async fn passed(
    connection: &mut PgConnection,
    walk: &Walk,
    all: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.gaps g set state = $4, closed_at = now()
         from archive.walks w
         where w.walk_id = $1 and g.room_key = w.room_key and g.state = 'skipped'
           -- A history that does not begin at the operator's token below begins above them all, maybe at a later token than then.
           and (w.kind in ('rewalk', 'gap_whole') or w.from_token is null or w.from_token = g.upper_token
                or (w.kind = 'history' and w.from_token is distinct from g.lower_token))
           and coalesce(w.to_token = g.lower_token, true)
           -- Below a hole in a room that had no other event before, the first walk has placed what is older below 0.
           and ($2 or coalesce(g.lower_position, 0) >= $3)",
        walk.walk_id,
        all,
        walk.upper_position,
        GapState::Closed as _
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The position below which the gap is no more, as far as a walk of this kind can tell; `None`: it goes on until the server
/// gives no more.
///
/// With `to`, that may be far below the gap, where late events stand among what other walks have placed. Without any token
/// below the gap, nothing shows how far down events arrived in the meantime.
pub(in crate::archive) async fn lower_position(
    connection: &mut PgConnection,
    gap_id: i64,
    kind: WalkKind,
) -> Result<Option<i64>, Error> {
    if !matches!(kind, WalkKind::GapKnown | WalkKind::GapRecheck) {
        return Ok(None);
    }
    let position = sqlx::query_scalar!("select lower_position from archive.gaps where gap_id = $1", gap_id)
        .fetch_one(connection)
        .await?;
    Ok(position)
}

/// Whether a walk that has come down to `upper` has passed the gap: has come to what was archived below it when it was opened,
/// if anything was.
pub(in crate::archive) async fn is_passed(
    connection: &mut PgConnection,
    gap_id: i64,
    upper: i64,
) -> Result<bool, Error> {
    let passed = sqlx::query_scalar!(
        r#"select coalesce(lower_position >= $2, true) as "passed!" from archive.gaps where gap_id = $1"#,
        gap_id,
        upper
    )
    .fetch_one(connection)
    .await?;
    Ok(passed)
}

/// Whether `walk` is to let another go first: a later pass the first one through whichever gap, the first one without a lower
/// token that through a newer gap. Without `to`, a page of an older gap's walk may lead to what belongs into a newer one, where
/// the server has learnt events above the older: it must be known by then.
pub(in crate::archive) async fn yields_to_newer_gap(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<bool, Error> {
    let newer_than = match walk.kind {
        WalkKind::GapWhole => walk.gap_id,
        kind if kind.gives_way() => None,
        _ => return Ok(false),
    };
    let yields_to_newer_gap = sqlx::query_scalar!(
        r#"select exists (
               select from archive.walks
               where room_key = $1 and state = $2 and kind in ('gap_since', 'gap_whole') and gap_id > coalesce($3::bigint, 0)
           ) as "is_overtaken!""#,
        walk.room_key,
        WalkState::Open as _,
        newer_than
    )
    .fetch_one(connection)
    .await?;
    Ok(yields_to_newer_gap)
}

/// What follows a gap's finished walk: the next pass, or the gap is closed.
pub(in crate::archive) async fn walked(
    connection: &mut PgConnection,
    gap_id: i64,
    kind: WalkKind,
    recheck_after_s: f64,
) -> Result<(), Error> {
    let next = match kind {
        WalkKind::GapSince => Some((WalkKind::GapKnown, 0.0)),
        // The server may have fetched from others since (P16).
        WalkKind::GapWhole | WalkKind::GapKnown => Some((WalkKind::GapRecheck, recheck_after_s)),
        WalkKind::GapRecheck | WalkKind::History | WalkKind::Operator | WalkKind::Rewalk => None,
    };
    let Some((kind, delay_s)) = next else {
        sqlx::query!(
            "update archive.gaps set state = $2, closed_at = now() where gap_id = $1",
            gap_id,
            GapState::Closed as _
        )
        .execute(connection)
        .await?;
        tracing::info!(gap.id = gap_id, "a gap was closed");
        return Ok(());
    };
    let gap = sqlx::query!("select room_key, upper_token from archive.gaps where gap_id = $1", gap_id)
        .fetch_one(&mut *connection)
        .await?;
    let walk = NewWalk {
        room_key: gap.room_key,
        gap_id: Some(gap_id),
        kind,
        from_token: gap.upper_token.as_deref(),
        to_token: None,
        upper_position: None,
        delay_s,
    };
    walk::open(connection, &walk).await
}
