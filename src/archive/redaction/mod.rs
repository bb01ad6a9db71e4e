//! Applies redactions: in their own room, by the rules of the room version, to every copy of the content. A redaction
//! and its target may arrive in either order.

mod edits;
mod prev_content;
mod retained;

use foldhash::HashMap;
use sqlx::PgConnection;

pub(super) use self::{
    edits::edits,
    prev_content::{keep_unnamed, prune_repeats},
};
use super::{
    Error,
    derived::Derived,
    event::{
        lookup::{KnownEvents, LookupScope, look_up},
        row::StoredEvent,
    },
    evidence,
    room::Room,
};
use crate::{
    archive::event::lookup::Redactions,
    config::RedactionPolicy as Policy,
    matrix::{
        Event, event_ids,
        redact::{self, redacts_all_of_a_user},
    },
};

/// The redactions among `events`, and those that have redacted `events` according to the server. Each comes after its
/// target. This is the order in which redactions from one response are recorded.
pub(super) fn links<'e>(room: &Room, events: &[&'e Event]) -> Vec<(&'e str, &'e str)> {
    let version = room.room_version.as_deref();
    let asked =
        events.iter().filter_map(|event| Some((event.redaction_target(version)?, event.event_id.as_str())));
    let done = events
        .iter()
        .filter_map(|event| Some((event.event_id.as_str(), event.uncommon().redacted_by.as_deref()?)));
    let mut links: Vec<_> = asked.chain(done).collect();
    links.sort_unstable();
    links
}

/// Records `links`, and updates all links to the stored events `settled`. Deletes rows in quarantine that belong to
/// the links' targets, because they cannot be pruned.
pub(super) async fn record(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    links: &[(&str, &str)],
    settled: &[String],
) -> Result<(), Error> {
    if links.is_empty() && settled.is_empty() {
        return Ok(());
    }
    let (targets, redactions): (Vec<&str>, Vec<&str>) = links.iter().copied().unzip();
    evidence::redact(connection, policy, room, &targets).await?;
    let quarantined = sqlx::query!(
        "with stored as (
             select e.event_id,
                    case when e.type = 'm.room.create' then 'refused' when e.redacted_by is not null then 'applied' end as state
             from unnest($4::text[]) as settled (event_id)
             cross join lateral (
                 select event_id, type, redacted_by from archive.events
                 where room_id = $1 and event_id = settled.event_id
                 limit 1
             ) as e
         ), recorded as (
             insert into archive.redactions (room_id, target_event_id, redaction_event_id, state)
             select $1, link.target, link.redaction, coalesce(stored.state, 'pending')
             from unnest($2::text[], $3::text[]) as link (target, redaction)
             left join stored on stored.event_id = link.target
             on conflict do nothing
         ), settled as (
             update archive.redactions r set state = stored.state
             from stored
             where r.room_id = $1 and r.target_event_id = stored.event_id and r.state = 'pending'
               and stored.state is not null
         )
         select raw_sha256, raw, event_ids from archive.quarantine
         where room_id = $1 and $5 and (event_ids && $2::text[] or event_ids is null)",
        room.room_id,
        &targets as &[&str],
        &redactions as &[&str],
        settled,
        policy == Policy::Honour && !targets.is_empty()
    )
    .fetch_all(&mut *connection)
    .await?;
    let is_target = |raw: &[u8]| {
        let event_ids = str::from_utf8(raw).map(event_ids::event_ids).unwrap_or_default();
        event_ids.iter().any(|event_id| targets.contains(&event_id.as_str()))
    };
    let theirs: Vec<Vec<u8>> = quarantined
        .into_iter()
        .filter(|row| row.event_ids.is_some() || is_target(&row.raw))
        .map(|row| row.raw_sha256)
        .collect();
    if !theirs.is_empty() {
        sqlx::query!(
            "delete from archive.quarantine where room_id = $1 and raw_sha256 = any($2)",
            room.room_id,
            &theirs
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Whether one of `events` is new and has redacted events that it does not name. Only copies of the redacted events
/// show that.
pub(super) fn names_no_target(room: &Room, events: &[&Event], known: &KnownEvents) -> bool {
    let of_unknown = |event: &&&Event| lost_its_target(room, event) || redacts_all_of_a_user(event);
    events.iter().filter(of_unknown).any(|event| !known.contains_key(&event.event_id))
}

/// The events of `state` that are new and redact events that they do not name.
pub(super) fn removals<'e>(state: impl Iterator<Item = &'e Event>) -> Vec<&'e Event> {
    state.filter(|event| redacts_all_of_a_user(event)).collect()
}

