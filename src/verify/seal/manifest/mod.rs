//! Manifests: files that say which events an archive has, to be compared with another archive, or with the same one later.
//!
//! A manifest has a JSON object on each line. The first is `{"backscroll_manifest":1}`. Then each room has a line with its
//! `room_id`; for each event of a day a line with `event_id`, `stable_sha256` in hexadecimal, and, if the event has a
//! position, the event `before` it; after them a line with the `day`, the number of its `events`, the `root` of its
//! [tree] and the [chain] of the days so far; and at last a line with `room_end`, the id of
//! the room, and the number of its `days` and `events`. It says nothing that depends on the time when it is written.

mod compare;
mod write;

use std::{
    collections::HashMap,
    io::{self, BufRead, Seek, SeekFrom},
    pin::pin,
};

use futures_util::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    compare::compare,
    write::{InOrder, begin, write_room},
};
use super::{
    Day, days,
    tree::{self, Hash, Tree, chain, hex, unhex},
};
use crate::archive::{self, seal::SealedEvent};

/// The version of the format.
const VERSION: u32 = 1;
/// The longest line in bytes. An id has at most 255.
const LONGEST_LINE: u64 = 64 << 10;

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

/// What a manifest of these events would say in sum. `events`: a room's, in the order of its seals.
pub(crate) async fn sum(
    events: impl Stream<Item = Result<SealedEvent, archive::Error>>,
) -> Result<Sum, archive::Error> {
    let mut sum = Sum::default();
    let mut days = pin!(days(events));
    while let Some(day) = days.try_next().await? {
        sum.add(&day);
    }
    Ok(sum)
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
