//! The kinds and states of walks, as stored in the database.

/// Why a walk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The room's whole history.
    History,
    /// A walk of `backscroll backfill`.
    Operator,
    /// The first pass through a gap, with `to` set to the old `since`. It finds everything that arrived live.
    GapSince,
    /// The first pass through a gap without a lower token: through the room's whole history.
    GapWhole,
    /// The second pass through a gap, without `to`. It finds events that the server has fetched from other servers,
    /// which `to` hides (P48).
    GapKnown,
    /// The third pass: the second one again, later.
    GapRecheck,
    /// The whole history again, later. It finds events that the server has learnt since (P45, P47).
    Rewalk,
}

impl Kind {
    /// The kind as the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Operator => "operator",
            Self::GapSince => "gap_since",
            Self::GapWhole => "gap_whole",
            Self::GapKnown => "gap_known",
            Self::GapRecheck => "gap_recheck",
            Self::Rewalk => "rewalk",
        }
    }

    /// Whether its walks must wait for the first pass through a gap, also through one that `/sync` has not reported
    /// yet.
    pub(crate) fn gives_way(self) -> bool {
        matches!(self, Self::GapKnown | Self::GapRecheck)
    }

    pub(in crate::archive) fn fills_gap(self) -> bool {
        matches!(self, Self::GapSince | Self::GapWhole | Self::GapKnown | Self::GapRecheck)
    }
}

impl From<String> for Kind {
    fn from(kind: String) -> Self {
        match kind.as_str() {
            "operator" => Self::Operator,
            "gap_since" => Self::GapSince,
            "gap_whole" => Self::GapWhole,
            "gap_known" => Self::GapKnown,
            "gap_recheck" => Self::GapRecheck,
            "rewalk" => Self::Rewalk,
            _ => Self::History,
        }
    }
}

/// The state of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkState {
    /// It continues when it is due.
    Open,
    /// It has failed, and is retried after a growing delay.
    Stalled,
    /// Finished.
    Done,
}

impl WalkState {
    pub(in crate::archive) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stalled => "stalled",
            Self::Done => "done",
        }
    }
}

impl From<String> for WalkState {
    fn from(state: String) -> Self {
        match state.as_str() {
            "stalled" => Self::Stalled,
            "done" => Self::Done,
            _ => Self::Open,
        }
    }
}
