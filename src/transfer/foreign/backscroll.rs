//! What `backscroll export` has written, for rooms that the archive has already: see [`transfer`](super::super).

use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BadInput, Collector, ForeignRoom, Input, created_version, scanner::Scanner};
use crate::transfer::{EVENTS, files::room_dir};

/// What is read of a line of `events.jsonl`.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    unsigned: Unsigned<'a>,
}

#[derive(Deserialize)]
struct Unsigned<'a> {
    #[serde(borrow, rename = "dev.backscroll")]
    extra: Extra<'a>,
}

#[derive(Deserialize)]
struct Extra<'a> {
    position: Option<i64>,
    #[serde(borrow)]
    raw: Option<std::borrow::Cow<'a, str>>,
}

/// Reads these rooms of an export, which was checked before.
pub(super) fn read(input: &mut Input, directory: &Path, room_ids: &[String]) -> Result<(), BadInput> {
    for room_id in room_ids {
        let file = room_dir(directory, room_id).join(format!("{EVENTS}.jsonl"));
        let mut scanner = Scanner::open(&file)?;
        let (mut timeline, mut others) = (Collector::new(&file), Collector::new(&file));
        let mut room_version = None;
        while scanner.next()?.is_some() {
            let start = scanner.mark();
            let event = scanner.object()?;
            if room_version.is_none() {
                room_version = created_version(&event);
            }
            let line: Result<Line<'_>, _> = serde_json::from_str(event.get());
            let line = line.map_err(|error| scanner.bad_at(start, error.to_string()))?;
            // Those without a position come last.
            let list = if line.unsigned.extra.position.is_some() { &mut timeline } else { &mut others };
            list.add(start, &event);
        }
        input.rooms.push(ForeignRoom {
            room_id: room_id.clone(),
            room_version,
            timeline: timeline.portions,
            others: others.portions,
        });
    }
    Ok(())
}

/// The exact bytes of an event, if the export has them.
pub(super) fn exact(event: &RawValue) -> Option<Box<RawValue>> {
    let line: Line<'_> = serde_json::from_str(event.get()).ok()?;
    RawValue::from_string(line.unsigned.extra.raw?.into_owned()).ok()
}
