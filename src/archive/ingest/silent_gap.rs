//! Detects that the homeserver has left events out of a timeline that is not marked as limited (P28).
//!
//! Only data from the homeserver itself counts: which event a state event replaced, and the current state. Data from
//! senders does not count: a reply, an edit or a redaction may name any event, so everybody in the room could cause
//! gaps.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::{
    archive::Error,
    matrix::{
        RoomUpdate,
        room_update::{after, state_events},
    },
};

pub(in crate::archive) const REASON: &str = "the server left events out of the sync and did not say so";

/// Whether a new state event of the timeline replaced an event that the archive does not have, or the state contains
/// a new event that is not in the timeline. Call this before anything of the response is stored.
///
/// An event that is no longer visible opens a gap only once, for the first new event that replaced it.
pub(in crate::archive) async fn is_shown(
    connection: &mut PgConnection,
    room_id: &str,
    update: &RoomUpdate,
) -> Result<bool, Error> {
    let in_timeline: HashSet<&str> =
        update.timeline.events.iter().map(|event| event.event_id.as_str()).collect();
    let all: HashSet<&str> = state_events(update).map(|event| event.event_id.as_str()).collect();
    let replaced =
        update.timeline.events.iter().filter(|event| event.state_key.is_some()).filter_map(|event| {
            let replaced = event.replaces_state.as_deref()?;
            (!all.contains(replaced)).then_some((event, Some(replaced)))
        });
    let in_force = update.state.events.iter().chain(after(update)).filter(|event| {
        // State that a server has made up cannot be fetched.
        !in_timeline.contains(event.event_id.as_str()) && event.state_key.is_some()
    });
    let hints: Vec<_> = replaced.chain(in_force.map(|event| (event, None))).collect();
    if hints.is_empty() {
        return Ok(false);
    }
    let event_ids: Vec<&str> = hints.iter().map(|(event, _)| event.event_id.as_str()).collect();
    let types: Vec<&str> = hints.iter().map(|(event, _)| event.event_type.as_str()).collect();
    let state_keys: Vec<&str> =
        hints.iter().map(|(event, _)| event.state_key.as_deref().unwrap_or_default()).collect();
    let replaced: Vec<Option<&str>> = hints.iter().map(|(_, replaced)| *replaced).collect();
    // An event that `/state` has stored since the last response is no older than the missing events.
    let is_shown = sqlx::query_scalar!(
        r#"with known as not materialized (
               select event_id, type, state_key, replaces_state from archive.events
               where room_id = $1
                 and (position is not null or received_at <= (select max(synced_at) from archive.accounts))
           )
           select exists (
               select from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as hint (event_id, type, state_key, replaced)
               where not exists (select from known where known.event_id = hint.event_id)
                 and not exists (select from known where known.event_id = hint.replaced)
                 and not exists (select from known
                                 where known.type = hint.type and known.state_key = hint.state_key
                                   and known.replaces_state = hint.replaced)
           ) as "is_shown!""#,
        room_id,
        &event_ids as &[&str],
        &types as &[&str],
        &state_keys as &[&str],
        replaced.as_slice() as &[Option<&str>]
    )
    .fetch_one(connection)
    .await?;
    Ok(is_shown)
}