/// Whether `state`, which is not stored yet, has such an event.
pub(super) async fn state_names_no_target<'e>(
    connection: &mut PgConnection,
    room: &Room,
    state: impl Iterator<Item = &'e Event>,
) -> Result<bool, Error> {
    let removals = removals(state);
    let known = look_up(connection, &room.room_id, &removals, LookupScope::All, None).await?.known;
    Ok(names_no_target(room, &removals, &known))
}

/// Whether this is a redaction that was itself redacted, so that its target is unknown (P78).
fn lost_its_target(room: &Room, event: &Event) -> bool {
    event.event_type == "m.room.redaction"
        && event.uncommon().redacted_by.is_some()
        && event.redaction_target(room.room_version.as_deref()).is_none()
}

/// The event after redaction, if it was redacted and this copy does not show it.
pub(super) fn redacted_copy(room: &Room, event: &Event, redactions: &Redactions) -> Option<Event> {
    let redaction = redactions.get(&event.event_id)?;
    if event.uncommon().redacted_by.is_some() || event.event_type == "m.room.create" {
        return None;
    }
    // An edit that is redacted with its message keeps the relation. If it was redacted on its own, the view messages shows it.
    let is_with_message =
        redact::edited(event).and_then(|original| redactions.get(original)) == Some(redaction);
    let prune = if is_with_message { redact::pruned_but_relation_of_edit } else { redact::pruned };
    let copy = prune(&room.room_id, room.room_version.as_deref(), event);
    Some(copy.with_uncommon(|it| it.redacted_by = Some(redaction.clone())))
}

/// Prunes those of `targets` that are stored in full. `served`: the server's own pruned copies, which are preferred.
/// In an unknown room version, where we remove the whole content, they also replace it later. Returns the pruned
/// state events.
pub(super) async fn apply(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    targets: &[String],
    served: &HashMap<&str, &Event>,
    redactions: &Redactions,
    derived: &mut Derived,
) -> Result<Vec<String>, Error> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let by_rules = redact::knows(room.room_version.as_deref());
    let better: Vec<&str> = if by_rules { Vec::new() } else { served.keys().copied().collect() };
    let full = sqlx::query_as!(
        StoredEvent,
        r#"select event_id, type as event_type, sender, state_key, origin_server_ts, redacts, redacted_by, relates_to, rel_type,
                  content::text as "content!"
           from archive.events
           where room_id = $1 and event_id = any($2) and (redacted_by is null or event_id = any($3))
             and type <> 'm.room.create'"#,
        room.room_id,
        targets,
        &better as &[&str]
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut pruned = Vec::new();
    for row in full {
        let stored = row.into_event();
        let copy = match served.get(stored.event_id.as_str()) {
            Some(copy) => Some((*copy).clone()),
            None => redacted_copy(room, &stored, redactions),
        };
        if let Some(copy) = copy {
            overwrite(connection, policy, &room.room_id, &copy).await?;
            derived.note_changed(room, &stored, &copy);
            if copy.state_key.is_some() {
                pruned.push(copy.event_id);
            }
        }
    }
    Ok(pruned)
}

/// Replaces a stored event's content by its redacted copy's.
async fn overwrite(
    connection: &mut PgConnection,
    policy: Policy,
    room_id: &str,
    copy: &Event,
) -> Result<(), Error> {
    if policy == Policy::Retain {
        sqlx::query!(
            "insert into archive.originals (room_id, event_id, content, raw)
             select room_id, event_id, content, raw from archive.events
             where room_id = $1 and event_id = $2 and redacted_by is null
             on conflict do nothing",
            room_id,
            copy.event_id
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!(
        "update archive.events
         set content = $3::text::jsonb, redacted_by = $4, stable_sha256 = $5, relates_to = $6, rel_type = $7, raw = $8,
             thread_root = case when $7 = 'm.thread' then $6 end, edited_by = null, edited_at = null, edit_count = null,
             edited_content = null
         where room_id = $1 and event_id = $2 and (redacted_by is null or stable_sha256 <> $5)",
        room_id,
        copy.event_id,
        copy.content,
        copy.uncommon().redacted_by,
        copy.stable_sha256.as_slice(),
        copy.uncommon().relates_to,
        copy.uncommon().rel_type,
        copy.uncommon().raw.as_deref().map(str::as_bytes)
    )
    .execute(connection)
    .await?;
    Ok(())
}
