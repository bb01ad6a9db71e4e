//! Copies of redacted content in other events: `prev_content` repeats what a state event replaced.

use sqlx::PgConnection;

use super::prune;
use crate::archive::{Error, room::Room};

/// Prunes `prev_content` where it repeats what one of `targets` was before its redaction. Those need not be stored: a server
/// tells what a state event replaced also to those who may not see that. Of those that are, what is stored is repeated;
/// one that was not redacted is passed over.
pub(in crate::archive) async fn prune_repeats(
    connection: &mut PgConnection,
    room: &Room,
    targets: &[String],
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    // Lateral, and fenced by its offset, for the same reason as in `found::look_up`.
    let repeats = sqlx::query!(
        r#"select repeat.event_id as "event_id!", repeat.type as "event_type!", repeat.prev_content::text as "prev_content!",
                  t.content::text as "content?"
           from unnest($2::text[]) as target (event_id)
           cross join lateral (
               select s.event_id, s.type, s.prev_content
               from archive.events s
               where s.room_key = $1 and s.replaces_state = target.event_id and s.prev_content is not null
               offset 0
           ) as repeat
           left join archive.events t on t.room_key = $1 and t.event_id = target.event_id
           where (t.event_id is null or t.redacted_by is not null) and repeat.prev_content is distinct from t.content"#,
        room.room_key,
        targets
    )
    .fetch_all(&mut *connection)
    .await?;
    for repeat in repeats {
        let version = room.room_version.as_deref();
        let left = repeat
            .content
            .unwrap_or_else(|| prune::content(version, &repeat.event_type, &repeat.prev_content));
        sqlx::query!(
            "update archive.events set prev_content = $3::text::jsonb
             where room_key = $1 and event_id = $2 and prev_content is distinct from $3::text::jsonb",
            room.room_key,
            repeat.event_id,
            left
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
