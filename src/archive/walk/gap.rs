//! Gaps: known holes in a room's timeline. The transaction that moves `since` past a gap opens it, and the one that
//! stores the last page of its last walk closes it: *archive + gaps = room*.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::NewWalk;
use crate::archive::{Error, Walk, WalkKind, WalkState, column::text_column, walk};

/// A gap to open.
#[derive(Debug)]
pub(in crate::archive) struct NewGap<'a> {
    pub(in crate::archive) room_id: &'a str,
    pub(in crate::archive) reason: &'a str,
    /// The token above, at which the walks begin.
    pub(in crate::archive) upper_token: Option<&'a str>,
    /// The token below.
    pub(in crate::archive) lower_token: Option<&'a str>,
    pub(in crate::archive) upper_event_id: Option<&'a str>,
    pub(in crate::archive) upper_position: Option<i64>,
    /// The position of `upper_token`, if it is above the gap.
    pub(in crate::archive) from_position: Option<i64>,
    /// The newest archived event below.
    pub(in crate::archive) lower: Option<(String, i64)>,
}

/// The state of a gap; stored in `archive.gaps.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapState {
    /// Walks fill it. Set by the transaction that moves `since` past the gap.
    Open,
    /// Left out by the operator's choice: no walk is opened for it. Set where a `prev_batch` of the operator or
    /// `backscroll backfill` begins below newer events.
    Skipped,
    /// Filled. Set by the last walk through the gap; for a skipped one, by any walk that passes it.
    Closed,
}

text_column!(GapState { Open = "open", Skipped = "skipped", Closed = "closed" });

/// Opens a gap and the first walk through it.
///
/// The walk ends at the old token if there is one (P161). Otherwise it goes from above all known events down to the
/// room's start. If older gaps of the room have not had their first pass yet, it ends at the token below the lowest
/// of them: events that arrived in the newer gap may belong in an older one, and would be placed without their
/// neighbours there.
pub(in crate::archive) async fn open(connection: &mut PgConnection, gap: &NewGap<'_>) -> Result<(), Error> {
    let gap_id = insert(connection, gap, GapState::Open).await?;
    tracing::info!(room.id = gap.room_id, gap.id = gap_id, reason = gap.reason, "a gap was opened");
    Ok(())
}

/// Records a skipped gap.
pub(in crate::archive) async fn skip(connection: &mut PgConnection, gap: &NewGap<'_>) -> Result<(), Error> {
    insert(connection, gap, GapState::Skipped).await?;
    Ok(())
}

