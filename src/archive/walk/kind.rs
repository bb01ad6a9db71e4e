//! The kinds and states of walks.

use crate::archive::column::text_column;

/// Why a walk exists; stored in `archive.walks.kind` when the walk is opened, and never changed.
///
/// A gap is walked several times: `GapSince`, `GapKnown` and `GapRecheck`, or without a lower token `GapWhole` and
/// `GapRecheck`. The transaction that finishes one pass opens the next (`gap::after_pass`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkKind {
    /// The room's whole history. Opened when the room's first response is stored, when a room whose history is
    /// truncated is joined again, and by `backscroll backfill` without tokens.
    History,
    /// From a token, or down to one. Opened by `backscroll backfill`.
    Operator,
    /// The first pass through a gap, with `to` set to the old `since`. It finds everything that arrived live. Opened
    /// with the gap.
    GapSince,
    /// The first pass through a gap without a lower token: through the room's whole history. Opened with the gap.
    GapWhole,
    /// The second pass through a gap, without `to`. It finds events that the server has fetched from other servers,
    /// which `to` hides (P48).
    GapKnown,
    /// The last pass through a gap, after `backfill.recheck_after`. It closes the gap when it is done.
    GapRecheck,
    /// The whole history again. It finds events that the server has learnt since (P45, P47). Opened when a history or a
    /// re-walk is done, and due after `backfill.rewalk_after`; due at once if an event names another one that is not
    /// archived.
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
    /// Whether its walks must wait for the first pass through a gap, also through one that `/sync` has not reported
    /// yet.
    pub(crate) fn gives_way(self) -> bool {
        matches!(self, Self::GapKnown | Self::GapRecheck)
    }

    pub(in crate::archive) fn fills_gap(self) -> bool {
        matches!(self, Self::GapSince | Self::GapWhole | Self::GapKnown | Self::GapRecheck)
    }
}

/// The state of a walk; stored in `archive.walks.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkState {
    /// It continues from its cursor when it is due. Set when the walk is opened. Set again for a stalled walk when its
    /// delay is over, when the daemon starts, and when the account joins the room again.
    Open,
    /// It has failed, and is retried at `not_before`; `last_error` has the reason. Set by the page after which the
    /// server returns nothing more, or by a refusal that counts as final
    /// ([`Writer::stall_walk`](crate::archive::Writer::stall_walk)).
    Stalled,
    /// It has ended. Set by its last page, by a refusal of the room's history, and when another walk has passed
    /// everything that it was to pass.
    Done,
}

text_column!(WalkState { Open = "open", Stalled = "stalled", Done = "done" });
