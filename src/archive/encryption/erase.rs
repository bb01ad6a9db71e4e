//! Erases what encrypted messages of a user say.

use sqlx::PgConnection;

use crate::archive::Error;

/// The sessions of a user's messages. Call it before the events lose their content, which names them.
pub(in crate::archive) async fn sessions_of_user(
    connection: &mut PgConnection,
    room_id: &str,
    user_id: &str,
) -> Result<Vec<String>, Error> {
    let sessions = sqlx::query_scalar!(
        r#"select archive.megolm_session(e.content) as "session_id!" from archive.events e
           where e.room_id = $1 and e.sender = $2 and e.type = 'm.room.encrypted'
             and archive.megolm_session(e.content) is not null
           union
           select d.session_id from archive.decrypted_events d
           join archive.events e on e.room_id = $1 and e.event_id = d.event_id and e.sender = $2
           where d.room_id = $1"#,
        room_id,
        user_id
    );
    Ok(sessions.fetch_all(connection).await?)
}

/// Removes what the user's messages say, and why the user withholds keys. Returns how many rows that were.
pub(in crate::archive) async fn forget_user(
    connection: &mut PgConnection,
    room_id: &str,
    user_id: &str,
) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "delete from archive.decrypted_events d using archive.events e
         where d.room_id = $1 and e.room_id = $1 and e.event_id = d.event_id and e.sender = $2",
        room_id,
        user_id
    );
    let gone = gone.execute(&mut *connection).await?.rows_affected();
    // The edits of their messages are theirs, too. Their activity is counted anew.
    sqlx::query!(
        "update archive.events e set hidden_type = null
         where archive.any_room(e.origin_server_ts)
           and e.room_id = $1 and e.sender = $2 and e.hidden_type is not null",
        room_id,
        user_id
    )
    .execute(&mut *connection)
    .await?;
    let reasons = sqlx::query!(
        "delete from archive.withheld_sessions where room_id = $1 and sender = $2",
        room_id,
        user_id
    );
    Ok(gone + reasons.execute(connection).await?.rows_affected())
}

/// Removes those of these sessions that no event of the room names any more. Returns how many rows that were.
pub(in crate::archive) async fn erase_unneeded(
    connection: &mut PgConnection,
    room_id: &str,
    session_ids: &[String],
) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "with unneeded as (
             select asked.session_id from unnest($2::text[]) as asked (session_id)
             where not exists (
                 select from archive.events e
                 where e.room_id = $1 and archive.megolm_session(e.content) = asked.session_id
                   and e.type = 'm.room.encrypted' and e.state_key is null and e.redacted_by is null
                   and e.content -> 'ciphertext' is not null)
         ), unqueued as (
             delete from archive.decryption_queue q using unneeded u
             where q.room_id = $1 and q.session_id = u.session_id
         )
         delete from archive.megolm_sessions s using unneeded u
         where s.room_id = $1 and s.session_id = u.session_id",
        room_id,
        session_ids
    );
    Ok(gone.execute(connection).await?.rows_affected())
}
