//! Reads what other programs have written, for `backscroll import --from`.
//!
//! [`Input::read`] reads all of it once and checks it, before anything is written. It remembers where
//! portions of events begin, so that [`import`] can read them again from the newest to the oldest, which is
//! how a walk stores them. So only one portion is in memory.

mod backscroll;
mod element;
mod gomuks;
mod scanner;
mod synapse;

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use ruma::RoomId;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use self::{
    gomuks::{Database, Rows},
    scanner::{Mark, Scanner},
};
use crate::{
    Exit,
    archive::{ImportSource, RoomImport, Writer},
    matrix::{
        Events, client_format,
        json::{Json, Text},
        parse_event,
    },
};

/// The most events of a portion, which one transaction stores.
const MOST_EVENTS: usize = 500;
/// A portion ends once it has more bytes than this.
const MANY_BYTES: usize = 1 << 20;

/// What is wrong with the input. The texts contain no content of events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadInput {
    /// It is not what it should be.
    #[error("{place}: {problem}; nothing was imported")]
    Content {
        /// The file.
        path: PathBuf,
        /// The file, and the line or the row of a table.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing says which room it is.
    #[error(
        "{}: no message names its room; name it with --room '!abc:example.org'; nothing was imported",
        .0.display()
    )]
    NoRoom(PathBuf),
    /// It is not as it was when it was checked.
    #[error("{}: it has changed while it was imported; run the same import again", .0.display())]
    Changed(PathBuf),
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BadInput {
    fn new(path: &Path, place: impl Into<Option<String>>, problem: impl Into<String>) -> Self {
        let place = place.into().map(|place| format!(", {place}")).unwrap_or_default();
        let place = format!("{}{place}", path.display());
        Self::Content { path: path.to_owned(), place, problem: problem.into() }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// The same error, at the second reading.
    fn again(self) -> Self {
        match self {
            Self::Content { path, .. } => Self::Changed(path),
            other => other,
        }
    }

    /// The exit code of a process that ends with this error.
    pub(crate) fn exit_code(&self) -> Exit {
        match self {
            Self::Content { .. } | Self::Changed(_) => Exit::Stalled,
            Self::NoRoom(_) => Exit::Usage,
            Self::Io { .. } => Exit::Io,
        }
    }
}

/// An import has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// The input.
    #[error(transparent)]
    Input(#[from] BadInput),
    /// The database.
    #[error("failed to {0}")]
    Archive(#[from] crate::archive::Error),
}

/// A portion of a room's events, oldest first.
#[derive(Debug)]
enum Portion {
    /// Events that follow each other in a file.
    Text { file: Rc<Path>, start: Mark, count: usize },
    /// Rows of gomuks's database.
    Rows(Rows),
}

/// A room of the input.
#[derive(Debug)]
struct ForeignRoom {
    room_id: String,
    /// What its create event says.
    room_version: Option<String>,
    /// The room's timeline, oldest first.
    timeline: Vec<Portion>,
    /// Other events, of which the input does not say where they belong.
    others: Vec<Portion>,
}

/// An input that was read and checked.
pub(crate) struct Input {
    source: ImportSource,
    rooms: Vec<ForeignRoom>,
    /// The number of events.
    pub(crate) event_count: u64,
    database: Option<Database>,
}

/// What an import has done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Rooms.
    pub(crate) rooms: u64,
    /// Events that were read, and what became of them. The others were known already.
    pub(crate) read: u64,
    /// New events.
    pub(crate) stored: u64,
    /// Events that cannot be read, that contradict the homeserver, or that belong to an erased room.
    pub(crate) set_aside: u64,
}

impl Input {
    /// Reads and checks all of it. `room_id`: the room of an Element file that does not name its room; of
    /// other inputs, the only room to take.
    pub(crate) async fn read(
        source: ImportSource,
        path: &Path,
        room_id: Option<&RoomId>,
    ) -> Result<Self, BadInput> {
        let mut input = Self { source, rooms: Vec::new(), event_count: 0, database: None };
        match source {
            // Its rooms are chosen by `read_export`.
            ImportSource::BackscrollExport => {}
            ImportSource::SynapseExport => synapse::read(&mut input, path)?,
            ImportSource::ElementJson => element::read(&mut input, path, room_id)?,
            ImportSource::Gomuks => {
                let mut database = Database::open(path).await?;
                database.read(&mut input).await?;
                input.database = Some(database);
            }
        }
        if let Some(room_id) = room_id {
            let has_rooms = !input.rooms.is_empty();
            input.rooms.retain(|room| room.room_id == room_id.as_str());
            if input.rooms.is_empty() && has_rooms {
                return Err(BadInput::new(path, None, format!("it has no event of the room {room_id}")));
            }
        }
        input.count();
        Ok(input)
    }

    /// The same of rooms of an export of Backscroll.
    pub(crate) fn read_export(directory: &Path, room_ids: &[String]) -> Result<Self, BadInput> {
        let source = ImportSource::BackscrollExport;
        let mut input = Self { source, rooms: Vec::new(), event_count: 0, database: None };
        backscroll::read(&mut input, directory, room_ids)?;
        input.count();
        Ok(input)
    }

    fn count(&mut self) {
        let portions = self.rooms.iter().flat_map(|room| room.timeline.iter().chain(&room.others));
        self.event_count = portions.map(|portion| portion.count() as u64).sum();
    }

    /// The events of a portion, oldest first.
    async fn portion(&mut self, room: usize, portion: PortionOf) -> Result<Vec<Box<RawValue>>, BadInput> {
        let Some(room) = self.rooms.get(room) else { return Ok(Vec::new()) };
        let portion = match portion {
            PortionOf::Timeline(index) => room.timeline.get(index),
            PortionOf::Others(index) => room.others.get(index),
        };
        match (portion, &mut self.database) {
            (Some(Portion::Text { file, start, count }), _) => text(file, *start, *count),
            (Some(Portion::Rows(rows)), Some(database)) => database.events(&room.room_id, rows).await,
            _ => Ok(Vec::new()),
        }
        .map_err(BadInput::again)
    }
}

/// Which portion of a room.
#[derive(Clone, Copy)]
enum PortionOf {
    Timeline(usize),
    Others(usize),
}

impl Portion {
    fn count(&self) -> usize {
        match self {
            Self::Text { count, .. } => *count,
            Self::Rows(rows) => rows.count,
        }
    }
}

/// Events of a file, which was checked before.
fn text(file: &Path, start: Mark, count: usize) -> Result<Vec<Box<RawValue>>, BadInput> {
    let mut scanner = Scanner::open_at(file, start)?;
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        scanner.takes(b',')?;
        events.push(scanner.object()?);
    }
    Ok(events)
}

