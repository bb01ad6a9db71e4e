//! Manifests: files that say which events an archive has, to be compared with another archive, or with the same one later.
//!
//! A manifest has a JSON object on each line. The first is `{"backscroll_manifest":1}`. Then each room has a line with its
//! `room_id`; for each event of a day a line with `event_id`, `stable_sha256` in hexadecimal, and, if the event has a
//! position, the event `before` it; after them a line with the `day`, the number of its `events`, the `root` of its
//! [tree] and the [chain] of the days so far; and at last a line with `room_end`, the id of
//! the room, and the number of its `days` and `events`. It says nothing that depends on the time when it is written.

use std::{
    collections::HashMap,
    io::{self, BufRead, Seek, SeekFrom, Write},
    pin::pin,
};

use futures_util::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::{
    Day, Days, named,
    tree::{self, Hash, Tree, chain, hex, push_hex, unhex},
};
use crate::{
    Error,
    archive::{
        self, Archive,
        seal::{EventOfDay, SealedEvent},
        verification::{Finding, VerifiedRoom},
    },
    matrix::json::write_canonical_text,
    text::count,
    verify::report::{Level, Report},
};

/// The version of the format.
const VERSION: u32 = 1;
/// The longest line in bytes. An id has at most 255.
const LONGEST_LINE: u64 = 64 << 10;
/// How many findings of a kind are looked for in a day.
const MANY: usize = 1000;

/// A line of a manifest.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    backscroll_manifest: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stable_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
}

/// What a manifest says of a room in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) days: u64,
    pub(crate) events: u64,
    /// The end of the chain of days. `None`: there is no event.
    pub(crate) chain: Option<Hash>,
}

impl Sum {
    fn add(&mut self, day: &Day) {
        let before = self.chain.as_ref().map_or(&[][..], |chain| &chain[..]);
        self.chain = Some(chain(before, &day.day, day.events, &day.root));
        self.days += 1;
        self.events += day.events;
    }
}

/// Begins a manifest.
pub(crate) fn begin(to: &mut impl Write) -> io::Result<()> {
    write_line(to, &Line { backscroll_manifest: Some(VERSION), ..Line::default() })
}

/// Writes what the manifest has of a room. `events`: the room's, in the order of its seals.
pub(crate) async fn write_room(
    events: impl Stream<Item = Result<SealedEvent, archive::Error>>,
    room_id: &str,
    to: &mut impl Write,
) -> anyhow::Result<()> {
    write_line(to, &Line { room_id: Some(room_id.to_owned()), ..Line::default() })?;
    let (mut days, mut sum, mut text) = (Days::default(), Sum::default(), String::new());
    let mut events = pin!(events);
    while let Some(event) = events.try_next().await.map_err(Error::from)? {
        if let Some(day) = days.add(&event) {
            write_day(to, &mut sum, &day)?;
        }
        write_event(to, &event, &mut text)?;
    }
    if let Some(day) = days.finish() {
        write_day(to, &mut sum, &day)?;
    }
    let [days, events] = [sum.days, sum.events].map(Some);
    write_line(to, &Line { room_end: Some(room_id.to_owned()), days, events, ..Line::default() })?;
    Ok(())
}

/// What a manifest of these events would say in sum.
pub(crate) async fn sum(
    events: impl Stream<Item = Result<SealedEvent, archive::Error>>,
) -> Result<Sum, archive::Error> {
    let (mut days, mut sum) = (Days::default(), Sum::default());
    let mut events = pin!(events);
    while let Some(event) = events.try_next().await? {
        if let Some(day) = days.add(&event) {
            sum.add(&day);
        }
    }
    if let Some(day) = days.finish() {
        sum.add(&day);
    }
    Ok(sum)
}

/// There are as many as events, so they are written without a detour by [`Line`].
fn write_event(to: &mut impl Write, event: &SealedEvent, text: &mut String) -> io::Result<()> {
    text.clear();
    text.push_str("{\"event_id\":");
    write_canonical_text(&event.event_id, text);
    text.push_str(",\"stable_sha256\":\"");
    push_hex(&event.stable_sha256, text);
    text.push('"');
    if event.is_placed {
        text.push_str(",\"before\":");
        write_canonical_text(event.event_before.as_deref().unwrap_or_default(), text);
    }
    text.push_str("}\n");
    to.write_all(text.as_bytes())
}

