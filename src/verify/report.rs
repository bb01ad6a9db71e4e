//! The result of verifying a room.

use std::time::Duration;

use crate::archive::verification::{Finding, Recorded, VerifiedRoom};

/// How many findings of a room are listed. The others are counted.
const LISTED: usize = 100;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// The archive by itself.
    Offline,
    /// With a manifest, and with nothing else.
    Manifest,
    /// Also with the homeserver's list of events and with its state.
    Walk,
    /// Also the ids, content hashes and ancestors of the events.
    Graph,
    /// Also their signatures.
    Signatures,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The archive agrees with itself. The homeserver was not asked.
    Consistent,
    /// The archive agrees with what the homeserver lists.
    Agrees,
    /// And the graph is closed: every ancestor of an event is archived, up to the create event.
    Proved,
    /// Something is wrong.
    Findings,
    /// Not everything could be compared.
    Unclear,
}

impl Verdict {
    /// As `archive.verifications` has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Agrees => "agrees",
            Self::Proved => "proved",
            Self::Findings => "findings",
            Self::Unclear => "unclear",
        }
    }
}

/// What was found out about a room.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Report {
    pub(crate) room_id: String,
    /// The name that a client shows.
    pub(crate) name: Option<String>,
    pub(crate) verdict: Verdict,
    pub(crate) level: Level,
    /// Number of archived events.
    pub(crate) event_count: i64,
    /// Number of events that the homeserver listed.
    pub(crate) listed_count: i64,
    /// Number of archived events that the homeserver lists no more.
    pub(crate) only_here_count: i64,
    pub(crate) finding_count: usize,
    /// The first hundred.
    pub(crate) findings: Vec<Finding>,
    /// What restricts the result, in words.
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: f64,
    #[serde(skip)]
    is_unclear: bool,
}

impl Report {
    /// Without findings yet.
    pub(crate) fn new(room: &VerifiedRoom) -> Self {
        Self {
            room_id: room.room_id.clone(),
            name: room.name.clone(),
            verdict: Verdict::Consistent,
            level: Level::Offline,
            event_count: room.event_count,
            listed_count: 0,
            only_here_count: 0,
            finding_count: 0,
            findings: Vec::new(),
            notes: Vec::new(),
            seconds: 0.0,
            is_unclear: false,
        }
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        // The archive by itself and the comparison with the server may find the same.
        if self.findings.contains(&finding) {
            return;
        }
        self.finding_count += 1;
        if self.findings.len() < LISTED {
            self.findings.push(finding);
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Notes why the result is unclear.
    pub(super) fn cannot_tell(&mut self, note: impl Into<String>) {
        self.note(note);
        self.is_unclear = true;
    }

    /// As the archive keeps it.
    pub(crate) fn recorded(&self) -> Recorded<'_> {
        Recorded {
            room_id: &self.room_id,
            level: match self.level {
                Level::Offline | Level::Manifest => "offline",
                Level::Walk => "walk",
                Level::Graph => "graph",
                Level::Signatures => "signatures",
            },
            verdict: self.verdict.as_str(),
            event_count: self.event_count,
            listed_count: self.listed_count,
            only_here_count: self.only_here_count,
            finding_count: i64::try_from(self.finding_count).unwrap_or(i64::MAX),
            findings: &self.findings,
            notes: &self.notes,
            seconds: self.seconds,
            is_good: matches!(self.verdict, Verdict::Agrees | Verdict::Proved),
        }
    }

    /// Decides. `is_closed`: whether the graph of the events is closed.
    pub(crate) fn conclude(&mut self, is_closed: bool, took: Duration) {
        self.seconds = took.as_secs_f64();
        self.verdict = match self.level {
            _ if self.finding_count > 0 => Verdict::Findings,
            _ if self.is_unclear => Verdict::Unclear,
            Level::Offline => Verdict::Consistent,
            Level::Graph | Level::Signatures if is_closed => Verdict::Proved,
            Level::Manifest | Level::Walk | Level::Graph | Level::Signatures => Verdict::Agrees,
        };
    }
}