/// Collects the events of a file into portions.
#[derive(Debug)]
struct Collector {
    file: Rc<Path>,
    portions: Vec<Portion>,
    bytes: usize,
}

impl Collector {
    fn new(file: &Path) -> Self {
        Self { file: file.into(), portions: Vec::new(), bytes: 0 }
    }

    /// Adds the event that begins at `start`.
    fn add(&mut self, start: Mark, event: &RawValue) {
        let bytes = event.get().len();
        match self.portions.last_mut() {
            Some(Portion::Text { count, .. }) if *count < MOST_EVENTS && self.bytes < MANY_BYTES => {
                *count += 1;
                self.bytes += bytes;
            }
            _ => {
                self.portions.push(Portion::Text { file: Rc::clone(&self.file), start, count: 1 });
                self.bytes = bytes;
            }
        }
    }
}

/// The room version, if this is the room's create event.
fn created_version(event: &RawValue) -> Option<String> {
    const CREATE: &str = "m.room.create";
    if !event.get().contains(CREATE) {
        return None;
    }
    let event = Json::parse(event.get());
    let text =
        |json: &Json<'_>, name: &str| json.get(name)?.as_text().and_then(Text::as_str).map(str::to_owned);
    if text(&event, "type").as_deref() != Some(CREATE) || text(&event, "state_key").as_deref() != Some("") {
        return None;
    }
    // Room version 1 had no name yet.
    let named = event.get("content").and_then(|content| text(content, "room_version"));
    Some(named.unwrap_or_else(|| "1".to_owned()))
}

fn is_room_id(text: &str) -> bool {
    <&RoomId>::try_from(text).is_ok()
}

/// Stores the input. Stops after a portion once `shutdown` is cancelled. `progress` is called after each
/// portion.
pub(crate) async fn import(
    writer: &Writer,
    input: &mut Input,
    shutdown: &CancellationToken,
    mut progress: impl FnMut(&Done),
) -> Result<Done, Failed> {
    let mut done = Done::default();
    for index in 0..input.rooms.len() {
        let room = &input.rooms[index];
        let (timeline, others) = (room.timeline.len(), room.others.len());
        done.rooms += 1;
        let begun = writer.begin_import(input.source, &room.room_id, room.room_version.as_deref()).await?;
        let Some(mut at) = begun else {
            let portions = room.timeline.iter().chain(&room.others);
            let count: u64 = portions.map(|portion| portion.count() as u64).sum();
            tracing::warn!(room.id = %room.room_id, event_count = count, "the room was erased and is not imported");
            (done.read, done.set_aside) = (done.read + count, done.set_aside + count);
            continue;
        };
        let newest_first = || (0..timeline).rev().map(PortionOf::Timeline);
        if at.has_timeline {
            for portion in newest_first() {
                let events = read(input, index, portion, &at).await?;
                if writer.begin_import_above(&mut at, &events).await? {
                    break;
                }
            }
        }
        for portion in (0..others).map(PortionOf::Others).chain(newest_first()) {
            if shutdown.is_cancelled() {
                return Ok(done);
            }
            let events = read(input, index, portion, &at).await?;
            let in_timeline = matches!(portion, PortionOf::Timeline(_));
            let imported = writer.import(&mut at, &events, in_timeline).await?;
            done.read += (events.events.len() + events.malformed.len()) as u64;
            done.stored += imported.stored as u64;
            done.set_aside += imported.set_aside as u64;
            progress(&done);
        }
    }
    Ok(done)
}

/// The events of a portion, newest first, as the archive stores them.
async fn read(
    input: &mut Input,
    room: usize,
    portion: PortionOf,
    at: &RoomImport,
) -> Result<Events, BadInput> {
    let raws = input.portion(room, portion).await?;
    let mut events = Events::default();
    for raw in raws.into_iter().rev() {
        let converted = match input.source {
            ImportSource::SynapseExport => client_format(&at.room_id, at.room_version.as_deref(), &raw),
            ImportSource::BackscrollExport => backscroll::exact(&raw),
            ImportSource::ElementJson | ImportSource::Gomuks => None,
        };
        match parse_event(&at.room_id, converted.as_deref().unwrap_or(&raw)) {
            Ok(event) => events.events.push(event),
            Err(malformed) => events.malformed.push(malformed),
        }
    }
    Ok(events)
}

impl Failed {
    /// The exit code of a process that ends with this error.
    pub(crate) fn exit_code(&self) -> Exit {
        match self {
            Self::Input(error) => error.exit_code(),
            Self::Archive(error) => error.exit_code(),
        }
    }
}
