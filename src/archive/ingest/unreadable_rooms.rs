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
    let room_keys = sqlx::query_scalar!(
        "select room_key from archive.rooms
         where watched and bootstrapped and membership = 'join' order by room_key"
    )
    .fetch_all(&mut *connection)
    .await?;
    lock_rooms(connection, &room_keys).await?;
    for room_keys in room_keys.chunks(TOGETHER) {
        let mut tops = gap::tops(connection, room_keys).await?;
        for room_key in room_keys {
            let top = tops.remove(room_key).unwrap_or_default();
            if !lengthen(connection, *room_key, &top, next_batch).await? {
                open(connection, *room_key, top, since, next_batch).await?;
            }
        }
    }
    room::mark_states_stale(connection).await?;
    tracing::warn!(room_count = room_keys.len(), "{REASON}: their messages are fetched one room at a time");
    Ok(())
}

async fn lengthen(
    connection: &mut PgConnection,
    room_key: i32,
    top: &Top,
    next_batch: &str,
) -> Result<bool, Error> {
    let newest = top.newest.as_ref().map(|(event_id, _)| event_id.as_str());
    let lengthened = sqlx::query!(
        "with unbegun as (
             update archive.walks w set from_token = $2, cursor = $2
             from archive.gaps g
             where g.room_key = $1 and g.state = 'open' and g.reason = $3 and g.lower_event_id is not distinct from $4
               and w.gap_id = g.gap_id and w.kind = 'gap_since' and w.state = 'open' and w.pages = 0
             returning w.gap_id
         )
         update archive.gaps g set upper_token = $2 from unbegun where g.gap_id = unbegun.gap_id",
        room_key,
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
    room_key: i32,
    top: Top,
    since: &str,
    next_batch: &str,
) -> Result<(), Error> {
    let gap = NewGap {
        room_key,
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
