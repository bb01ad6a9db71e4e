//! Seals: a hash over the events of each room and day, which shows any later change of them.
//!
//! A room's seals are a list to which rows are only added. Each has the root of a [Merkle tree](tree) over the events of a
//! day, and continues the room's [chain]. A day whose events have changed since gets another seal, if each
//! change is explained: the event was stored since, or redacted, or erased, or the event before it was stored since.

mod by_day;
mod explain;
pub(crate) mod manifest;
pub(crate) mod tree;

use std::{collections::BTreeMap, pin::pin};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use self::tree::{Hash, Tree, chain};
use crate::{
    Error,
    archive::{
        self, Archive, Writer,
        seal::{NewSeal, Seal, SealedEvent},
        verification::Finding,
    },
};

/// How many bytes of new seals are stored together.
const MANY_BYTES: usize = 1 << 20;

/// The events of a day.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    /// `YYYY-MM-DD`; empty: their times cannot be represented.
    pub(crate) day: String,
    pub(crate) events: u64,
    pub(crate) root: Hash,
    /// The first eight bytes of each leaf.
    pub(crate) leaves: Vec<u8>,
}

/// The day whose events are being read.
#[derive(Debug, Default)]
pub(crate) struct Days {
    /// Days since 1970. `None`: its events have no time.
    day: Option<i64>,
    tree: Tree,
    leaves: Vec<u8>,
}

impl Days {
    /// Adds the leaf of the next event of a room. Returns the day before it, if it is the first of its day.
    pub(crate) fn add(&mut self, day: Option<i64>, leaf: Hash) -> Option<Day> {
        let done = if self.day == day { None } else { self.finish() };
        self.day = day;
        self.leaves.extend(tree::fingerprint(&leaf).to_be_bytes());
        self.tree.add(leaf);
        done
    }

    /// The last day, if there was an event.
    pub(crate) fn finish(&mut self) -> Option<Day> {
        let day = self.day.take().map_or_else(String::new, crate::text::date);
        let tree = std::mem::take(&mut self.tree);
        if tree.leaves() == 0 {
            return None;
        }
        let leaves = std::mem::take(&mut self.leaves);
        Some(Day { day, events: tree.leaves(), root: tree.root(), leaves })
    }
}

/// The days of a room. `events`: the room's, in the order of its seals.
fn days(
    events: impl Stream<Item = Result<SealedEvent, archive::Error>>,
) -> impl Stream<Item = Result<Day, archive::Error>> {
    let state = (Box::pin(events.fuse()), Days::default());
    stream::try_unfold(state, async |(mut events, mut days)| {
        while let Some(event) = events.try_next().await? {
            let before = event.event_before.as_deref();
            let leaf = leaf_of(event.is_placed, before, &event.event_id, &event.stable_sha256);
            if let Some(day) = days.add(event.day, leaf) {
                return Ok(Some((day, (events, days))));
            }
        }
        Ok(days.finish().map(|day| (day, (events, days))))
    })
}

fn leaf_of(is_placed: bool, before: Option<&str>, event_id: &str, stable_sha256: &[u8]) -> Hash {
    tree::leaf(is_placed.then_some(before.unwrap_or_default()), event_id, stable_sha256)
}

/// What the seals of a room say of its events.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// Number of sealed days.
    pub(crate) days: usize,
    /// Number of days that have no seal yet, or whose events have changed since for a known reason.
    pub(crate) unsealed: usize,
    /// The end of the chain, which proves all seals before it. `None`: the room was never sealed.
    pub(crate) chain: Option<Hash>,
    /// What has changed without a known reason, the first day first.
    pub(crate) findings: Vec<Finding>,
}

/// Compares the events of a room with its seals.
pub(crate) async fn check(archive: &Archive, room_id: &str) -> Result<Sealed, Error> {
    let seals = archive.seals(room_id).await?;
    if seals.is_empty() {
        return Ok(Sealed::default());
    }
    Room::new(archive, room_id, &seals).walk(None).await
}

/// Seals the days of a room that are not sealed yet, or whose events have changed since for a known reason. `accept`: also
/// those that have changed without one. The result says what was found before that.
pub(crate) async fn seal(writer: &Writer, room_id: &str, accept: bool) -> Result<Sealed, Error> {
    let archive = writer.archive();
    let seals = archive.seals(room_id).await?;
    let sealed_at = archive.now().await?;
    let room = Room::new(archive, room_id, &seals);
    room.walk(Some(Sealer { writer, accept, sealed_at, seals: Vec::new(), bytes: 0 })).await
}

