//! Parts of responses that could not be read. They are kept byte for byte until they are redacted or erased.

use sqlx::PgConnection;

use crate::{
    archive::{Error, Policy, erasure::filter::Tombstones, room::Room},
    matrix::{Malformed, event_ids::event_ids},
};

use super::lookup;

/// Stores unreadable parts of a room, unless they concern an erased user or were redacted.
pub(in crate::archive) async fn keep(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    malformed: &[Malformed],
) -> Result<(), Error> {
    if malformed.is_empty() {
        return Ok(());
    }
    let tombstones = Tombstones::of(&room.erased_users);
    let event_ids: Vec<Vec<String>> = malformed.iter().map(|bad| event_ids(&bad.raw)).collect();
    let all: Vec<&str> = event_ids.iter().flatten().map(String::as_str).collect();
    let redactions = lookup::recorded(connection, room.room_key, &all).await?;
    for (bad, event_ids) in malformed.iter().zip(&event_ids) {
        let is_redacted =
            policy == Policy::Honour && event_ids.iter().any(|event_id| redactions.contains_key(event_id));
        if !is_redacted && !tombstones.mentioned(&bad.raw) {
            insert(connection, Some(room.room_key), bad).await?;
        }
    }
    Ok(())
}

/// The same for parts that belong to no room.
pub(in crate::archive) async fn keep_roomless(
    connection: &mut PgConnection,
    malformed: &[Malformed],
) -> Result<(), Error> {
    if malformed.is_empty() {
        return Ok(());
    }
    let erased_users = sqlx::query_scalar!(
        r#"select user_id as "user_id!" from archive.erasures where user_id is not null"#
    );
    let erased_users = erased_users.fetch_all(&mut *connection).await?;
    let tombstones = Tombstones::of(&erased_users);
    for bad in malformed.iter().filter(|bad| !tombstones.mentioned(&bad.raw)) {
        insert(connection, None, bad).await?;
    }
    Ok(())
}

async fn insert(connection: &mut PgConnection, room_key: Option<i32>, bad: &Malformed) -> Result<(), Error> {
    let kept = sqlx::query!(
        "insert into archive.quarantine (room_key, raw, raw_sha256, reason, event_ids) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
        room_key,
        bad.raw.as_bytes(),
        bad.own_sha256.as_slice(),
        bad.reason,
        &event_ids(&bad.raw)
    )
    .execute(connection)
    .await?;
    if kept.rows_affected() > 0 {
        tracing::warn!(
            room.key = room_key,
            reason = bad.reason,
            "a part of an answer could not be read; quarantined"
        );
    }
    Ok(())
}
