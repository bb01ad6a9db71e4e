//! Events that differ between the list and the archive. The daemon may store, and people may redact, while the list is
//! read. So each of them is looked at once more before it counts.

use std::time::Duration;

use ruma::RoomId;

use super::{
    report::Report,
    room::{Verifier, is_denied},
};
use crate::{
    Error,
    archive::verification::{Extra, Finding, Running, StoredCopy, VerifiedRoom},
    matrix::{Event, redact},
};

/// How many are looked at once more. What is beyond counts as it is.
const MOST: usize = 1000;
/// How long a running daemon may take to store what is new.
const SOON: Duration = Duration::from_secs(3);

const MISSING: &str = "event missing";
const UNPLACED: &str = "event has no place in the order";
const DIFFERS: &str = "content differs";
const POORER: &str = "content was lost";
const NOT_REDACTED: &str = "redaction not applied";
const MORE: &str = "more events are missing or differ";
const UNKNOWN: &str = "event is unknown to the homeserver";

/// The findings that mean that the homeserver has events which the archive lacks.
pub(crate) const LACKING: [&str; 4] = [MISSING, UNPLACED, MORE, super::graph::ANCESTOR_MISSING];

/// The events to look at once more.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Event ids, and what seems to be wrong.
    events: Vec<(String, &'static str)>,
    /// How many more there are.
    more: usize,
}

impl Candidates {
    /// Compares an event of the list with the archive's copy.
    pub(super) fn note(&mut self, room: &VerifiedRoom, event: &Event, copy: Option<&StoredCopy>) {
        let Some(wrong) = wrong(room, event, copy) else { return };
        if self.events.len() < MOST {
            self.events.push((event.event_id.clone(), wrong));
        } else {
            self.more += 1;
        }
    }
}

/// What is wrong with the archive's copy of an event that the homeserver lists.
fn wrong(room: &VerifiedRoom, event: &Event, copy: Option<&StoredCopy>) -> Option<&'static str> {
    let Some(copy) = copy else { return Some(MISSING) };
    differs(room, event, copy).or_else(|| copy.position.is_none().then_some(UNPLACED))
}

/// Whether the archive's copy differs from the homeserver's, other than by a redaction or an erasure that the archive has
/// applied. The archive also redacts the edits of redacted messages, which the homeserver does not.
fn differs(room: &VerifiedRoom, event: &Event, copy: &StoredCopy) -> Option<&'static str> {
    if event.stable_sha256[..] == copy.stable_sha256 {
        return None;
    }
    let version = room.room_version.as_deref();
    let pruned = redact::pruned(&room.room_id, version, event);
    let is_pruned_copy = pruned.stable_sha256[..] == copy.stable_sha256 || !redact::knows(version);
    if copy.redacted_by.is_some() || copy.is_erased {
        return (!is_pruned_copy).then_some(DIFFERS);
    }
    if event.uncommon().redacted_by.is_some() {
        return Some(NOT_REDACTED);
    }
    Some(if pruned.stable_sha256[..] == copy.stable_sha256 { POORER } else { DIFFERS })
}

/// Looks at each once more and reports what is still wrong.
pub(super) async fn settle(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
    candidates: Candidates,
    report: &mut Report,
) -> Result<(), Error> {
    if !candidates.events.is_empty() {
        tokio::time::sleep(SOON).await;
    }
    for (event_id, wrong) in candidates.events {
        let copy = verifier.archive.stored_copy(&room.room_id, &event_id).await?;
        let still = match (wrong, &copy) {
            (_, None) => Some(MISSING),
            (MISSING, Some(_)) => None,
            (UNPLACED, Some(copy)) => copy.position.is_none().then_some(UNPLACED),
            (_, Some(copy)) => {
                match verifier.ask(async || verifier.client.event(room_id, &event_id).await).await {
                    Ok(Some(event)) => differs(room, &event, copy),
                    Ok(None) => Some(wrong),
                    Err(error) if is_denied(&error) => Some(wrong),
                    Err(error) => return Err(error),
                }
            }
        };
        if let Some(still) = still {
            report.find(Finding::new(still, &event_id, None));
        }
    }
    if candidates.more > 0 {
        report.find(Finding {
            kind: MORE.to_owned(),
            event_id: None,
            detail: Some(candidates.more.to_string()),
        });
    }
    Ok(())
}

/// Asks the homeserver for each event that is archived, but not listed.
pub(super) async fn extras(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
    running: &Running,
    report: &mut Report,
) -> Result<(), Error> {
    let (extras, count) = verifier.archive.extras(running, verifier.since.is_some()).await?;
    let (mut unlisted, mut only_here) = (0, count - i64::try_from(extras.len()).unwrap_or(i64::MAX));
    if only_here > 0 {
        report
            .note(format!("of the events that the homeserver lists no more, {only_here} were not asked for"));
    }
    let mut reasons = Vec::new();
    for extra in extras {
        let asked = verifier.ask(async || verifier.client.event(room_id, &extra.event_id).await).await;
        let copy = verifier.archive.stored_copy(&room.room_id, &extra.event_id).await?;
        match (asked, copy) {
            (Ok(Some(event)), Some(copy)) => match differs(room, &event, &copy) {
                Some(kind) => report.find(Finding::new(kind, &extra.event_id, None)),
                None => unlisted += 1,
            },
            (Ok(_), _) => unlisted += 1,
            (Err(error), _) if !is_denied(&error) => return Err(error),
            // A homeserver purges or hides what is old, and not one message among others.
            (Err(_), _) if extra.is_above_a_message && !room.may_hide_history && !extra.is_redacted => {
                report.find(Finding::new(
                    UNKNOWN,
                    &extra.event_id,
                    Some("it was forged, or removed there".to_owned()),
                ));
            }
            (Err(error), _) => {
                only_here += 1;
                let reason = why_only_here(&extra, &error);
                reasons.push((extra.event_id, Some(reason)));
                continue;
            }
        }
        reasons.push((extra.event_id, None));
    }
    report.only_here_count = only_here;
    if let Some(recorder) = verifier.recorder.filter(|_| verifier.since.is_none()) {
        recorder.record_only_here(running, &reasons).await?;
    }
    if only_here > 0 {
        report.note(format!(
            "{only_here} events are only here: the homeserver has purged them, or hides them, or they were imported"
        ));
    }
    if unlisted > 0 {
        report.note(format!("{unlisted} events are not in the homeserver's list, but it has them"));
    }
    Ok(())
}

/// As `archive.only_here` has it.
fn why_only_here(extra: &Extra, error: &Error) -> &'static str {
    match error {
        Error::Matrix(error) if error.is_forbidden() => "withheld",
        _ if extra.is_redacted => "redacted",
        _ if extra.is_expired => "expired",
        _ => "purged",
    }
}