/// Inserts the gap's row and, if it is open, its first walk. Returns the gap's id.
async fn insert(connection: &mut PgConnection, gap: &NewGap<'_>, state: GapState) -> Result<i64, Error> {
    let (kind, from_position) = match gap.lower_token {
        Some(_) => (WalkKind::GapSince, gap.from_position.or(gap.upper_position)),
        None => (WalkKind::GapWhole, None),
    };
    let (lower_event_id, lower_position) = gap.lower.clone().unzip();
    let gap_id = sqlx::query_scalar!(
        r#"with lowest as (
               select g.lower_token from archive.walks w join archive.gaps g using (room_id, gap_id)
               where w.room_id = $1 and w.kind = 'gap_since' and w.state <> 'done'
               order by g.gap_id limit 1
           ), gap as (
               insert into archive.gaps (room_id, reason, upper_token, lower_token, upper_event_id, lower_event_id,
                                         upper_position, lower_position, state)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
               returning gap_id, state
           ), walk as (
               insert into archive.walks (room_id, gap_id, kind, from_token, to_token, cursor, upper_position)
               select $1, gap.gap_id, $10, $3, case when $4::text is not null then coalesce((select lower_token from lowest), $4) end,
                      $3, $11
               from gap where gap.state = 'open'
           )
           select gap_id as "gap_id!" from gap"#,
        gap.room_id,
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

/// The reason of a gap in a room that is archived again.
pub(in crate::archive) const NOT_WATCHED: &str = "the room was not watched";

/// The end of a room's timeline.
#[derive(Clone, Debug, Default)]
pub(in crate::archive) struct Top {
    /// The newest event, and its position.
    pub(in crate::archive) newest: Option<(String, i64)>,
    /// The upper edge of its highest gap that is not filled, including skipped gaps.
    pub(in crate::archive) upper_edge: Option<i64>,
    /// Whether there will be a walk through its whole history, from above all events.
    pub(in crate::archive) awaits_walk: bool,
}

impl Top {
    /// The position above which live events must be placed.
    pub(in crate::archive) fn position(&self) -> Option<i64> {
        self.newest.as_ref().map(|(_, position)| *position).max(self.upper_edge)
    }
}

/// The current end of the room's timeline.
pub(in crate::archive) async fn top(connection: &mut PgConnection, room_id: &str) -> Result<Top, Error> {
    Ok(tops(connection, &[room_id]).await?.remove(room_id).unwrap_or_default())
}

/// The same for several rooms.
pub(in crate::archive) async fn tops(
    connection: &mut PgConnection,
    room_ids: &[&str],
) -> Result<HashMap<String, Top>, Error> {
    let rows = sqlx::query!(
        r#"select room_id as "room_id!", event_id, position, upper_edge, awaits_walk as "awaits_walk!"
           from archive.tops($1)"#,
        room_ids as &[&str]
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
        .map(|row| (row.room_id, top(row.event_id, row.position, row.upper_edge, row.awaits_walk)))
        .collect())
}

/// The upper edge of a skipped gap, if `walk` begins or ends at one of its tokens.
pub(in crate::archive) async fn edge_at(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<Option<i64>, Error> {
    let edge = sqlx::query_scalar!(
        "select upper_position from archive.gaps
         where room_id = $1 and state = 'skipped' and (upper_token = $2 or lower_token = $3)",
        walk.room_id,
        walk.cursor,
        walk.to_token
    )
    .fetch_optional(connection)
    .await?;
    Ok(edge.flatten())
}

/// Sets the upper token of the skipped gap at the top of a room. It is walked from `token`.
pub(in crate::archive) async fn begin_at(
    connection: &mut PgConnection,
    room_id: &str,
    token: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.gaps set upper_token = $2
         where room_id = $1 and state = 'skipped' and upper_token is null",
        room_id,
        token
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Closes skipped gaps, after a finished walk has passed them. It may be a walk of the operator, or
/// one that begins above all of them: at the newest event, a history walk, a walk through a gap without a lower
/// token, or a re-walk. `all`: all such gaps below its beginning; otherwise those above the walk's lowest position.
pub(in crate::archive) async fn close_skipped(
    connection: &mut PgConnection,
    walk: &Walk,
    all: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.gaps g set state = $4, closed_at = now()
         from archive.walks w
         where w.room_id = $5 and w.walk_id = $1 and g.room_id = $5 and g.state = 'skipped'
           -- A history walk begins above all of them, unless it begins at the operator's token (the gap's lower one).
           and (w.kind in ('rewalk', 'gap_whole') or w.from_token is null or w.from_token = g.upper_token
                or (w.kind = 'history' and w.from_token is distinct from g.lower_token))
           and coalesce(w.to_token = g.lower_token, true)
           -- Below a hole in a room that had no other event before, the first walk has placed what is older below 0.
           and ($2 or coalesce(g.lower_position, 0) >= $3)",
        walk.walk_id,
        all,
        walk.upper_position,
        GapState::Closed as _,
        walk.room_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The position at which a gap's walk of this kind has passed the gap. `None`: it continues until the server returns no
/// more events.
///
/// With `to`, the end may be far below the gap, because late events may belong among events that other walks have
/// placed. Without a token below the gap, it is unknown how far down late events have arrived.
pub(in crate::archive) async fn lower_position(
    connection: &mut PgConnection,
    walk: &Walk,
) -> Result<Option<i64>, Error> {
    if !matches!(walk.kind, WalkKind::GapKnown | WalkKind::GapRecheck) {
        return Ok(None);
    }
    let position = sqlx::query_scalar!(
        "select lower_position from archive.gaps where room_id = $1 and gap_id = $2",
        walk.room_id,
        walk.gap_id
    );
    Ok(position.fetch_one(connection).await?)
}

/// Whether a walk that has come down to `upper` has passed the gap: it has reached the events that were archived
/// below the gap when it was opened, if there were any.
pub(in crate::archive) async fn is_passed(
    connection: &mut PgConnection,
    walk: &Walk,
    upper: i64,
) -> Result<bool, Error> {
    let passed = sqlx::query_scalar!(
        r#"select coalesce(lower_position >= $3, true) as "passed!"
           from archive.gaps where room_id = $1 and gap_id = $2"#,
        walk.room_id,
        walk.gap_id,
        upper
    )
    .fetch_one(connection)
    .await?;
    Ok(passed)
}

/// Whether another walk must go before `walk`. A later pass waits for the first pass through any gap. A first pass
/// without a lower token waits for the first pass through a newer gap. Without `to`, a page of an older gap's walk
/// may contain events that belong in a newer gap, if the server has learnt them since. The newer gap must be walked
/// by then.
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
               where room_id = $1 and state = $2 and kind in ('gap_since', 'gap_whole') and gap_id > coalesce($3::bigint, 0)
           ) as "yields!""#,
        walk.room_id,
        WalkState::Open as _,
        newer_than
    )
    .fetch_one(connection)
    .await?;
    Ok(yields_to_newer_gap)
}

/// Opens the next pass after a gap's finished walk, or closes the gap after the last one.
pub(in crate::archive) async fn after_pass(
    connection: &mut PgConnection,
    walk: &Walk,
    recheck_after_s: f64,
) -> Result<(), Error> {
    let next = match walk.kind {
        WalkKind::GapSince => Some((WalkKind::GapKnown, 0.0)),
        // The server may have fetched events from other servers meanwhile (P16).
        WalkKind::GapWhole | WalkKind::GapKnown => Some((WalkKind::GapRecheck, recheck_after_s)),
        WalkKind::GapRecheck | WalkKind::History | WalkKind::Operator | WalkKind::Rewalk => None,
    };
    let Some((kind, delay_s)) = next else {
        sqlx::query!(
            "update archive.gaps set state = $3, closed_at = now() where room_id = $1 and gap_id = $2",
            walk.room_id,
            walk.gap_id,
            GapState::Closed as _
        )
        .execute(connection)
        .await?;
        tracing::info!(room.id = walk.room_id, gap.id = walk.gap_id, "a gap was closed");
        return Ok(());
    };
    let upper_token = sqlx::query_scalar!(
        "select upper_token from archive.gaps where room_id = $1 and gap_id = $2",
        walk.room_id,
        walk.gap_id
    );
    let upper_token = upper_token.fetch_one(&mut *connection).await?;
    let walk = NewWalk {
        room_id: &walk.room_id,
        gap_id: walk.gap_id,
        kind,
        from_token: upper_token.as_deref(),
        to_token: None,
        upper_position: None,
        delay_s,
    };
    walk::open(connection, &walk).await
}
