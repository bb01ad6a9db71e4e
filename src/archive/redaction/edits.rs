//! Redacts the edits of redacted messages. An edit contains the message's text, often completely, but a homeserver
//! redacts only the message (specification, "Event replacements", "Redacting edited events"). So the redaction of a
//! message also applies to its edits by the same sender, whichever of the three events arrives first.

use foldhash::{HashMap, HashSet};
use sqlx::PgConnection;

use crate::{
    archive::{Error, event::lookup::Redactions},
    matrix::{Event, redact},
};

/// Finds the edits of the targets of `links` and `redactions`, among `events` and the stored ones. Returns each edit
/// with the redaction, and adds it to `redactions`.
pub(in crate::archive) async fn edits(
    connection: &mut PgConnection,
    room_id: &str,
    events: &[&Event],
    links: &[(&str, &str)],
    redactions: &mut Redactions,
) -> Result<Vec<(String, String)>, Error> {
    let redacted_here = events.iter().map(|event| event.event_id.as_str());
    let redacted_here = redacted_here.filter(|event_id| redactions.contains_key(*event_id));
    let edited_here =
        events.iter().filter_map(|event| redact::edited(event)).filter(|id| redactions.contains_key(*id));
    let originals: HashSet<&str> =
        links.iter().map(|(target, _)| *target).chain(redacted_here).chain(edited_here).collect();
    if originals.is_empty() {
        return Ok(Vec::new());
    }
    let mut originals: Vec<String> = originals.into_iter().map(str::to_owned).collect();
    let mut senders: HashMap<String, String> =
        events.iter().map(|event| (event.event_id.clone(), event.sender.clone())).collect();
    let mut all = Vec::new();
    // An edit may itself have been edited, by a client that breaks the rules.
    while !originals.is_empty() {
        let stored = stored(connection, room_id, &originals, &mut senders).await?;
        let served = events.iter().filter_map(|event| {
            let original =
                redact::edited(event).filter(|id| originals.iter().any(|original| original == id))?;
            Some(Edit {
                event_id: event.event_id.clone(),
                original: original.to_owned(),
                sender: event.sender.clone(),
            })
        });
        let edits: Vec<Edit> = served.chain(stored).collect();
        originals.clear();
        for edit in edits {
            let Some(redaction) = redactions.get(&edit.original).cloned() else { continue };
            let is_own = senders.get(&edit.original) == Some(&edit.sender);
            if is_own && !redactions.contains_key(&edit.event_id) {
                redactions.insert(edit.event_id.clone(), redaction.clone());
                senders.insert(edit.event_id.clone(), edit.sender);
                originals.push(edit.event_id.clone());
                all.push((edit.event_id, redaction));
            }
        }
    }
    Ok(all)
}

/// An edit that is not redacted yet.
struct Edit {
    event_id: String,
    original: String,
    sender: String,
}

/// The stored edits of `originals`, by any sender. Adds the senders of stored originals to `senders`.
async fn stored(
    connection: &mut PgConnection,
    room_id: &str,
    originals: &[String],
    senders: &mut HashMap<String, String>,
) -> Result<Vec<Edit>, Error> {
    // Lateral with an offset, for the same reason as in `lookup::look_up`.
    let rows = sqlx::query!(
        r#"select original.event_id as "original!", o.sender as "original_sender?", edit.event_id as "event_id?",
                  edit.sender as "sender?"
           from unnest($2::text[]) as original (event_id)
           left join lateral (
               select e.sender from archive.events e
               where e.room_id = $1 and e.event_id = original.event_id
               limit 1
           ) as o on true
           left join lateral (
               select e.event_id, e.sender from archive.events e
               where e.room_id = $1 and e.relates_to = original.event_id and e.rel_type = 'm.replace' and e.state_key is null
                 and e.redacted_by is null
               offset 0
           ) as edit on true"#,
        room_id,
        originals
    )
    .fetch_all(connection)
    .await?;
    let mut edits = Vec::new();
    for row in rows {
        if let Some(sender) = row.original_sender {
            senders.insert(row.original.clone(), sender);
        }
        if let (Some(event_id), Some(sender)) = (row.event_id, row.sender) {
            edits.push(Edit { event_id, original: row.original, sender });
        }
    }
    Ok(edits)
}
