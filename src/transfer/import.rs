//! Reads rooms from files.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Bad, ERASURES, EVENTS, FILES, HEADER, Header, MANIFEST, MANY_BYTES, ROOMS, SERVER_KEYS, VERSION,
    files::{self, Reader, RoomFiles, io_error, named, read_json},
    line::Line,
};
use crate::{
    Error,
    archive::{
        Writer,
        transfer::{Import, TABLES, Table},
    },
    verify::seal::manifest::{self, Manifest, Sum},
};

/// A room of an export, whose files were checked.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) room_id: String,
    pub(crate) events: u64,
    directory: PathBuf,
    files: RoomFiles,
    /// What the manifest says in sum. `None`: only a period was exported.
    sum: Option<Sum>,
}

/// What happened to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was imported.
    Imported,
    /// The archive has all of its events.
    There,
    /// The archive has the room, but lacks some of its events.
    Lacking,
}

/// The columns of `archive.rooms` that are needed before the room is imported.
#[derive(Deserialize)]
struct RoomRow {
    room_id: String,
    room_version: Option<String>,
}

/// Checks all files of an export before anything is imported: that they are whole, and that each event fits its hash.
/// `progress` gets the number of events.
pub(crate) fn check(directory: &Path, progress: impl Fn(u64)) -> Result<Vec<Checked>, Bad> {
    let path = directory.join(HEADER);
    let header: Header = read_json(&path)?;
    if header.backscroll_export != VERSION {
        let problem =
            format!("version {}, and this Backscroll reads version {VERSION}", header.backscroll_export);
        return Err(Bad::File { file: named(&path), problem });
    }
    let is_whole = header.since.is_none() && header.until.is_none();
    let rooms = directory.join(ROOMS);
    let mut places = Vec::new();
    for entry in fs::read_dir(&rooms).map_err(io_error(&rooms))? {
        let place = entry.map_err(io_error(&rooms))?.path();
        if place.extension().is_some_and(|extension| extension == "part") {
            let problem = "the export was interrupted; run it again to complete it".to_owned();
            return Err(Bad::File { file: named(&place), problem });
        }
        places.push(place);
    }
    places.sort_unstable();
    for name in [SERVER_KEYS, ERASURES] {
        all_lines(directory, name)?;
    }
    let (mut checked, mut events) = (Vec::new(), 0);
    for place in places {
        let room = check_room(directory, &place, is_whole, |read| progress(events + read))?;
        events += room.events;
        checked.push(room);
    }
    Ok(checked)
}

fn check_room(
    directory: &Path,
    place: &Path,
    is_whole: bool,
    progress: impl Fn(u64),
) -> Result<Checked, Bad> {
    let described: RoomFiles = read_json(&place.join(FILES))?;
    let known =
        |name: &str| [EVENTS, MANIFEST].contains(&name) || TABLES.iter().any(|table| table.name == name);
    if let Some(unknown) = described.keys().find(|name| !known(name)) {
        let problem = format!("this Backscroll knows no {unknown:?}; a newer one may have written it");
        return Err(Bad::File { file: named(&place.join(FILES)), problem });
    }
    let row = room_row(place)?;
    if files::room_dir(directory, &row.room_id) != place {
        let problem = "it names another room than its directory".to_owned();
        return Err(Bad::Line { file: named(&place.join("rooms.jsonl")), line: 1, problem });
    }
    for (name, file) in &described {
        // Events say themselves which line is bad.
        if name != EVENTS {
            files::check(place, name, file)?;
        }
    }
    let events = match described.get(EVENTS) {
        Some(file) => {
            let read = check_events(place, &row, progress)?;
            files::check(place, EVENTS, file)?;
            read
        }
        None => 0,
    };
    let sum = if is_whole { Some(check_manifest(place, &row.room_id, events)?) } else { None };
    Ok(Checked { room_id: row.room_id, events, directory: place.to_owned(), files: described, sum })
}

fn room_row(place: &Path) -> Result<RoomRow, Bad> {
    let mut reader = Reader::open(place, "rooms")?;
    let row = reader.next()?.map(serde_json::from_str);
    match row {
        Some(Ok(row)) => Ok(row),
        Some(Err(error)) => Err(reader.bad(error.to_string())),
        None => Err(reader.bad("the room's row is missing")),
    }
}

fn check_events(place: &Path, room: &RoomRow, progress: impl Fn(u64)) -> Result<u64, Bad> {
    let mut reader = Reader::open(place, EVENTS)?;
    let mut read = 0;
    while let Some(text) = reader.next()? {
        let wrong = match Line::read(text) {
            Ok(line) => line.wrong(&room.room_id, room.room_version.as_deref()).map(str::to_owned),
            Err(problem) => Some(problem),
        };
        if let Some(problem) = wrong {
            return Err(reader.bad(problem));
        }
        read += 1;
        if read % 1024 == 0 {
            progress(read);
        }
    }
    Ok(read)
}

fn check_manifest(place: &Path, room_id: &str, events: u64) -> Result<Sum, Bad> {
    let path = place.join(format!("{MANIFEST}.jsonl"));
    let file = fs::File::open(&path).map_err(io_error(&path))?;
    let read = || {
        let mut manifest = Manifest::open(BufReader::new(file))?;
        let named = manifest.next_room()?;
        Ok((named, manifest::read_room(&mut manifest)?))
    };
    let bad = |problem| Bad::File { file: named(&path), problem };
    let (named_room, sum) = read().map_err(|error: manifest::Bad| bad(error.to_string()))?;
    if named_room.as_deref() != Some(room_id) || sum.events != events {
        return Err(bad(format!("it does not fit {EVENTS}.jsonl")));
    }
    Ok(sum)
}