fn write_day(to: &mut impl Write, sum: &mut Sum, day: &Day) -> io::Result<()> {
    sum.add(day);
    let line = Line {
        day: Some(day.day.clone()),
        events: Some(day.events),
        root: Some(hex(&day.root)),
        chain: sum.chain.as_ref().map(|chain| hex(chain)),
        ..Line::default()
    };
    write_line(to, &line)
}

fn write_line(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    #[error("failed to read it: {0}")]
    Io(#[from] io::Error),
    #[error("line {line} is no line of a manifest: {problem}")]
    Line { line: u64, problem: String },
    #[error(
        "line {line} does not fit the lines before it: the {what} is another one. Somebody has edited the file"
    )]
    Contradiction { line: u64, what: &'static str },
    #[error("it ends in the middle, at line {line}")]
    Torn { line: u64 },
}

/// Reads a manifest.
pub(crate) struct Manifest<R> {
    from: R,
    /// Lines that were read.
    lines: u64,
}

/// The event of a line.
struct Leaf {
    event_id: String,
    stable_sha256: Vec<u8>,
    before: Option<String>,
}

/// A day of the manifest, and where its lines begin.
struct WrittenDay {
    day: Day,
    offset: u64,
    first_line: u64,
}

impl<R: BufRead + Seek> Manifest<R> {
    pub(crate) fn open(from: R) -> Result<Self, Bad> {
        let mut manifest = Self { from, lines: 0 };
        match manifest.next_line()?.and_then(|line| line.backscroll_manifest) {
            Some(VERSION) => Ok(manifest),
            Some(other) => {
                Err(manifest.bad(format!("version {other}, and this Backscroll reads version {VERSION}")))
            }
            None => Err(manifest.bad("a manifest begins with its version")),
        }
    }

    /// The next room. Its days must be read to their end before the next.
    pub(crate) fn next_room(&mut self) -> Result<Option<String>, Bad> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        line.room_id.map(Some).ok_or_else(|| self.bad("a room was expected"))
    }

    /// The next day of a room, which fits its root and the chain. `None`: the room has ended.
    fn next_day(&mut self, sum: &mut Sum) -> Result<Option<WrittenDay>, Bad> {
        let (offset, first_line) = (self.from.stream_position()?, self.lines);
        let mut tree = Tree::default();
        loop {
            let Some(line) = self.next_line()? else { return Err(Bad::Torn { line: self.lines }) };
            if line.room_end.is_some() && tree.leaves() == 0 {
                let ends = (line.days, line.events) == (Some(sum.days), Some(sum.events));
                return if ends { Ok(None) } else { Err(self.contradiction("number of events")) };
            }
            let Some(name) = line.day else {
                let leaf = self.leaf(line)?;
                tree.add(tree::leaf(leaf.before.as_deref(), &leaf.event_id, &leaf.stable_sha256));
                continue;
            };
            let day = Day { day: name, events: tree.leaves(), root: tree.root(), leaves: Vec::new() };
            sum.add(&day);
            let chain = sum.chain.as_ref().map(|chain| hex(chain));
            for (what, fits) in [
                ("number of events", line.events == Some(day.events)),
                ("root", line.root == Some(hex(&day.root))),
                ("chain", line.chain == chain),
            ] {
                if !fits {
                    return Err(self.contradiction(what));
                }
            }
            return Ok(Some(WrittenDay { day, offset, first_line }));
        }
    }

    /// Reads the events of a day again.
    fn leaves(&mut self, day: &WrittenDay) -> Result<HashMap<String, Leaf>, Bad> {
        let (offset, lines) = (self.from.stream_position()?, self.lines);
        self.from.seek(SeekFrom::Start(day.offset))?;
        self.lines = day.first_line;
        let mut leaves = HashMap::new();
        for _ in 0..day.day.events {
            let line = self.next_line()?.ok_or(Bad::Torn { line: self.lines })?;
            let leaf = self.leaf(line)?;
            leaves.insert(leaf.event_id.clone(), leaf);
        }
        self.from.seek(SeekFrom::Start(offset))?;
        self.lines = lines;
        Ok(leaves)
    }

    fn leaf(&self, line: Line) -> Result<Leaf, Bad> {
        let (Some(event_id), Some(hash)) = (line.event_id, line.stable_sha256) else {
            return Err(self.bad("an event or a day was expected"));
        };
        let stable_sha256 = unhex(&hash).ok_or_else(|| self.bad("stable_sha256 is not hexadecimal"))?;
        Ok(Leaf { event_id, stable_sha256, before: line.before })
    }

    fn next_line(&mut self) -> Result<Option<Line>, Bad> {
        let mut text = Vec::new();
        let read = io::Read::take(&mut self.from, LONGEST_LINE).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        self.lines += 1;
        if text.last() != Some(&b'\n') {
            return Err(Bad::Torn { line: self.lines });
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| self.bad(error.to_string()))
    }

    fn bad(&self, problem: impl Into<String>) -> Bad {
        Bad::Line { line: self.lines, problem: problem.into() }
    }

    fn contradiction(&self, what: &'static str) -> Bad {
        Bad::Contradiction { line: self.lines, what }
    }
}

