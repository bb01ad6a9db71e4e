//! Kinds and states of walks, as the database names them.

/// Why a walk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A room's whole past.
    History,
    /// `backscroll backfill`.
    Operator,
    /// A gap, with `to` set to the old `since`: rigorous for what arrived live.
    GapSince,
    /// A gap without a token below, through the room's whole past.
    GapWhole,
    /// A gap, without `to`: for what the server itself fetched from others, which `to` hides (P48).
    GapKnown,
    /// That once more, later.
    GapRecheck,
    /// The whole past again, later: for what the server has learnt since (P45, P47).
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

    /// Whether its walks give way to the first pass through a gap, also through one that is not known yet.
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

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkState {
    /// To be gone on with.
    Open,
    /// Cannot go on without somebody's look.
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
