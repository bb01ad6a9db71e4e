//! Takes rooms out of the archive into files, and puts them in again.
//!
//! An export is a directory:
//!
//! * `export.json`: the version of the format, and the period.
//! * `rooms/ROOM/`, where ROOM is the room id with its special characters as `%21`:
//!   * `events.jsonl`: every event as served, oldest first, one JSON object on each line. Those without a position come last.
//!     `unsigned` holds what the archive knows of the event: `prev_content`, `replaces_state`, `redacted_by`, and under
//!     `dev.backscroll` the rest of its row.
//!   * `manifest.jsonl`: see [`manifest`](crate::verify::seal::manifest). Not for a period.
//!   * for each table of the archive that has rows of the room, such as `gaps.jsonl`, its rows as JSON objects.
//!   * `files.json`: the number of lines and the SHA-256 hash of each of these files.
//! * `server_keys.jsonl`: the keys of homeservers, for the signed events in `evidence.jsonl`.
//! * `erasures.jsonl`: the users of these rooms who were erased.
//!
//! The files say nothing of when they were written, so that an export of the same rows has the same bytes.

mod export;
mod files;
pub(crate) mod foreign;
mod import;
mod line;

pub(crate) use self::{
    export::{Exported, begin, export, export_common},
    import::{Checked, Outcome, check, import, import_common},
};

/// The version of the format.
const VERSION: u32 = 1;
const HEADER: &str = "export.json";
const ROOMS: &str = "rooms";
const EVENTS: &str = "events";
const MANIFEST: &str = "manifest";
const SERVER_KEYS: &str = "server_keys";
const ERASURES: &str = "erasures";
const FILES: &str = "files.json";
/// Rows of a table that are inserted together, in bytes.
const MANY_BYTES: usize = 256 << 10;

/// The first file of an export.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    backscroll_export: u32,
    /// From when on events were exported.
    since: Option<String>,
    /// Until when.
    until: Option<String>,
}

/// Why a directory cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not what an export has.
    #[error("{file} is no file of an export: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A line is not what an export has.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong. Never content.
        problem: String,
    },
}