/// What a manifest says of a room in sum, after a check that it does not contradict itself.
pub(crate) fn read_room<R: BufRead + Seek>(manifest: &mut Manifest<R>) -> Result<Sum, Bad> {
    let mut sum = Sum::default();
    while manifest.next_day(&mut sum)?.is_some() {}
    Ok(sum)
}

/// Compares the rooms of a manifest with the archive. `room_ids`: only these; empty: all.
pub(crate) async fn compare<R: BufRead + Seek>(
    archive: &Archive,
    manifest: &mut Manifest<R>,
    room_ids: &[String],
) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    while let Some(room_id) = manifest.next_room()? {
        if !room_ids.is_empty() && !room_ids.contains(&room_id) {
            read_room(manifest)?;
            continue;
        }
        let start = std::time::Instant::now();
        let known = match archive.rooms_to_verify(std::slice::from_ref(&room_id)).await {
            Err(archive::Error::NoSuchRoom(_)) => None,
            rooms => rooms.map_err(Error::from)?.pop(),
        };
        let is_known = known.is_some();
        let mut report = Report::new(&known.unwrap_or_else(|| VerifiedRoom::unknown(&room_id)));
        report.level = Level::Manifest;
        let sum = if is_known {
            let room = Room { archive, room_id: &room_id, report: &mut report, added: 0, changed: 0 };
            room.compare(manifest).await?
        } else {
            report.find(Finding { kind: "room is not archived".to_owned(), event_id: None, detail: None });
            read_room(manifest)?
        };
        report.listed_count = i64::try_from(sum.events).unwrap_or(i64::MAX);
        report.conclude(false, start.elapsed());
        reports.push(report);
    }
    Ok(reports)
}

/// A room that is compared with a manifest.
struct Room<'a> {
    archive: &'a Archive,
    room_id: &'a str,
    report: &'a mut Report,
    /// Events that the manifest does not have.
    added: u64,
    /// Events that were redacted, erased or replaced by a better copy, and that the manifest has otherwise.
    changed: u64,
}

