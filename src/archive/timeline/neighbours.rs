//! Reads the positions of a room's stored events.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{archive::Error, matrix::Event};

use super::position::{self, Below, Place};

/// The room's newest event, and its position, among those stored up to the last `/sync` response, without `events`.
pub(in crate::archive) async fn newest_before(
    connection: &mut PgConnection,
    room_id: &str,
    events: &[&Event],
) -> Result<Option<(String, i64)>, Error> {
    let event_ids: Vec<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
    let newest = sqlx::query!(
        r#"select event_id, position as "position!" from archive.events
           where room_id = $1 and position is not null and event_id <> all ($2::text[])
             and received_at <= (select max(synced_at) from archive.accounts)
           order by position desc limit 1"#,
        room_id,
        &event_ids as &[&str]
    )
    .fetch_optional(connection)
    .await?;
    Ok(newest.map(|row| (row.event_id, row.position)))
}

/// For each of `uppers`, the room's highest position below it.
async fn below(
    connection: &mut PgConnection,
    room_id: &str,
    uppers: &[i64],
) -> Result<HashMap<i64, i64>, Error> {
    if uppers.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"select upper as "upper!", neighbour.position as "position!"
           from unnest($2::bigint[]) as upper
           cross join lateral (
               select e.position from archive.events e
               where e.room_id = $1 and e.position < upper
               order by e.position desc
               limit 1
           ) as neighbour"#,
        room_id,
        uppers
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.upper, row.position)).collect())
}

/// A position just above the event at `position`: that of its neighbour, or a new one.
pub(in crate::archive) async fn above(
    connection: &mut PgConnection,
    room_id: &str,
    position: i64,
) -> Result<i64, Error> {
    let above = sqlx::query_scalar!(
        r#"select coalesce(
               (select e.position from archive.events e
                where e.room_id = $1 and e.position > $2 order by e.position limit 1),
               $2 + (1::bigint << 32)) as "above!""#,
        room_id,
        position
    )
    .fetch_one(connection)
    .await?;
    Ok(above)
}

/// The room's lowest position. 0 if there is none.
pub(in crate::archive) async fn lowest(connection: &mut PgConnection, room_id: &str) -> Result<i64, Error> {
    let lowest = sqlx::query_scalar!(
        r#"select coalesce(min(position), 0) as "lowest!" from archive.events where room_id = $1"#,
        room_id
    )
    .fetch_one(connection)
    .await?;
    Ok(lowest)
}

/// The position of the room's create event, if a walk has reached the room's start. An imported one does not show that.
pub(in crate::archive) async fn create_position(
    connection: &mut PgConnection,
    room_id: &str,
) -> Result<Option<i64>, Error> {
    let position = sqlx::query_scalar!(
        r#"select position as "position!" from archive.events e
           where room_id = $1 and type = 'm.room.create' and state_key = '' and position is not null
             and not exists (select from archive.imported_events i
                             where i.room_id = e.room_id and i.event_id = e.event_id)
           order by position desc limit 1"#,
        room_id
    )
    .fetch_optional(connection)
    .await?;
    Ok(position)
}

/// Places events below `upper`, newest first, among the stored ones. `known`: what was looked up before.
pub(in crate::archive) async fn walk_down(
    connection: &mut PgConnection,
    room_id: &str,
    upper: i64,
    places: &[Place],
    known: Option<Below>,
) -> Result<position::Placement, Error> {
    let mut tops = position::tops(upper, places);
    tops.retain(|top| known.is_none_or(|known| known.upper != *top));
    let mut lower: HashMap<i64, i64> = below(connection, room_id, &tops).await?;
    lower.extend(known.and_then(|known| Some((known.upper, known.position?))));
    Ok(position::walk_down(upper, places, |upper| lower.get(&upper).copied()))
}