/// Imports a room, in one transaction. `progress` gets the number of events.
pub(crate) async fn import(
    writer: &Writer,
    room: &Checked,
    progress: impl Fn(u64),
) -> anyhow::Result<Outcome> {
    if writer.archive().is_archived(&room.room_id).await.map_err(Error::from)? {
        let is_lacking = is_lacking(writer, room).await?;
        return Ok(if is_lacking { Outcome::Lacking } else { Outcome::There });
    }
    let mut import = writer.import_room(&room.room_id).await.map_err(Error::from)?;
    match Box::pin(fill(&mut import, room, progress)).await {
        Ok(()) => {
            import.finish().await.map_err(Error::from)?;
            Ok(Outcome::Imported)
        }
        Err(error) => {
            import.undo().await;
            Err(error)
        }
    }
}

async fn fill(import: &mut Import<'_>, room: &Checked, progress: impl Fn(u64)) -> anyhow::Result<()> {
    for table in &TABLES {
        if room.files.contains_key(table.name) {
            insert_rows(import, room, table).await?;
        }
    }
    if room.files.contains_key(EVENTS) {
        insert_events(import, room, progress).await?;
    }
    if let Some(sum) = room.sum
        && manifest::sum(import.sealed_events()).await.map_err(Error::from)? != sum
    {
        return Err(contradiction(room, EVENTS, "the events are not those of its manifest").into());
    }
    let found = import.derive().await.map_err(Error::from)?;
    match found.first() {
        None => Ok(()),
        Some(finding) => {
            let event = finding.event_id.as_deref().unwrap_or_default();
            let detail = finding.detail.as_deref().unwrap_or_default();
            let problem = format!("its rows contradict each other: {} {event} {detail}", finding.kind);
            Err(contradiction(room, FILES, problem.trim_end()).into())
        }
    }
}

fn contradiction(room: &Checked, file: &str, problem: &str) -> Bad {
    Bad::File { file: named(&room.directory.join(file)), problem: problem.to_owned() }
}

async fn insert_rows(import: &mut Import<'_>, room: &Checked, table: &Table) -> anyhow::Result<()> {
    let mut reader = Reader::open(&room.directory, table.name)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    loop {
        let row = reader.next()?.map(str::to_owned);
        let is_end = row.is_none();
        if let Some(row) = row {
            bytes += row.len();
            rows.push(row);
        }
        if bytes >= MANY_BYTES || is_end && !rows.is_empty() {
            let inserted = import.insert_rows(table, &rows).await.map_err(Error::from)?;
            if inserted != rows.len() as u64 {
                return Err(reader.bad("one of the lines up to here belongs to another room").into());
            }
            (rows, bytes) = (Vec::new(), 0);
        }
        if is_end {
            return Ok(());
        }
    }
}

async fn insert_events(
    import: &mut Import<'_>,
    room: &Checked,
    progress: impl Fn(u64),
) -> anyhow::Result<()> {
    let mut reader = Reader::open(&room.directory, EVENTS)?;
    let mut rows = import.events().await.map_err(Error::from)?;
    let (mut sha256, mut read) = (Vec::new(), 0);
    while let Some(text) = reader.next()? {
        let line = match Line::read(text) {
            Ok(line) => line,
            Err(problem) => return Err(reader.bad(problem).into()),
        };
        rows.add(&line.event(&mut sha256)).await.map_err(Error::from)?;
        read += 1;
        if read % 1024 == 0 {
            progress(read);
        }
    }
    rows.finish().await.map_err(Error::from)?;
    Ok(())
}

/// Whether the archive lacks events of an export.
async fn is_lacking(writer: &Writer, room: &Checked) -> anyhow::Result<bool> {
    if !room.files.contains_key(EVENTS) {
        return Ok(false);
    }
    let mut reader = Reader::open(&room.directory, EVENTS)?;
    let mut event_ids = Vec::new();
    loop {
        let event_id = match reader.next()?.map(Line::read) {
            Some(Ok(line)) => Some(line.event_id.into_owned()),
            Some(Err(problem)) => return Err(reader.bad(problem).into()),
            None => None,
        };
        let is_end = event_id.is_none();
        event_ids.extend(event_id);
        if event_ids.len() >= 1000 || is_end {
            let missing =
                writer.archive().not_archived(&room.room_id, &event_ids).await.map_err(Error::from)?;
            if !missing.is_empty() || is_end {
                return Ok(!missing.is_empty());
            }
            event_ids.clear();
        }
    }
}

/// Imports what belongs to no room. Returns the users who were erased in the other archive, and of whom this one has
/// content.
pub(crate) async fn import_common(writer: &Writer, directory: &Path) -> anyhow::Result<Vec<String>> {
    let keys = all_lines(directory, SERVER_KEYS)?;
    writer.import_server_keys(&keys).await.map_err(Error::from)?;
    let erasures = all_lines(directory, ERASURES)?;
    Ok(writer.import_erasures(&erasures).await.map_err(Error::from)?)
}

/// The lines of a file, which are JSON objects. None, if there is no such file.
fn all_lines(directory: &Path, name: &str) -> Result<Vec<String>, Bad> {
    let mut lines = Vec::new();
    if !directory.join(format!("{name}.jsonl")).exists() {
        return Ok(lines);
    }
    let mut reader = Reader::open(directory, name)?;
    while let Some(line) = reader.next()?.map(str::to_owned) {
        if let Err(error) = serde_json::from_str::<BTreeMap<String, Value>>(&line) {
            return Err(reader.bad(error.to_string()));
        }
        lines.push(line);
    }
    Ok(lines)
}