impl Room<'_> {
    async fn compare<R: BufRead + Seek>(mut self, manifest: &mut Manifest<R>) -> anyhow::Result<Sum> {
        let (mut sum, mut days) = (Sum::default(), Days::default());
        let mut written = manifest.next_day(&mut sum)?;
        {
            let (archive, room_id) = (self.archive, self.room_id);
            let mut events = pin!(archive.sealed_events(room_id));
            loop {
                let event = events.try_next().await.map_err(Error::from)?;
                let day = match &event {
                    Some(event) => days.add(event),
                    None => days.finish(),
                };
                if let Some(day) = day {
                    written = self.meet(day, written, manifest, &mut sum).await?;
                }
                if event.is_none() {
                    break;
                }
            }
        }
        while let Some(day) = written {
            self.differ(&day, manifest).await?;
            written = manifest.next_day(&mut sum)?;
        }
        if self.added > 0 {
            self.report.note(format!("{} came after the manifest", count(self.added, "event")));
        }
        if self.changed > 0 {
            let changed = count(self.changed, "event");
            self.report.note(format!(
                "{changed} of the manifest were redacted or erased, or replaced by a better copy: their records are here"
            ));
        }
        Ok(sum)
    }

    /// Compares a day of the archive with the next days of the manifest. Returns the next one that is later.
    async fn meet<R: BufRead + Seek>(
        &mut self,
        day: Day,
        mut written: Option<WrittenDay>,
        manifest: &mut Manifest<R>,
        sum: &mut Sum,
    ) -> anyhow::Result<Option<WrittenDay>> {
        while let Some(other) = written.take_if(|other| is_earlier(&other.day.day, &day.day)) {
            self.differ(&other, manifest).await?;
            written = manifest.next_day(sum)?;
        }
        let Some(same) = written.take_if(|other| other.day.day == day.day) else {
            self.added += day.events;
            return Ok(written);
        };
        if (same.day.events, same.day.root) != (day.events, day.root) {
            self.differ(&same, manifest).await?;
        }
        Ok(manifest.next_day(sum)?)
    }

    /// Says in what a day differs.
    async fn differ<R: BufRead + Seek>(
        &mut self,
        written: &WrittenDay,
        manifest: &mut Manifest<R>,
    ) -> anyhow::Result<()> {
        let mut leaves = manifest.leaves(written)?;
        let day = &written.day.day;
        let mut pairs = Vec::new();
        let mut added = 0;
        let pair = |event: EventOfDay| match leaves.remove(&event.event_id) {
            Some(leaf) if is_same(&event, &leaf) => {}
            Some(leaf) => pairs.push((event, leaf)),
            None => added += 1,
        };
        self.archive.events_of_day(self.room_id, day, "-infinity", pair).await.map_err(Error::from)?;
        self.added += added;
        for (event, leaf) in pairs {
            self.compare_event(day, &event, &leaf).await?;
        }
        self.lost(day, leaves).await
    }

    async fn compare_event(&mut self, day: &str, event: &EventOfDay, leaf: &Leaf) -> anyhow::Result<()> {
        if event.stable_sha256 != leaf.stable_sha256 {
            if event.is_changed {
                self.changed += 1;
            } else {
                self.find("content differs from the manifest", &event.event_id, day);
            }
        }
        let is_in_place = match (event.position, leaf.before.as_deref()) {
            // It was placed since, or is the first of the manifest.
            (_, None) | (Some(_), Some("")) => true,
            (Some(_), Some(before)) if event.event_before.as_deref() == Some(before) => true,
            (Some(position), Some(before)) if self.report.finding_count < MANY => {
                let behind = self.archive.events_before(self.room_id, position).await.map_err(Error::from)?;
                behind.iter().any(|event_id| event_id == before)
            }
            _ => false,
        };
        if !is_in_place {
            self.find("order differs from the manifest", &event.event_id, day);
        }
        Ok(())
    }

    /// Events that the archive does not have on this day.
    async fn lost(&mut self, day: &str, leaves: HashMap<String, Leaf>) -> anyhow::Result<()> {
        let mut event_ids: Vec<String> = leaves.into_keys().collect();
        event_ids.sort_unstable();
        for some in event_ids.chunks(MANY) {
            let lacking = self.archive.not_archived(self.room_id, some).await.map_err(Error::from)?;
            for event_id in some {
                let is_lacking = lacking.contains(event_id);
                let kind = if is_lacking { "missing" } else { "time differs from the manifest" };
                self.find(kind, event_id, day);
            }
        }
        Ok(())
    }

    fn find(&mut self, kind: &str, event_id: &str, day: &str) {
        self.report.find(Finding::new(kind, event_id, Some(named(day).to_owned())));
    }
}

fn is_same(event: &EventOfDay, leaf: &Leaf) -> bool {
    let before = event.position.map(|_| event.event_before.as_deref().unwrap_or_default());
    event.stable_sha256 == leaf.stable_sha256 && before == leaf.before.as_deref()
}

/// Whether a day comes before another in a manifest. Years have four digits or more.
fn is_earlier(one: &str, other: &str) -> bool {
    (one.len(), one) < (other.len(), other)
}
