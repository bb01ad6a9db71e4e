//! The current state of a room, compared with the homeserver's.

use std::{collections::HashMap, time::Duration};

use ruma::RoomId;

use super::{
    report::Report,
    room::{Verifier, is_denied},
};
use crate::{
    Error,
    archive::verification::{Finding, VerifiedRoom},
};

/// How long a running daemon may take to store what is new.
const SOON: Duration = Duration::from_secs(3);

const DIFFERS: &str = "state differs";

/// The findings that mean that the current state is wrong, or may be.
pub(crate) const STATE: [&str; 3] = [DIFFERS, "state without event", "state moved without record"];

type Key = (String, String);

/// Where the two differ: the archive's event and the homeserver's.
type Differences = HashMap<Key, (Option<String>, Option<String>)>;

/// Compares the two. Where they differ, both are read once more: the state may have changed in between.
pub(super) async fn compare(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
    report: &mut Report,
) -> Result<(), Error> {
    let mut differences = match differences(verifier, room, room_id).await {
        Err(error) if is_denied(&error) => {
            report.note("the homeserver does not give the room's state, so that was not compared");
            return Ok(());
        }
        differences => differences?,
    };
    if !differences.is_empty() {
        tokio::time::sleep(SOON).await;
        let again = self::differences(verifier, room, room_id).await?;
        differences.retain(|key, _| again.contains_key(key));
        for (key, now) in again {
            differences.entry(key).and_modify(|before| *before = now);
        }
    }
    let mut differences: Vec<_> = differences.into_iter().collect();
    differences.sort();
    for ((event_type, state_key), (ours, theirs)) in differences {
        let key = if state_key.is_empty() { event_type } else { format!("{event_type} {state_key}") };
        let theirs = theirs.map_or_else(|| "none".to_owned(), |event_id| format!("event {event_id}"));
        report.find(Finding {
            kind: DIFFERS.to_owned(),
            event_id: ours,
            detail: Some(format!("{key}: the homeserver has {theirs}")),
        });
    }
    Ok(())
}

async fn differences(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
) -> Result<Differences, Error> {
    let state = verifier.ask(async || verifier.client.state(room_id).await).await?;
    let theirs: HashMap<Key, String> = state
        .events
        .into_iter()
        .filter_map(|event| Some(((event.event_type, event.state_key?), event.event_id)))
        .collect();
    let ours = verifier.archive.state_to_verify(&room.room_id).await?;
    let keys = ours.keys().chain(theirs.keys());
    let differing = keys.filter(|key| ours.get(*key) != theirs.get(*key));
    Ok(differing.map(|key| (key.clone(), (ours.get(key).cloned(), theirs.get(key).cloned()))).collect())
}
