//! `postgres.log`, the log of the private server.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::fcntl::OFlag;

use super::Error;
use super::dir::Dir;

const NAME: &str = "postgres.log";
/// The name of the old log.
const OLD: &str = "postgres.log.1";
/// The size from which the log is rotated. One old log is kept.
const LARGEST_LOG: u64 = 8 * 1024 * 1024;

/// The log of one cluster.
#[derive(Debug)]
pub(super) struct Log {
    dir: Dir,
}

impl Log {
    pub(super) fn in_dir(dir: Dir) -> Self {
        Self { dir }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path(NAME)
    }

    pub(super) fn len(&self) -> u64 {
        let length = || self.dir.file(NAME, OFlag::O_RDONLY)?.metadata().map(|metadata| metadata.len());
        length().unwrap_or(0)
    }

    /// Opens the log for a child to write to. The child itself may lack the right to open it.
    pub(super) fn append(&self) -> Result<Stdio, Error> {
        let file = self.open().map_err(Error::io("open", &self.path()))?;
        Ok(Stdio::from(file))
    }

    fn open(&self) -> io::Result<File> {
        self.dir.file(NAME, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Copies and truncates a log that is too large. A running server continues at the new end, because it appends.
    pub(super) fn trim(&self) -> Result<(), Error> {
        if self.len() <= LARGEST_LOG {
            return Ok(());
        }
        let put_aside = || {
            let mut log = self.open()?;
            io::copy(&mut log, &mut self.dir.new_file(OLD)?)?;
            log.set_len(0)
        };
        put_aside().map_err(Error::io("trim", &self.path()))
    }

    /// The error of a failed program, from what it has written to the log since `before`.
    pub(super) fn failure(&self, program: &'static str, status: ExitStatus, before: u64) -> Error {
        let said = self.read_from(before).unwrap_or_default();
        Error::Failed { program, status: status.to_string(), said: last_words(&said) }
    }

    fn read_from(&self, before: u64) -> io::Result<String> {
        let mut file = self.dir.file(NAME, OFlag::O_RDONLY)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(before.max(end.saturating_sub(16 * 1024))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The lines with errors if there are any, else the last lines.
fn last_words(text: &str) -> String {
    let is_complaint = |line: &&str| ["FATAL:", "PANIC:", "error:"].iter().any(|w| line.contains(w));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let complaints: Vec<&str> = lines.iter().copied().filter(is_complaint).collect();
    let chosen = if complaints.is_empty() { &lines } else { &complaints };
    if chosen.is_empty() {
        return "it said nothing".to_owned();
    }
    chosen[chosen.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_picked_out() {
        let text = "LOG:  starting\nx [1] FATAL:  could not write: No space left\nLOG:  down\n";
        assert_eq!(last_words(text), "x [1] FATAL:  could not write: No space left");
        assert_eq!(last_words("a\nb\nc\nd\n"), "b; c; d");
        assert_eq!(last_words("\n"), "it said nothing");
    }

    #[test]
    fn a_large_log_is_put_aside_under_a_writer() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let log = Log::in_dir(Dir::open(dir.path()).unwrap());
        let mut writer = log.open().unwrap();
        writer.set_len(LARGEST_LOG + 1).unwrap();
        log.trim().unwrap();
        assert_eq!(log.len(), 0);
        writer.write_all(b"on").unwrap();
        assert_eq!(log.len(), 2);
        assert_eq!(std::fs::metadata(dir.path().join("postgres.log.1")).unwrap().len(), LARGEST_LOG + 1);
    }
}
