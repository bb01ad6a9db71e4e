//! Records that a better copy of an event replaces the stored one.

use sqlx::PgConnection;

use crate::archive::Error;

/// Records it, in the transaction that replaces the copies and before it does. An event that is not stored is passed over.
pub(super) async fn record(
    connection: &mut PgConnection,
    room_id: &str,
    event_ids: &[&str],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into archive.replaced_copies (room_id, event_id, received_at)
         select room_id, event_id, received_at from archive.events
         where room_id = $1 and event_id = any($2)
         on conflict do nothing",
        room_id,
        event_ids as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}
