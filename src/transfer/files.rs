//! The files of an export.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Bad, FILES, ROOMS};
use crate::{text::escape, verify::seal::tree::hex};

/// The longest line in bytes. An event has at most 16 MiB, and each byte may need six.
const LONGEST_LINE: u64 = 256 << 20;
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
    to: BufWriter<Hashing<File>>,
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

impl Lines {
    pub(super) fn create(dir: &Path, name: &str) -> Result<Self, Bad> {
        let path = dir.join(format!("{name}.jsonl"));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let to = Hashing { to: file.map_err(io_error(&path))?, hasher: Sha256::new() };
        Ok(Self { path, to: BufWriter::with_capacity(256 << 10, to), lines: 0 })
    }

    /// Writes one line.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), Bad> {
        let written = self.to.write_all(line).and_then(|()| self.to.write_all(b"\n"));
        self.lines += 1;
        written.map_err(io_error(&self.path))
    }

    /// Writes the file to the disk. `None`: it had no line, and was removed.
    pub(super) fn finish(self) -> Result<Option<Described>, Bad> {
        let path = self.path;
        let to = self.to.into_inner().map_err(|error| io_error(&path)(error.into_error()))?;
        to.to.sync_all().map_err(io_error(&path))?;
        if self.lines == 0 {
            fs::remove_file(&path).map_err(io_error(&path))?;
            return Ok(None);
        }
        Ok(Some(Described { lines: self.lines, sha256: hex(&to.hasher.finalize()) }))
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
        Ok(Self { path, from: BufReader::with_capacity(256 << 10, file), line: 0, text: Vec::new() })
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
