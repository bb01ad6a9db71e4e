//! Sorts records by their days in little memory. Sorted runs wait in a file and are merged at the end. Records that come by
//! day already are written and read once.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

/// How many bytes of records are sorted in memory at first: few, so that they stay in the processor's cache.
const FIRST_RUN: usize = 512 << 10;
/// And at most: after each 64 runs twice as many, so that runs do not become too many to be merged.
const LONGEST_RUN: usize = 8 << 20;
/// How many bytes of a run are read at once.
const READ: usize = 32 << 10;
/// The key of records without a day, which come first. No day has this number.
const NO_DAY: i64 = i64::MIN;

/// Records that are being collected.
pub(crate) struct ByDay {
    path: PathBuf,
    /// `None`: no run was written yet.
    file: Option<File>,
    /// Where each run of the file ends, and its last day.
    runs: Vec<(u64, i64)>,
    /// The records since then: the day and the length of each, followed by its bytes.
    bytes: Vec<u8>,
    /// Their days, and where they begin.
    records: Vec<(i64, usize)>,
}

impl ByDay {
    /// `path`: where the file is made, if there are many records. It is deleted at once, and lives as long as this value.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, runs: Vec::new(), bytes: Vec::new(), records: Vec::new() }
    }

    /// Adds a record, which has less than 4 GiB. `day`: days since 1970.
    pub(crate) fn push(&mut self, day: Option<i64>, parts: &[&[u8]]) -> io::Result<()> {
        let day = day.unwrap_or(NO_DAY);
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.records.push((day, self.bytes.len()));
        self.bytes.extend_from_slice(&day.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let many = FIRST_RUN.checked_shl(u32::try_from(self.runs.len() / 64).unwrap_or(u32::MAX));
        let many = many.map_or(LONGEST_RUN, |many| many.min(LONGEST_RUN));
        if self.bytes.len() < many { Ok(()) } else { self.write_run() }
    }

    /// Calls `each` with the records by their days, those without one first. Those of a day come in the order in which
    /// they were added.
    pub(crate) fn read(
        mut self,
        mut each: impl FnMut(Option<i64>, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.file.is_some() {
            self.write_run()?;
        } else {
            self.sort();
        }
        let mut runs: Vec<Run<'_>> = match &self.file {
            Some(file) => Run::all(file, &self.runs),
            None => vec![Run::new(Box::new(self.bytes.as_slice()), self.bytes.len() as u64)],
        };
        let mut next = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            // Of equal days, the earlier run comes first.
            next.extend(run.next_day()?.map(|day| Reverse((day, number))));
        }
        let mut record = Vec::new();
        while let Some(mut first) = next.peek_mut() {
            let Reverse((day, number)) = *first;
            let Some(run) = runs.get_mut(number) else { break };
            run.record(&mut record)?;
            each((day != NO_DAY).then_some(day), &record)?;
            match run.next_day()? {
                Some(day) => *first = Reverse((day, number)),
                None => drop(PeekMut::pop(first)),
            }
        }
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.sort();
        if self.file.is_none() {
            let mut options = File::options();
            self.file = Some(options.read(true).write(true).create_new(true).mode(0o600).open(&self.path)?);
            fs::remove_file(&self.path)?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.bytes)?;
        }
        let end = self.runs.last().map_or(0, |(end, _)| *end) + self.bytes.len() as u64;
        let days = self.records.iter().map(|(day, _)| *day);
        if let (Some(first), Some(last)) = (days.clone().min(), days.max()) {
            match self.runs.last_mut() {
                // It goes on where the run before it ended.
                Some(run) if run.1 <= first => *run = (end, last),
                _ => self.runs.push((end, last)),
            }
        }
        self.bytes.clear();
        self.records.clear();
        Ok(())
    }

    fn sort(&mut self) {
        if self.records.is_sorted_by_key(|(day, _)| *day) {
            return;
        }
        let ends = self.records.iter().skip(1).map(|(_, begin)| *begin).chain([self.bytes.len()]);
        let mut records: Vec<_> = self.records.iter().copied().zip(ends).collect();
        records.sort_by_key(|((day, _), _)| *day);
        let mut sorted = Vec::with_capacity(self.bytes.len());
        for ((_, begin), end) in records {
            sorted.extend_from_slice(self.bytes.get(begin..end).unwrap_or_default());
        }
        self.bytes = sorted;
    }
}

/// A run that is being read.
struct Run<'f> {
    from: Box<dyn Read + 'f>,
    /// Bytes that are left.
    left: u64,
    /// The length of the next record.
    length: u32,
}

impl<'f> Run<'f> {
    fn new(from: Box<dyn Read + 'f>, left: u64) -> Self {
        Self { from, left, length: 0 }
    }

    fn all(file: &'f File, runs: &[(u64, i64)]) -> Vec<Self> {
        let mut offset = 0;
        let runs = runs.iter().map(|(end, _)| {
            let from = BufReader::with_capacity(READ, At { file, offset });
            let run = Self::new(Box::new(from), end - offset);
            offset = *end;
            run
        });
        runs.collect()
    }

    /// The day of the next record. `None`: there is none.
    fn next_day(&mut self) -> io::Result<Option<i64>> {
        if self.left == 0 {
            return Ok(None);
        }
        let (mut day, mut length) = ([0; 8], [0; 4]);
        self.from.read_exact(&mut day)?;
        self.from.read_exact(&mut length)?;
        self.length = u32::from_le_bytes(length);
        self.left = self.left.saturating_sub(12 + u64::from(self.length));
        Ok(Some(i64::from_le_bytes(day)))
    }

    fn record(&mut self, record: &mut Vec<u8>) -> io::Result<()> {
        record.clear();
        self.from.by_ref().take(self.length.into()).read_to_end(record)?;
        Ok(())
    }
}

/// Reads a file from an offset on.
struct At<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of 100 KiB, so that there are several runs, or of a byte; by day, and not.
    #[test]
    fn records_come_by_day_in_their_order() {
        for (size, is_sorted) in [(1, false), (100 << 10, false), (100 << 10, true)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("sorted");
            let mut random = fastrand::Rng::with_seed(7);
            let mut by_day = ByDay::new(path.clone());
            let mut wanted = Vec::new();
            for number in 0..50_u8 {
                let day = if is_sorted { i64::from(number / 10) } else { random.i64(-2..3) };
                let day = (day > -2).then_some(day);
                by_day.push(day, &[&[number], &vec![number; size - 1]]).unwrap();
                wanted.push((day, number));
            }
            let runs = if size == 1 {
                0..1
            } else if is_sorted {
                1..2
            } else {
                4..50
            };
            assert!(runs.contains(&by_day.runs.len()), "{} runs", by_day.runs.len());
            assert!(!path.exists(), "the file has no name");
            wanted.sort_by_key(|(day, _)| *day);
            let mut read = Vec::new();
            let each = |day, record: &[u8]| {
                assert_eq!(record, vec![record[0]; size]);
                read.push((day, record[0]));
                Ok(())
            };
            by_day.read(each).unwrap();
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        ByDay::new(PathBuf::from("/nowhere")).read(|_, _| panic!("no record")).unwrap();
    }
}
