//! Writes a manifest.

use std::{
    io::{self, Write},
    path::PathBuf,
    pin::pin,
};

use futures_util::{Stream, TryStreamExt as _};

use super::{Line, Sum, VERSION};
use crate::{
    Error,
    archive::{self, seal::SealedEvent},
    matrix::json::write_canonical_text,
    verify::seal::{
        Day, Days,
        by_day::ByDay,
        leaf_of,
        tree::{Hash, hex, push_hex},
    },
};

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
    let mut room = Room::begin(room_id, to)?;
    let mut text = String::new();
    let mut events = pin!(events);
    while let Some(event) = events.try_next().await.map_err(Error::from)? {
        let before = event.event_before.as_deref();
        let leaf = leaf_of(event.is_placed, before, &event.event_id, &event.stable_sha256);
        event_line(event.is_placed, before, &event.event_id, &event.stable_sha256, &mut text);
        room.event(event.day, leaf, text.as_bytes())?;
    }
    Ok(room.end()?)
}

/// The same for events that come in the order of the room, and not by day.
pub(crate) struct InOrder {
    by_day: ByDay,
    /// The event with the next lower position. Empty: there is none.
    before: String,
    text: String,
}

impl InOrder {
    /// `path`: where a file may be, for as long as this value lives.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { by_day: ByDay::new(path), before: String::new(), text: String::new() }
    }

    /// Adds an event: first those with a position, in its order, then the others in the order of their ids. `day`: since
    /// 1970, by the sender's clock, in UTC.
    pub(crate) fn add(
        &mut self,
        day: Option<i64>,
        event_id: &str,
        stable_sha256: &[u8],
        is_placed: bool,
    ) -> io::Result<()> {
        let before = Some(self.before.as_str());
        let leaf = leaf_of(is_placed, before, event_id, stable_sha256);
        event_line(is_placed, before, event_id, stable_sha256, &mut self.text);
        self.by_day.push(day, &[&leaf, self.text.as_bytes()])?;
        if is_placed {
            event_id.clone_into(&mut self.before);
        }
        Ok(())
    }

    /// Writes what the manifest has of the room.
    pub(crate) fn write(self, room_id: &str, to: &mut impl Write) -> io::Result<()> {
        let mut room = Room::begin(room_id, to)?;
        self.by_day.read(|day, record| match record.split_first_chunk() {
            Some((leaf, line)) => room.event(day, *leaf, line),
            None => Err(io::ErrorKind::InvalidData.into()),
        })?;
        room.end()
    }
}

/// A room whose lines are written.
struct Room<'a, W> {
    room_id: &'a str,
    days: Days,
    sum: Sum,
    to: &'a mut W,
}

impl<'a, W: Write> Room<'a, W> {
    fn begin(room_id: &'a str, to: &'a mut W) -> io::Result<Self> {
        write_line(to, &Line { room_id: Some(room_id.to_owned()), ..Line::default() })?;
        Ok(Self { room_id, days: Days::default(), sum: Sum::default(), to })
    }

    fn event(&mut self, day: Option<i64>, leaf: Hash, line: &[u8]) -> io::Result<()> {
        if let Some(day) = self.days.add(day, leaf) {
            self.day(&day)?;
        }
        self.to.write_all(line)
    }

    fn day(&mut self, day: &Day) -> io::Result<()> {
        self.sum.add(day);
        let line = Line {
            day: Some(day.day.clone()),
            events: Some(day.events),
            root: Some(hex(&day.root)),
            chain: self.sum.chain.as_ref().map(|chain| hex(chain)),
            ..Line::default()
        };
        write_line(self.to, &line)
    }

    fn end(mut self) -> io::Result<()> {
        if let Some(day) = self.days.finish() {
            self.day(&day)?;
        }
        let [days, events] = [self.sum.days, self.sum.events].map(Some);
        let room_end = Some(self.room_id.to_owned());
        write_line(self.to, &Line { room_end, days, events, ..Line::default() })
    }
}

/// The line of an event. There are as many as events, so they are written without a detour by [`Line`].
fn event_line(is_placed: bool, before: Option<&str>, event_id: &str, stable_sha256: &[u8], to: &mut String) {
    to.clear();
    to.push_str("{\"event_id\":");
    write_canonical_text(event_id, to);
    to.push_str(",\"stable_sha256\":\"");
    push_hex(stable_sha256, to);
    to.push('"');
    if is_placed {
        to.push_str(",\"before\":");
        write_canonical_text(before.unwrap_or_default(), to);
    }
    to.push_str("}\n");
}

fn write_line(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}
