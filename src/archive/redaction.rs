//! Redactions: applied whichever of the two events arrives first, once, in their own room, by the room version's
//! rules, to every place that the content went.

use std::collections::{HashMap, HashSet};

use ruma::{
    RoomVersionId,
    canonical_json::{CanonicalJsonObject, CanonicalJsonValue, redact_content_in_place},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::{
    Error,
    event::{KnownEvents, StoredEvent},
    room::Room,
};
use crate::{
    config::RedactionPolicy as Policy,
    matrix::{Event, json::Json},
};

/// For more new events than these, a room's waiting redactions are read rather than looked up by their targets.
const MANY_NEW: usize = 500;
/// But not more of them than these.
const FEW_WAITING: usize = 2000;

/// Redactions known for some events: target → redaction.
pub(super) type Redactions = HashMap<String, String>;

/// Records the redactions that `events` are, and those that redacted `events` according to the server. Returns their
/// targets.
pub(super) async fn record(
    connection: &mut PgConnection,
    room: &Room,
    events: &[&Event],
) -> Result<HashSet<String>, Error> {
    let version = room.room_version.as_deref();
    let asked =
        events.iter().filter_map(|event| Some((event.redaction_target(version)?, event.event_id.as_str())));
    let done =
        events.iter().filter_map(|event| Some((event.event_id.as_str(), event.redacted_by.as_deref()?)));
    let (targets, redactions): (Vec<String>, Vec<String>) =
        asked.chain(done).map(|(target, redaction)| (target.to_owned(), redaction.to_owned())).unzip();
    if !targets.is_empty() {
        sqlx::query!(
            "insert into archive.redactions (room_key, target_event_id, redaction_event_id, state)
             select $1, link.target, link.redaction, 'pending'
             from unnest($2::text[], $3::text[]) as link (target, redaction)
             on conflict do nothing",
            room.room_key,
            &targets,
            &redactions
        )
        .execute(connection)
        .await?;
    }
    Ok(targets.into_iter().collect())
}

/// Whether one of `events` is new to us and has redacted what it does not name: only the redacted events' own copies tell.
pub(super) fn names_no_target(room: &Room, events: &[&Event], known: &KnownEvents) -> bool {
    let of_unknown = |event: &&&Event| lost_its_target(room, event) || redacts_all_of_a_user(event);
    events.iter().filter(of_unknown).any(|event| !known.contains_key(&event.event_id))
}

/// Whether this is a redaction that was itself redacted, so that nobody can tell any more what it redacted (P78).
fn lost_its_target(room: &Room, event: &Event) -> bool {
    event.event_type == "m.room.redaction"
        && event.redacted_by.is_some()
        && event.redaction_target(room.room_version.as_deref()).is_none()
}

/// Whether this is a ban or kick that redacts all that its user has sent to the room (MSC4293), which a server does as it
/// serves them (P67), if it does.
pub(super) fn redacts_all_of_a_user(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Removal {
        membership: String,
        #[serde(default)]
        redact_events: bool,
        #[serde(default, rename = "org.matrix.msc4293.redact_events")]
        unstable: bool,
    }
    if event.event_type != "m.room.member"
        || event.state_key.as_deref().is_none_or(|user| user == event.sender)
    {
        return false;
    }
    serde_json::from_str(&event.content).is_ok_and(|removal: Removal| {
        (removal.redact_events || removal.unstable) && matches!(removal.membership.as_str(), "ban" | "leave")
    })
}

/// The recorded redactions of these events, of which `new` are not stored.
pub(super) async fn of(
    connection: &mut PgConnection,
    room_key: i32,
    known: Vec<&str>,
    new: Vec<&str>,
) -> Result<Redactions, Error> {
    if new.len() > MANY_NEW
        && let Some(mut waiting) = waiting(connection, room_key).await?
    {
        let new: HashSet<&str> = new.into_iter().collect();
        waiting.retain(|target, _| new.contains(target.as_str()));
        waiting.extend(recorded(connection, room_key, &known).await?);
        return Ok(waiting);
    }
    recorded(connection, room_key, &[known, new].concat()).await
}

/// All redactions of the room whose target is not stored, if they are few.
async fn waiting(connection: &mut PgConnection, room_key: i32) -> Result<Option<Redactions>, Error> {
    // One row of two arrays: reading it costs a tenth of as many rows. The index gives their order: the first redaction
    // counts, as below, so it comes last.
    let links = sqlx::query!(
        r#"select coalesce(array_agg(target_event_id), '{}') as "targets!",
                  coalesce(array_agg(redaction_event_id), '{}') as "redactions!"
           from (select target_event_id, redaction_event_id from archive.redactions
                 where room_key = $1 and state = 'pending'
                 order by recorded_at desc, redaction_event_id desc
                 limit $2) few"#,
        room_key,
        i64::try_from(FEW_WAITING).unwrap_or(i64::MAX)
    )
    .fetch_one(connection)
    .await?;
    let few = links.targets.len() < FEW_WAITING;
    Ok(few.then(|| links.targets.into_iter().zip(links.redactions).collect()))
}

/// The recorded redactions of these events, of several the first.
async fn recorded(
    connection: &mut PgConnection,
    room_key: i32,
    event_ids: &[&str],
) -> Result<Redactions, Error> {
    if event_ids.is_empty() {
        return Ok(Redactions::new());
    }
    // Lateral, and limited, for the same reason as in `event::known`.
    let links = sqlx::query!(
        "select link.target_event_id, link.redaction_event_id
         from unnest($2::text[]) as asked (event_id)
         cross join lateral (
             select r.target_event_id, r.redaction_event_id
             from archive.redactions r
             where r.room_key = $1 and r.target_event_id = asked.event_id and r.state <> 'refused'
             order by r.recorded_at, r.redaction_event_id
             limit 1
         ) as link",
        room_key,
        event_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(links.into_iter().map(|link| (link.target_event_id, link.redaction_event_id)).collect())
}

/// `event` as it is after redaction, if it was redacted and this copy does not show it.
pub(super) fn redacted_copy(room: &Room, event: &Event, redactions: &Redactions) -> Option<Event> {
    let redaction = redactions.get(&event.event_id)?;
    if event.redacted_by.is_some() || event.event_type == "m.room.create" {
        return None;
    }
    Some(Event { redacted_by: Some(redaction.clone()), ..pruned(room, event) })
}

/// `event` with what a redaction leaves of it.
pub(super) fn pruned(room: &Room, event: &Event) -> Event {
    let content = prune(room.room_version.as_deref(), &event.event_type, &event.content);
    Event {
        stable_sha256: rehash(&room.room_id, event, &content),
        content,
        raw: None,
        relates_to: None,
        rel_type: None,
        ..event.clone()
    }
}

/// Prunes those of `targets` that are stored in full. `served` are the server's own pruned copies, which count more than
/// our idea of them. Returns the state events that were pruned.
pub(super) async fn apply(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    targets: &[String],
    served: &HashMap<&str, &Event>,
    redactions: &Redactions,
) -> Result<Vec<String>, Error> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let full = sqlx::query_as!(
        StoredEvent,
        r#"select event_id, type as event_type, sender, state_key, origin_server_ts, redacts, content::text as "content!"
           from archive.events
           where room_key = $1 and event_id = any($2) and redacted_by is null and type <> 'm.room.create'"#,
        room.room_key,
        targets
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
            overwrite(connection, policy, room.room_key, &copy).await?;
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
    room_key: i32,
    copy: &Event,
) -> Result<(), Error> {
    if policy == Policy::Retain {
        sqlx::query!(
            "insert into archive.originals (room_key, event_id, content, raw)
             select room_key, event_id, content, raw from archive.events where room_key = $1 and event_id = $2
             on conflict do nothing",
            room_key,
            copy.event_id
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!(
        "update archive.events
         set content = $3::text::jsonb, redacted_by = $4, stable_sha256 = $5, relates_to = null, rel_type = null,
             raw = null
         where room_key = $1 and event_id = $2",
        room_key,
        copy.event_id,
        copy.content,
        copy.redacted_by,
        copy.stable_sha256.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks what became of the links to `targets`, which are stored.
pub(super) async fn settle(
    connection: &mut PgConnection,
    room_key: i32,
    targets: &[String],
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update archive.redactions r
         set state = case when e.type = 'm.room.create' then 'refused' else 'applied' end
         from archive.events e
         where r.room_key = $1 and r.target_event_id = any($2) and r.state = 'pending'
           and e.room_key = $1 and e.event_id = r.target_event_id
           and (e.redacted_by is not null or e.type = 'm.room.create')",
        room_key,
        targets
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Prunes `prev_content` where it repeats redacted content: in the successors of `redacted` state events, and in
/// `successors` of events that were redacted before.
pub(super) async fn prune_successors(
    connection: &mut PgConnection,
    room_key: i32,
    redacted: &[String],
    successors: &[String],
) -> Result<(), Error> {
    if !redacted.is_empty() {
        sqlx::query!(
            "update archive.events s
             set prev_content = t.content
             from archive.events t
             where t.room_key = $1 and t.event_id = any($2) and t.redacted_by is not null
               -- by the index events_state: a successor has the key of what it replaces
               and s.room_key = $1 and s.type = t.type and s.state_key = t.state_key
               and s.replaces_state = t.event_id and s.prev_content is distinct from t.content",
            room_key,
            redacted
        )
        .execute(&mut *connection)
        .await?;
    }
    if !successors.is_empty() {
        sqlx::query!(
            "update archive.events s
             set prev_content = t.content
             from archive.events t
             where s.room_key = $1 and s.event_id = any($2) and t.room_key = $1 and t.event_id = s.replaces_state
               and t.redacted_by is not null and s.prev_content is distinct from t.content",
            room_key,
            successors
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Prunes `prev_content` where it repeats what was redacted and is not stored: a server tells what a state event replaced also
/// to those who may not see that. `targets`: redacted events; those that are stored are passed over.
pub(super) async fn prune_repeats(
    connection: &mut PgConnection,
    room: &Room,
    targets: &[String],
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    // Lateral, and fenced by its offset, for the same reason as in `event::known`.
    let repeats = sqlx::query!(
        r#"select repeat.event_id as "event_id!", repeat.type as "event_type!", repeat.prev_content as "prev_content!"
           from unnest($2::text[]) as target (event_id)
           cross join lateral (
               select s.event_id, s.type, s.prev_content::text as prev_content
               from archive.events s
               where s.room_key = $1 and s.replaces_state = target.event_id and s.prev_content is not null
               offset 0
           ) as repeat
           where not exists (
               select from archive.events t where t.room_key = $1 and t.event_id = target.event_id)"#,
        room.room_key,
        targets
    )
    .fetch_all(&mut *connection)
    .await?;
    for repeat in repeats {
        let pruned = prune(room.room_version.as_deref(), &repeat.event_type, &repeat.prev_content);
        sqlx::query!(
            "update archive.events set prev_content = $3::text::jsonb
             where room_key = $1 and event_id = $2 and prev_content is distinct from $3::text::jsonb",
            room.room_key,
            repeat.event_id,
            pruned
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The content that is left by the redaction algorithm of the room's version (specification, "Redactions"); nothing
/// where the version is unknown.
fn prune(room_version: Option<&str>, event_type: &str, content: &str) -> String {
    let rules =
        room_version.and_then(|version| RoomVersionId::try_from(version).ok()).and_then(|id| id.rules());
    let content = Json::parse(content);
    // ruma's values hold no number beyond 2^53 and no lone surrogate, ours do: a shadow of the content is redacted, and
    // what is left of that tells what to keep.
    let (Some(rules), CanonicalJsonValue::Object(mut shadow)) = (rules, shadow(&content)) else {
        return "{}".to_owned();
    };
    redact_content_in_place(&mut shadow, &rules.redaction, event_type);
    let mut kept = String::new();
    retain(content, &shadow).write_jsonb(&mut kept);
    kept
}

fn shadow(value: &Json<'_>) -> CanonicalJsonValue {
    match value {
        Json::Object(members) => {
            let members =
                members.iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), shadow(value))));
            CanonicalJsonValue::Object(members.collect())
        }
        Json::Array(items) => CanonicalJsonValue::Array(items.iter().map(shadow).collect()),
        Json::String(text) => CanonicalJsonValue::String(text.to_column().0),
        Json::Literal("true") => CanonicalJsonValue::Bool(true),
        Json::Literal("false") => CanonicalJsonValue::Bool(false),
        Json::Literal(_) | Json::Number(_) | Json::Deep(_) => CanonicalJsonValue::Null,
    }
}

fn retain<'a>(value: Json<'a>, shadow: &CanonicalJsonObject) -> Json<'a> {
    let Json::Object(members) = value else { return value };
    let kept = members.into_iter().filter_map(|(name, value)| {
        let value = match shadow.get(name.as_str()?)? {
            CanonicalJsonValue::Object(shadow) => retain(value, shadow),
            _ => value,
        };
        Some((name, value))
    });
    Json::Object(kept.collect())
}

/// The stable hash of an event with other content, from its columns.
fn rehash(room_id: &str, event: &Event, content: &str) -> [u8; 32] {
    let content: Option<Box<RawValue>> = serde_json::from_str(content).ok();
    let mut copy = serde_json::json!({
        "event_id": event.event_id,
        "type": event.event_type,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
        "content": {},
    });
    if let Some(state_key) = &event.state_key {
        copy["state_key"] = state_key.as_str().into();
    }
    if let Some(content) = content.and_then(|content| serde_json::from_str(content.get()).ok()) {
        copy["content"] = content;
    }
    let raw = serde_json::value::to_raw_value(&copy).ok();
    raw.and_then(|raw| crate::matrix::parse_event(room_id, &raw).ok())
        .map_or(event.stable_sha256, |parsed| parsed.stable_sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_pruned_by_the_version() {
        let levels = r#"{"ban":50,"invite":0,"users":{"@a:hs":100},"x":1}"#;
        assert_eq!(prune(Some("10"), "m.room.power_levels", levels), r#"{"ban":50,"users":{"@a:hs":100}}"#);
        assert_eq!(
            prune(Some("11"), "m.room.power_levels", levels),
            r#"{"ban":50,"invite":0,"users":{"@a:hs":100}}"#
        );
        let aliases = r##"{"aliases":["#a:hs"]}"##;
        assert_eq!(prune(Some("5"), "m.room.aliases", aliases), aliases);
        assert_eq!(prune(Some("6"), "m.room.aliases", aliases), "{}");
        assert_eq!(prune(Some("9"), "m.room.message", r#"{"body":"x"}"#), "{}");
        let member = r#"{"membership":"join","displayname":"x","join_authorised_via_users_server":"@s:hs"}"#;
        assert_eq!(prune(Some("8"), "m.room.member", member), r#"{"membership":"join"}"#);
        assert_eq!(
            prune(Some("9"), "m.room.member", member),
            r#"{"membership":"join","join_authorised_via_users_server":"@s:hs"}"#
        );
    }

    #[test]
    fn what_is_kept_is_kept_to_the_letter() {
        let levels = r#"{"ban":123456789012345678901234567890,"kick":1.50,"x":1}"#;
        assert_eq!(
            prune(Some("1"), "m.room.power_levels", levels),
            r#"{"ban":123456789012345678901234567890,"kick":1.50}"#
        );
        assert_eq!(prune(Some("org.example"), "m.room.power_levels", levels), "{}");
        assert_eq!(prune(None, "m.room.power_levels", levels), "{}");
    }
}
