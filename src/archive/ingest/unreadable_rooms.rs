//! Handles a `/sync` response whose list of rooms cannot be read: opens a gap in every room.

use sqlx::PgConnection;

use crate::archive::{
    Account, Error, room,
    timeline::position,
    walk::gap::{self, NewGap, Top},
    writer::lock_rooms,
};

/// How many rooms are handled together.
const TOGETHER: usize = 500;
const REASON: &str = "the rooms of a sync response could not be read";

/// Opens a gap from `account.since` to `next_batch` in every room that the account is in. Call this before the rest
/// of the response is stored and `since` moves. If a room already has such a gap, whose walk has not begun, and
/// nothing was stored in the room since, that gap is extended instead: a homeserver with such a bug may return it in
/// every response.
pub(in crate::archive) async fn open_gaps_everywhere(
    connection: &mut PgConnection,
    account: &Account,
    next_batch: &str,
) -> Result<(), Error> {
    let Some(since) = account.since.as_deref() else { return Ok(()) };
    let room_ids = sqlx::query_scalar!(
        "select room_id from archive.rooms
         where watched and bootstrapped and membership = 'join' order by room_id"
    )
    .fetch_all(&mut *connection)
    .await?;
    let room_ids: Vec<&str> = room_ids.iter().map(String::as_str).collect();
    lock_rooms(connection, &room_ids).await?;
    for room_ids in room_ids.chunks(TOGETHER) {
        let mut tops = gap::tops(connection, room_ids).await?;
        for room_id in room_ids {
            let top = tops.remove(*room_id).unwrap_or_default();
            if !lengthen(connection, room_id, &top, next_batch).await? {
                open(connection, room_id, top, since, next_batch).await?;
            }
        }
    }
    room::mark_states_stale(connection).await?;
    tracing::warn!(room_count = room_ids.len(), "{REASON}: their messages are fetched one room at a time");
    Ok(())
}

async fn lengthen(
    connection: &mut PgConnection,
    room_id: &str,
    top: &Top,
    next_batch: &str,
) -> Result<bool, Error> {
    let newest = top.newest.as_ref().map(|(event_id, _)| event_id.as_str());
    let lengthened = sqlx::query!(
        "with unbegun as (
             update archive.walks w set from_token = $2, cursor = $2
             from archive.gaps g
             where g.room_id = $1 and g.state = 'open' and g.reason = $3 and g.lower_event_id is not distinct from $4
               and w.room_id = $1 and w.gap_id = g.gap_id and w.kind = 'gap_since' and w.state = 'open' and w.pages = 0
             returning w.gap_id
         )
         update archive.gaps g set upper_token = $2 from unbegun where g.room_id = $1 and g.gap_id = unbegun.gap_id",
        room_id,
        next_batch,
        REASON,
        newest
    )
    .execute(connection)
    .await?;
    Ok(lengthened.rows_affected() > 0)
}

async fn open(
    connection: &mut PgConnection,
    room_id: &str,
    top: Top,
    since: &str,
    next_batch: &str,
) -> Result<(), Error> {
    let gap = NewGap {
        room_id,
        reason: REASON,
        upper_token: Some(next_batch),
        lower_token: Some(since),
        upper_event_id: None,
        upper_position: position::append(top.position(), true).next(),
        from_position: None,
        lower: top.newest,
    };
    gap::open(connection, &gap).await
}
