//! The error of `run --once` if rooms have stalled. Everything else is archived, but the exit code is not 0.

use std::fmt::Write as _;

use crate::{
    Error, Exit,
    archive::{Archive, HistoryState},
    text::escape,
};

/// At most this many rooms are named.
const NAMED: usize = 5;

/// Rooms whose history has stalled.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stalled(String);

impl Stalled {
    /// The process's exit code.
    pub(crate) const EXIT_CODE: Exit = Exit::Stalled;

    /// Fails if there are stalled rooms.
    ///
    /// # Errors
    /// [`Stalled`], or an error of the database.
    pub(super) async fn must_be_none(archive: &Archive) -> anyhow::Result<()> {
        let rooms = archive.status().await.map_err(Error::from)?.rooms;
        let stalled =
            rooms.into_iter().filter(|room| room.history_state == HistoryState::Stalled && !room.paused);
        let reasons: Vec<_> = stalled
            .map(|room| {
                let reason = room.history_reason.or(room.last_error).unwrap_or_default();
                format!("{}: {}", escape(&room.room_id), escape(&reason))
            })
            .collect();
        if reasons.is_empty() { Ok(()) } else { Err(Self(in_words(&reasons)).into()) }
    }
}

fn in_words(reasons: &[String]) -> String {
    let rooms =
        if reasons.len() == 1 { "a room has".to_owned() } else { format!("{} rooms have", reasons.len()) };
    let mut text = format!("{rooms} stalled; everything else that was due is archived");
    for reason in reasons.iter().take(NAMED) {
        let _ = write!(text, "\n  {reason}");
    }
    if reasons.len() > NAMED {
        let _ = write!(text, "\n  and {} more", reasons.len() - NAMED);
    }
    text + "\n  `backscroll status` shows them; the next run tries them again"
}
