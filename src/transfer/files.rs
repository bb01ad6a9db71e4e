//! The files of an export.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender},
    thread::{self, JoinHandle},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Bad, FILES, ROOMS};
use crate::{text::escape, verify::seal::tree::hex};

/// The longest line in bytes. An event has at most 16 MiB, and each byte may need six.
const LONGEST_LINE: u64 = 256 << 20;
/// How many bytes are written at once.
const BUFFER: usize = 256 << 10;
/// How many times as many bytes may wait to be written.
const QUEUED: usize = 4;
/// The longest name of a directory that every file system has.
const LONGEST_NAME: usize = 200;

/// What is known of a file of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    pub(super) lines: u64,
    pub(super) sha256: String,
}

/// The files of a room, by their names without `.jsonl`.
pub(super) type RoomFiles = BTreeMap<String, Described>;

/// The name of a file for messages.
pub(super) fn named(path: &Path) -> String {
    escape(&path.display().to_string()).into_owned()
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Bad + '_ {
    move |source| Bad::Io { file: named(path), source }
}

/// The directory of a room within an export.
pub(super) fn room_dir(export: &Path, room_id: &str) -> PathBuf {
    let mut name = String::new();
    for byte in room_id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.len() > LONGEST_NAME {
        name.truncate(LONGEST_NAME - 65);
        let _ = write!(name, "~{}", hex(&Sha256::digest(room_id)));
    }
    export.join(ROOMS).join(name)
}

/// Makes a directory that only its owner may read, because messages will be in it.
pub(super) fn make_dir(path: &Path) -> Result<(), Bad> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

/// Writes lines, and knows their hash at the end.
pub(super) struct Lines {
    path: PathBuf,
    to: BufWriter<InThread>,
    lines: u64,
}

struct Hashing<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Hashes and writes in a thread of its own: that takes as long as reading the database and making the lines.
struct InThread {
    to: Option<SyncSender<Vec<u8>>>,
    /// `None`: it was waited for.
    thread: Option<JoinHandle<io::Result<Hashing<File>>>>,
}

impl InThread {
    fn start(file: File) -> io::Result<Self> {
        let (to, from) = mpsc::sync_channel::<Vec<u8>>(QUEUED);
        let write = move || {
            let mut to = Hashing { to: file, hasher: Sha256::new() };
            from.into_iter().try_for_each(|bytes| to.write_all(&bytes))?;
            to.to.sync_all()?;
            Ok(to)
        };
        let thread = thread::Builder::new().name("export".to_owned()).spawn(write)?;
        Ok(Self { to: Some(to), thread: Some(thread) })
    }

    /// Waits until everything is on the disk. Returns the hash.
    fn finish(&mut self) -> io::Result<String> {
        self.to = None;
        let written = self.thread.take().map(JoinHandle::join);
        let Some(Ok(written)) = written else {
            return Err(io::Error::other("the thread that writes failed"));
        };
        Ok(hex(&written?.hasher.finalize()))
    }
}

impl Write for InThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.to.as_ref().is_some_and(|to| to.send(bytes.to_vec()).is_ok());
        if sent {
            return Ok(bytes.len());
        }
        // The thread ends early only with an error.
        Err(self.finish().err().unwrap_or_else(|| io::Error::other("the thread that writes has ended")))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(super) fn create(dir: &Path, name: &str) -> Result<Self, Bad> {
        let path = dir.join(format!("{name}.jsonl"));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let to = file.and_then(InThread::start).map_err(io_error(&path))?;
        Ok(Self { path, to: BufWriter::with_capacity(BUFFER, to), lines: 0 })
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), Bad> {
        let written = self.to.write_all(line).and_then(|()| self.to.write_all(b"\n"));
        self.lines += 1;
        written.map_err(io_error(&self.path))
    }

    /// Writes the file to the disk. `None`: it had no line, and was removed.
    pub(super) fn finish(mut self) -> Result<Option<Described>, Bad> {
        let path = self.path;
        let written = self.to.flush().and_then(|()| self.to.get_mut().finish());
        let sha256 = written.map_err(io_error(&path))?;
        if self.lines == 0 {
            fs::remove_file(&path).map_err(io_error(&path))?;
            return Ok(None);
        }
        Ok(Some(Described { lines: self.lines, sha256 }))
    }

    pub(super) fn writer(&mut self) -> Counting<'_> {
        Counting(self)
    }
}

/// Writes the lines of somebody who writes the line ends, too.
pub(super) struct Counting<'l>(&'l mut Lines);

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.to.write(bytes)?;
        self.0.lines += memchr::memchr_iter(b'\n', &bytes[..written]).count() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.to.flush()
    }
}

/// Reads lines.
pub(super) struct Reader {
    path: PathBuf,
    from: BufReader<File>,
    line: u64,
    text: Vec<u8>,
}

impl Reader {
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self, Bad> {
        let path = dir.join(format!("{name}.jsonl"));
        let file = File::open(&path).map_err(io_error(&path))?;
        Ok(Self { path, from: BufReader::with_capacity(BUFFER, file), line: 0, text: Vec::new() })
    }

    /// The next line, without its end.
    pub(super) fn next(&mut self) -> Result<Option<&str>, Bad> {
        self.text.clear();
        let read = self.from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.text);
        if read.map_err(io_error(&self.path))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        if self.text.pop() != Some(b'\n') {
            return Err(self.bad("the file ends in the middle of it"));
        }
        match std::str::from_utf8(&self.text) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.bad("it is not UTF-8")),
        }
    }

    /// Something is wrong with the line that was read last.
    pub(super) fn bad(&self, problem: impl Into<String>) -> Bad {
        Bad::Line { file: named(&self.path), line: self.line, problem: problem.into() }
    }
}

/// Compares a file with its description.
pub(super) fn check(dir: &Path, name: &str, described: &Described) -> Result<(), Bad> {
    let path = dir.join(format!("{name}.jsonl"));
    let mut to = Hashing { to: io::sink(), hasher: Sha256::new() };
    let mut from = File::open(&path).map_err(io_error(&path))?;
    io::copy(&mut from, &mut to).map_err(io_error(&path))?;
    if hex(&to.hasher.finalize()) == described.sha256 {
        return Ok(());
    }
    let problem = format!("it is not as it was exported: its SHA-256 hash is not the one in {FILES}");
    Err(Bad::File { file: named(&path), problem })
}

/// Writes a JSON object to a file of its own.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Bad> {
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Bad> {
    let text = fs::read(path).map_err(io_error(path))?;
    serde_json::from_slice(&text).map_err(|error| Bad::File { file: named(path), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error() {
        let full =
            || File::options().write(true).open("/dev/full").and_then(InThread::start).expect("a thread");
        let line = [b'x'; 1000];
        // Early, while lines are written, and late, with the last of them.
        for lines in [10_000, 1] {
            let to = BufWriter::with_capacity(BUFFER, full());
            let mut lines_of = Lines { path: PathBuf::from("/dev/full"), to, lines: 0 };
            let written = (0..lines).try_for_each(|_| lines_of.line(&line));
            assert_eq!(written.is_err(), lines > 1);
            let finished = written.and_then(|()| lines_of.finish().map(drop));
            let Err(Bad::Io { source, .. }) = finished else { panic!("{finished:?}") };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        }
    }
}
