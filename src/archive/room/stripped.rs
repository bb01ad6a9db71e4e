//! The stripped state of a room that the account is invited to or knocks on.

use sqlx::PgConnection;

use super::Room;
use crate::{
    archive::{Error, erasure::filter::Tombstones},
    matrix::Stripped,
};

/// Replaces the stripped state of the room.
pub(in crate::archive) async fn set_stripped(
    connection: &mut PgConnection,
    room: &Room,
    stripped: &[Stripped],
) -> Result<(), Error> {
    sqlx::query!("delete from archive.stripped_state where room_id = $1", room.room_id)
        .execute(&mut *connection)
        .await?;
    if stripped.is_empty() {
        return Ok(());
    }
    let tombstones = Tombstones::of(&room.erased_users);
    let covered =
        |state: &&Stripped| tombstones.covers_stripped(&state.event_type, &state.sender, &state.state_key);
    let shown: Vec<&Stripped> = stripped.iter().filter(|state| !covered(state)).collect();
    let types: Vec<&str> = shown.iter().map(|state| state.event_type.as_str()).collect();
    let state_keys: Vec<&str> = shown.iter().map(|state| state.state_key.as_str()).collect();
    let senders: Vec<&str> = shown.iter().map(|state| state.sender.as_str()).collect();
    let contents: Vec<&str> = shown.iter().map(|state| state.content.as_str()).collect();
    sqlx::query!(
        "insert into archive.stripped_state (room_id, type, state_key, sender, content)
         select $1, s.type, s.state_key, s.sender, s.content::jsonb
         from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as s (type, state_key, sender, content)
         on conflict do nothing",
        room.room_id,
        &types as &[&str],
        &state_keys as &[&str],
        &senders as &[&str],
        &contents as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}
