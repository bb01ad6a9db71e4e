//! Kinds and states of walks.

use crate::archive::column::text_column;

/// Why a walk is made; stored in `archive.walks.kind` when the walk is opened, and never changed.
///
/// A gap is walked several times: `GapSince`, `GapKnown` and `GapRecheck`, or without a token below
/// `GapWhole` and `GapRecheck`. Each is opened by the transaction that finishes the one before
/// (`walk::gap::walked`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkKind {
    /// A room's whole past. Opened when the room's first response is stored, when a room whose history is
    /// truncated is entered again, and by `backscroll backfill` without tokens.
    History,
    /// From a token, or down to one. Opened by `backscroll backfill`.
    Operator,
    /// The first pass through a gap, with `to` set to the old `since`: rigorous for what arrived live. Opened
    /// with the gap.
    GapSince,
    /// The first pass through a gap without a token below, through the room's whole past. Opened with the
    /// gap.
    GapWhole,
    /// The second pass through a gap, without `to`: for what the server itself fetched from others, which
    /// `to` hides (P48).
    GapKnown,
    /// The last pass through a gap, after `backfill.recheck_after`. When it is done the gap is closed.
    GapRecheck,
    /// The whole past again: for what the server has learnt since (P45, P47). Opened when a history or a
    /// rewalk is done, due after `backfill.rewalk_after`; and due at once where an event names another that
    /// is not archived.
    Rewalk,
}

text_column!(WalkKind {
    History = "history",
    Operator = "operator",
    GapSince = "gap_since",
    GapWhole = "gap_whole",
    GapKnown = "gap_known",
    GapRecheck = "gap_recheck",
    Rewalk = "rewalk",
});

impl WalkKind {
    /// Whether its walks give way to the first pass through a gap, also through one that is not known yet.
    pub(crate) fn gives_way(self) -> bool {
        matches!(self, Self::GapKnown | Self::GapRecheck)
    }

    pub(in crate::archive) fn fills_gap(self) -> bool {
        matches!(self, Self::GapSince | Self::GapWhole | Self::GapKnown | Self::GapRecheck)
    }
}

/// Where a walk stands; stored in `archive.walks.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkState {
    /// Resumed from its cursor when it is due. Set when the walk is opened; and again, of a stalled walk,
    /// when its time has come, when the daemon starts, and when the account comes back to the room.
    Open,
    /// Could not go on; `last_error` says why. Set by the page after which nothing more is given, or by a
    /// refusal that is believed ([`Writer::stall_walk`](crate::archive::Writer::stall_walk)). Tried again at
    /// `not_before`.
    Stalled,
    /// Finished, for good. Set by its last page, by a refusal of a room's past, and where another walk passes
    /// all that it was to pass.
    Done,
}

text_column!(WalkState { Open = "open", Stalled = "stalled", Done = "done" });
