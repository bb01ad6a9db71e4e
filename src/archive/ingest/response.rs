//! What the rooms of one `/sync` response share, while it is stored.

use crate::{
    archive::{Account, room::Room},
    config::Rooms,
};

/// A `/sync` response on its way into the archive.
pub(in crate::archive) struct Response<'a> {
    pub(in crate::archive) account: &'a Account,
    /// `None` of a first response: it may come last, and its portions are stored before.
    pub(in crate::archive) next_batch: Option<&'a str>,
    pub(in crate::archive) rooms: &'a Rooms,
    /// Whether every room comes with its whole state.
    pub(in crate::archive) full: bool,
}

/// What is to be done once a response is stored as a whole.
#[derive(Debug, Default)]
pub(in crate::archive) struct Afterwards {
    /// Rooms whose whole state is stored by now, and whose histories are to be walked from `next_batch`.
    pub(in crate::archive) begun: Vec<i32>,
    /// The same, where the operator has said from which token.
    pub(in crate::archive) begun_by_operator: Vec<Room>,
    /// Of those, the rooms in which the operator has begun something.
    pub(in crate::archive) handed_over: Vec<i32>,
    /// Rooms whose histories were cut short, or walked in part only, and are to be walked again.
    pub(in crate::archive) partial: Vec<i32>,
}

impl Response<'_> {
    /// Whether it is a first response, which reports all there is, also where the sync token was lost.
    pub(in crate::archive) fn is_first(&self) -> bool {
        self.account.since.is_none()
    }
}
