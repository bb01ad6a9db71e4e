//! Decides which of two copies of an event is stored. A redacted copy replaces a full one. A full copy replaces one
//! that was pruned without a redaction. Otherwise the first copy stays.

use sqlx::PgConnection;

use super::{
    lookup::{KnownEvents, Redactions},
    row::Placed,
};
use crate::{
    archive::{Error, derived::Derived, room::Room},
    matrix::{Event, redact},
};

/// Replaces stored events by fuller copies, if they were served pruned although nobody had redacted them. The server
/// had lost their content, or did not show it at that time.
pub(in crate::archive) async fn replace_poorer(
    connection: &mut PgConnection,
    room: &Room,
    copies: &[&Placed<'_>],
    known: &KnownEvents,
    redactions: &Redactions,
    derived: &mut Derived,
) -> Result<(), Error> {
    for event in copies.iter().map(|placed| placed.event) {
        let Some(stored) = known.get(&event.event_id) else { continue };
        // A copy that does not show its redaction is not a better one.
        if event.uncommon().redacted_by.is_some()
            || redactions.contains_key(&event.event_id)
            || event.stable_sha256.as_slice() == stored.stable_sha256
        {
            continue;
        }
        let pruned = redact::pruned(&room.room_id, room.room_version.as_deref(), event);
        if pruned.stable_sha256.as_slice() == stored.stable_sha256 {
            replace(connection, &room.room_id, event).await?;
            derived.note_changed(room, &pruned, event);
        }
    }
    Ok(())
}

async fn replace(connection: &mut PgConnection, room_id: &str, copy: &Event) -> Result<(), Error> {
    super::replaced::record(connection, room_id, &[&copy.event_id]).await?;
    let uncommon = copy.uncommon();
    sqlx::query!(
        "update archive.events
         set content = $3::text::jsonb, stable_sha256 = $4, relates_to = $5, rel_type = $6, raw = $7,
             thread_root = case when $6 = 'm.thread' then $5 end
         where room_id = $1 and event_id = $2 and redacted_by is null",
        room_id,
        copy.event_id,
        copy.content,
        copy.stable_sha256.as_slice(),
        uncommon.relates_to,
        uncommon.rel_type,
        uncommon.raw.as_deref().map(str::as_bytes)
    )
    .execute(connection)
    .await?;
    Ok(())
}
