//! What Synapse's command `export-data` writes: for each room a file `rooms/<id>/events` with its timeline,
//! and files in
//! `rooms/<id>/state/` with the state at the edges of what the user may see. In each, one event follows the other with
//! nothing between them, in the federation format: without ids from room version 3 on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    BadInput, Collector, ForeignRoom, Input, Portion, created_version, is_room_id, scanner::Scanner,
};

/// Reads and checks all of it.
pub(super) fn read(input: &mut Input, directory: &Path) -> Result<(), BadInput> {
    let of_rooms = directory.join("rooms");
    if !of_rooms.is_dir() {
        fs::metadata(directory).map_err(|error| BadInput::io(directory, error))?;
        let problem = "it is no directory that Synapse's export-data has written: it has no folder `rooms`";
        return Err(BadInput::new(directory, None, problem));
    }
    for folder in entries(&of_rooms)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !is_room_id(name) {
            return Err(BadInput::new(&folder, None, "the folder's name is no room id"));
        }
        let mut room = ForeignRoom {
            room_id: name.to_owned(),
            room_version: None,
            timeline: Vec::new(),
            others: Vec::new(),
        };
        let state = folder.join("state");
        for file in if state.is_dir() { entries(&state)? } else { Vec::new() } {
            let events = events(&file, &mut room.room_version)?;
            room.others.extend(events);
        }
        let timeline = folder.join("events");
        if timeline.exists() {
            room.timeline = events(&timeline, &mut room.room_version)?;
        }
        input.rooms.push(room);
    }
    Ok(())
}

/// What is in a directory, by name.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, BadInput> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut entries = entries.map_err(|error| BadInput::io(directory, error))?;
    entries.sort();
    Ok(entries)
}

/// The events of a file. Sets the room version if the create event is among them.
fn events(file: &Path, room_version: &mut Option<String>) -> Result<Vec<Portion>, BadInput> {
    let mut scanner = Scanner::open(file)?;
    let mut collector = Collector::new(file);
    while scanner.next()?.is_some() {
        let start = scanner.mark();
        let event = scanner.object()?;
        if room_version.is_none() {
            *room_version = created_version(&event);
        }
        collector.add(start, &event);
    }
    Ok(collector.portions)
}
