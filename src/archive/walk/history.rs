//! The history walk: through all events of a room.

use sqlx::PgConnection;

use super::{
    NewWalk,
    gap::{self, NewGap},
};
use crate::{
    archive::{
        Error, HistoryState, WalkKind,
        room::{Room, history},
        timeline::position,
        walk,
    },
    config::Rooms,
};

/// Opens the history walk of a room that is new to the archive. `now`: the token of its state.
pub(in crate::archive) async fn begin(
    connection: &mut PgConnection,
    rooms: &Rooms,
    room: &Room,
    now: &str,
) -> Result<(), Error> {
    let operator = rooms.prev_batch(&room.room_id);
    let from_token = operator.unwrap_or(now);
    if let Some(prev_batch) = operator {
        let hole = NewGap {
            room_id: &room.room_id,
            reason: "the operator's prev_batch: what is newer, up to the first sync, was not asked for",
            upper_token: Some(now),
            lower_token: Some(prev_batch),
            upper_event_id: None,
            // Leaves space for the missing events below future live ones.
            upper_position: position::append(None, true).next(),
            from_position: None,
            lower: None,
        };
        gap::skip(connection, &hole).await?;
    }
    open(connection, room, from_token, operator.map(|_| 0)).await
}

/// Walks a truncated history again, because older events may be visible now. Also completes a
/// history of which only a part was walked at the operator's request.
pub(in crate::archive) async fn reopen(
    connection: &mut PgConnection,
    room: &Room,
    now: &str,
) -> Result<(), Error> {
    if !room.history_state.is_partial() {
        return Ok(());
    }
    open(connection, room, now, None).await
}

/// Opens the walk at a token. `upper_position`: the position of the token, if it is known.
pub(in crate::archive) async fn open(
    connection: &mut PgConnection,
    room: &Room,
    from_token: &str,
    upper_position: Option<i64>,
) -> Result<(), Error> {
    let walk = NewWalk {
        room_id: &room.room_id,
        gap_id: None,
        kind: WalkKind::History,
        from_token: Some(from_token),
        to_token: None,
        upper_position,
        delay_s: 0.0,
    };
    walk::open(connection, &walk).await?;
    history::set(connection, &room.room_id, HistoryState::Walking, None).await
}

/// Opens the history walks of these rooms. `now`: the token of their state, at which they begin.
pub(in crate::archive) async fn open_all(
    connection: &mut PgConnection,
    room_ids: &[&str],
    now: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "with walked as (
             update archive.rooms set history_state = 'walking', history_reason = null
             where room_id = any($1) and watched returning room_id
         )
         insert into archive.walks (room_id, kind, from_token, cursor)
         select room_id, $3, $2, $2 from walked order by room_id",
        room_ids as &[&str],
        now,
        WalkKind::History as _
    )
    .execute(connection)
    .await?;
    Ok(())
}
