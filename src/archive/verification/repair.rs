//! Derives anew what the writer keeps beside the events of a room. The events stay as they are.

use sqlx::PgConnection;

use crate::archive::{Error, Writer, encryption::decrypt};

/// The kinds of [findings](super::Finding) that this mends.
pub(crate) const DERIVED: [&str; 9] = [
    "edit differs",
    "thread differs",
    "edit does not wait",
    "edit waits for a message that is there",
    "decrypted message differs",
    "activity differs",
    "member differs",
    "event count differs",
    "message count differs",
];

impl Writer {
    /// Derives the edits, threads, activity, members, the number of events and what follows from decrypted messages of a
    /// room anew, in one transaction.
    pub(crate) async fn derive_anew(&self, room_id: &str) -> Result<(), Error> {
        let mut transaction = self.begin_in_room(room_id).await?;
        derive_anew(&mut transaction, room_id).await?;
        transaction.commit().await
    }
}

/// The same in a transaction, which must hold the room's lock.
pub(in crate::archive) async fn derive_anew(
    connection: &mut PgConnection,
    room_id: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.rooms r
         set event_count = (select count(*) from archive.events e where e.room_id = r.room_id)
         where r.room_id = $1",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update archive.events set thread_root = case when rel_type = 'm.thread' then relates_to end
         where room_id = $1 and (rel_type = 'm.thread' or thread_root is not null)
               and thread_root is distinct from case when rel_type = 'm.thread' then relates_to end",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    // Each call apart from what it is called with: a distributed database would call it on the room's server.
    let related = sqlx::query!(
        r#"select coalesce(array_agg(event_id) filter (where is_edit), '{}') as "edit_ids!",
                  coalesce(array_agg(message_id) filter (where message_id is not null), '{}') as "message_ids!",
                  coalesce(array_agg(event_id) filter (where not is_edit), '{}') as "reply_ids!"
         from (
             select event_id, rel_type = 'm.replace' as is_edit,
                    case when rel_type = 'm.replace' then relates_to end as message_id
             from archive.events
             where room_id = $1 and relates_to is not null and rel_type in ('m.replace', 'm.thread') and state_key is null
             union all
             select null, null, event_id from archive.events where room_id = $1 and edited_by is not null
         ) related"#,
        room_id
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query!(
        "select archive.settle_relations($1, $2, $3, $4, '{}')",
        room_id,
        &related.edit_ids,
        &related.message_ids,
        &related.reply_ids
    )
    .execute(&mut *connection)
    .await?;
    let encrypted = sqlx::query_scalar!(
        r#"select event_id as "event_id!" from archive.decrypted_events where room_id = $1
           union select event_id from archive.events where room_id = $1 and hidden_type is not null"#,
        room_id
    )
    .fetch_all(&mut *connection)
    .await?;
    decrypt::settle(connection, room_id, &encrypted).await?;
    let senders = sqlx::query_scalar!(
        r#"select sender as "sender!" from archive.activity where room_id = $1
           union select sender from archive.events where room_id = $1"#,
        room_id
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!(
        "select archive.recount_activity($1, sender) from unnest($2::text[]) as sender",
        room_id,
        &senders
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update archive.rooms r
         set message_count = coalesce((select sum(a.messages) from archive.activity a where a.room_id = r.room_id), 0)
         where r.room_id = $1",
        room_id
    )
    .execute(&mut *connection)
    .await?;
    let users = sqlx::query_scalar!(
        r#"select user_id as "user_id!" from archive.members where room_id = $1
           union select state_key from archive.current_state where room_id = $1 and type = 'm.room.member'"#,
        room_id
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!("select archive.refresh_members($1, $2)", room_id, &users).execute(&mut *connection).await?;
    Ok(())
}