/// A room whose days are compared with its seals.
struct Room<'a> {
    archive: &'a Archive,
    room_id: &'a str,
    /// The newest seal of each day that was not met yet.
    newest: BTreeMap<&'a str, &'a Seal>,
    sealed: Sealed,
}

impl<'a> Room<'a> {
    fn new(archive: &'a Archive, room_id: &'a str, seals: &'a [Seal]) -> Self {
        let newest: BTreeMap<_, _> = seals.iter().map(|seal| (seal.day.as_str(), seal)).collect();
        let mut sealed = Sealed { days: newest.len(), ..Sealed::default() };
        sealed.findings = broken(seals);
        sealed.chain = seals.last().and_then(|seal| seal.chain.as_slice().try_into().ok());
        Self { archive, room_id, newest, sealed }
    }

    async fn walk(mut self, mut sealer: Option<Sealer<'_>>) -> Result<Sealed, Error> {
        let mut days = pin!(days(self.archive.sealed_events(self.room_id)));
        while let Some(day) = days.try_next().await? {
            self.meet(day, sealer.as_mut()).await?;
        }
        for (day, seal) in std::mem::take(&mut self.newest) {
            if seal.event_count > 0 {
                let empty = Tree::default();
                let gone = Day { day: day.to_owned(), events: 0, root: empty.root(), leaves: Vec::new() };
                self.changed(gone, sealer.as_mut()).await?;
            }
        }
        if let Some(mut sealer) = sealer {
            sealer.store(self.room_id).await?;
        }
        Ok(self.sealed)
    }

    async fn meet(&mut self, day: Day, sealer: Option<&mut Sealer<'_>>) -> Result<(), Error> {
        match self.newest.remove(day.day.as_str()) {
            Some(seal) if seal.root == day.root && u64::try_from(seal.event_count) == Ok(day.events) => {
                Ok(())
            }
            Some(_) => self.changed(day, sealer).await,
            None => {
                self.sealed.unsealed += 1;
                self.add(day, sealer).await
            }
        }
    }

    async fn changed(&mut self, day: Day, sealer: Option<&mut Sealer<'_>>) -> Result<(), Error> {
        let found = explain::unexplained(self.archive, self.room_id, &day.day).await?;
        let is_explained = found.is_empty();
        self.sealed.findings.extend(found);
        if is_explained {
            self.sealed.unsealed += 1;
        }
        let sealer = sealer.filter(|sealer| is_explained || sealer.accept);
        self.add(day, sealer).await
    }

    async fn add(&mut self, day: Day, sealer: Option<&mut Sealer<'_>>) -> Result<(), Error> {
        let Some(sealer) = sealer else { return Ok(()) };
        let before = self.sealed.chain.as_ref().map_or(&[][..], |chain| &chain[..]);
        let chain = chain(before, &day.day, day.events, &day.root);
        self.sealed.chain = Some(chain);
        let seal = Seal {
            day: day.day,
            event_count: i64::try_from(day.events).unwrap_or(i64::MAX),
            root: day.root.to_vec(),
            chain: chain.to_vec(),
        };
        sealer.add(self.room_id, NewSeal { seal, leaves: day.leaves }).await
    }
}

/// Where the chain of a room's seals breaks.
fn broken(seals: &[Seal]) -> Vec<Finding> {
    let mut before: &[u8] = &[];
    let mut broken = Vec::new();
    for seal in seals {
        let events = u64::try_from(seal.event_count).unwrap_or(u64::MAX);
        if chain(before, &seal.day, events, &seal.root)[..] != seal.chain {
            broken.push(Finding {
                kind: "seal does not continue the chain".to_owned(),
                event_id: None,
                detail: Some(named(&seal.day).to_owned()),
            });
        }
        before = &seal.chain;
    }
    broken
}

/// The day as a reader sees it in the view `seals`.
fn named(day: &str) -> &str {
    if day.is_empty() { "-infinity" } else { day }
}

/// Collects new seals and stores them.
struct Sealer<'w> {
    writer: &'w Writer,
    accept: bool,
    sealed_at: String,
    seals: Vec<NewSeal>,
    bytes: usize,
}

impl Sealer<'_> {
    async fn add(&mut self, room_id: &str, seal: NewSeal) -> Result<(), Error> {
        self.bytes += seal.leaves.len() + 100;
        self.seals.push(seal);
        if self.bytes >= MANY_BYTES { self.store(room_id).await } else { Ok(()) }
    }

    async fn store(&mut self, room_id: &str) -> Result<(), Error> {
        if !self.seals.is_empty() {
            self.writer.keep_seals(room_id, &self.seals, &self.sealed_at).await?;
            (self.bytes, _) = (0, self.seals.drain(..));
        }
        Ok(())
    }
}
