//! Redacts copies of redacted content in other events: `prev_content` repeats the content that a state event has
//! replaced.

use sqlx::PgConnection;

use crate::{
    archive::{Error, derived::Derived, room::Room},
    matrix::{Event, redact},
};

/// Prunes `prev_content` that repeats the content of one of `targets`. A target need not be stored, because a server
/// returns `prev_content` also to users who may not see the replaced event. For a stored target, its pruned content
/// is used; a target that was not redacted is skipped.
pub(in crate::archive) async fn prune_repeats(
    connection: &mut PgConnection,
    room: &Room,
    targets: &[String],
    derived: &mut Derived,
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    forget_unnamed(connection, &room.room_id, targets).await?;
    // Lateral with an offset, for the same reason as in `lookup::look_up`.
    let repeats = sqlx::query!(
        r#"select repeat.event_id as "event_id!", repeat.type as "event_type!", repeat.state_key as "state_key?",
                  repeat.prev_content::text as "prev_content!",
                  t.content::text as "content?"
           from unnest($2::text[]) as target (event_id)
           cross join lateral (
               select s.event_id, s.type, s.state_key, s.prev_content
               from archive.events s
               where s.room_id = $1 and s.replaces_state = target.event_id and s.prev_content is not null
               offset 0
           ) as repeat
           left join archive.events t on t.room_id = $1 and t.event_id = target.event_id
           where (t.event_id is null or t.redacted_by is not null) and repeat.prev_content is distinct from t.content"#,
        room.room_id,
        targets
    )
    .fetch_all(&mut *connection)
    .await?;
    for repeat in repeats {
        derived.note_member(room, &repeat.event_type, repeat.state_key.as_deref());
        let version = room.room_version.as_deref();
        let left = repeat
            .content
            .unwrap_or_else(|| redact::content(version, &repeat.event_type, &repeat.prev_content));
        sqlx::query!(
            "update archive.events set prev_content = $3::text::jsonb
             where room_id = $1 and event_id = $2 and prev_content is distinct from $3::text::jsonb",
            room.room_id,
            repeat.event_id,
            left
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Stores replaced content whose event is not named, unless that content may be redacted: by a redaction of another
/// event of the same state key, or of an event that the archive does not have.
pub(in crate::archive) async fn keep_unnamed(
    connection: &mut PgConnection,
    room: &Room,
    events: &[&Event],
) -> Result<(), Error> {
    let with: Vec<_> =
        events.iter().filter_map(|event| Some((*event, event.uncommon().unnamed_prev.as_ref()?))).collect();
    if with.is_empty() {
        return Ok(());
    }
    let event_ids: Vec<&str> = with.iter().map(|(event, _)| event.event_id.as_str()).collect();
    let types: Vec<&str> = with.iter().map(|(event, _)| event.event_type.as_str()).collect();
    let state_keys: Vec<&str> =
        with.iter().map(|(event, _)| event.state_key.as_deref().unwrap_or_default()).collect();
    let contents: Vec<&str> = with.iter().map(|(_, prev)| prev.content.as_str()).collect();
    let sources: Vec<&str> = with.iter().map(|(_, prev)| prev.source).collect();
    sqlx::query!(
        "insert into archive.unnamed_prev_content (room_id, event_id, prev_content, source)
         select $1, reported.event_id, reported.content::jsonb, reported.source
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             as reported (event_id, type, state_key, content, source)
         where not exists (
                   select from archive.events e
                   where e.room_id = $1 and e.type = reported.type and e.state_key = reported.state_key
                     and e.event_id <> reported.event_id and e.redacted_by is not null)
           and not exists (select from archive.redactions r where r.room_id = $1 and r.state = 'pending')
         on conflict do nothing",
        room.room_id,
        &event_ids as &[&str],
        &types as &[&str],
        &state_keys as &[&str],
        &contents as &[&str],
        &sources as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes stored replaced content that may be that of one of `targets`.
async fn forget_unnamed(
    connection: &mut PgConnection,
    room_id: &str,
    targets: &[String],
) -> Result<(), Error> {
    sqlx::query!(
        "delete from archive.unnamed_prev_content u
         using archive.events e
         where u.room_id = $1 and e.room_id = $1 and e.event_id = u.event_id
           and exists (
               select from unnest($2::text[]) as target (event_id)
               left join archive.events t on t.room_id = $1 and t.event_id = target.event_id
               where t.event_id is null
                  or (t.type = e.type and t.state_key = e.state_key and t.redacted_by is not null))",
        room_id,
        targets
    )
    .execute(connection)
    .await?;
    Ok(())
}
