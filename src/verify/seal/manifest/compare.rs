//! Compares an archive with a manifest.

use std::{
    collections::HashMap,
    io::{BufRead, Seek},
    pin::pin,
};

use futures_util::TryStreamExt as _;

use super::{Leaf, Manifest, Sum, WrittenDay, read_room};
use crate::{
    Error,
    archive::{
        self, Archive,
        seal::EventOfDay,
        verification::{Finding, VerifiedRoom},
    },
    text::count,
    verify::{
        report::{Level, Report},
        seal::{Day, days, named},
    },
};

/// How many findings of a kind are looked for in a day.
const MANY: usize = 1000;

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
        let mut sum = Sum::default();
        let mut written = manifest.next_day(&mut sum)?;
        let mut days = pin!(days(self.archive.sealed_events(self.room_id)));
        while let Some(day) = days.try_next().await.map_err(Error::from)? {
            written = self.meet(day, written, manifest, &mut sum).await?;
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
