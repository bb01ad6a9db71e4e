//! What could not be read of the homeserver's answers, byte for byte, as long as nobody has redacted or erased it.

use sqlx::PgConnection;

use super::{Error, Policy, redaction, room::Room, tombstone::Tombstones};
use crate::matrix::{
    Malformed,
    json::{Json, Text},
};

/// The ids that events within claim to have: in a part of an answer there may be several.
pub(super) fn event_ids(raw: &str) -> Vec<String> {
    let mut event_ids = Vec::new();
    collect_event_ids(&Json::parse(raw), &mut event_ids);
    // Text in the database holds no NUL, so no redaction names such an id.
    event_ids.retain(|event_id| !event_id.contains('\0'));
    event_ids
}

fn collect_event_ids(value: &Json<'_>, event_ids: &mut Vec<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|item| collect_event_ids(item, event_ids)),
        Json::Object(members) => {
            let own = value.get("event_id").and_then(Json::as_text).and_then(Text::as_str);
            event_ids.extend(own.map(str::to_owned));
            for (_, member) in members {
                collect_event_ids(member, event_ids);
            }
        }
        Json::Literal(_) | Json::Number(_) | Json::String(_) | Json::Deep(_) => {}
    }
}

/// Keeps what could not be read of a room, unless it concerns an erased user or was redacted.
pub(super) async fn keep(
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
    let redactions = redaction::recorded(connection, room.room_key, &all).await?;
    for (bad, event_ids) in malformed.iter().zip(&event_ids) {
        let is_redacted =
            policy == Policy::Honour && event_ids.iter().any(|event_id| redactions.contains_key(event_id));
        if !is_redacted && !tombstones.mentioned(&bad.raw) {
            insert(connection, Some(room.room_key), bad).await?;
        }
    }
    Ok(())
}

/// The same for what belongs to no room.
pub(super) async fn keep_roomless(
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
