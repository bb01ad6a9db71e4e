//! The data that all rooms of a `/sync` response share while it is stored.

use crate::{
    archive::{Account, room::Room},
    config::Rooms,
};

/// A `/sync` response that is being stored.
pub(in crate::archive) struct Response<'a> {
    pub(in crate::archive) account: &'a Account,
    /// `None` for a first response: its parts are stored before `next_batch` is known.
    pub(in crate::archive) next_batch: Option<&'a str>,
    pub(in crate::archive) rooms: &'a Rooms,
    /// Whether the response contains the whole state of every room.
    pub(in crate::archive) full: bool,
}

/// What to do after the whole response was stored.
#[derive(Debug, Default)]
pub(in crate::archive) struct Afterwards {
    /// Rooms whose whole state is stored, and whose history walks begin at `next_batch`.
    pub(in crate::archive) begun: Vec<String>,
    /// The same, for rooms where the operator has set the token to begin at.
    pub(in crate::archive) begun_by_operator: Vec<Room>,
    /// The rooms among these in which the operator has begun a walk.
    pub(in crate::archive) handed_over: Vec<String>,
    /// Rooms with a truncated or partial history, which is walked again.
    pub(in crate::archive) partial: Vec<String>,
}

impl Response<'_> {
    /// Whether it is a first response, which contains all rooms, also after the sync token was lost.
    pub(in crate::archive) fn is_first(&self) -> bool {
        self.account.since.is_none()
    }
}
