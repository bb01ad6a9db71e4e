//! How much of a room's past is archived.

use sqlx::PgConnection;

use crate::archive::{Error, column::text_column};

/// How much of a room's past is archived; stored in `archive.rooms.history_state`. The view `rooms` shows
/// `Walking`, `Stalled` or `Truncated` also where the history is complete and a gap is not filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryState {
    /// No walk through the whole past was begun. Set when the room's row is made.
    None,
    /// A walk comes down through it. Set when that walk is opened, when it is opened again because the daemon
    /// starts or the account comes back to the room, and when it finds something new after a stall.
    Walking,
    /// That walk could not go on. Set when it stalls; `history_reason` says why. It is tried again.
    Stalled,
    /// That walk is done, and the room's start was not reached: the homeserver gives no more. Set by its last
    /// page, and when the account is refused access to the room; `history_reason` says why.
    Truncated,
    /// The create event was reached. Set by the last page of that walk, or of a rewalk that got further.
    Complete,
}

text_column!(HistoryState {
    None = "none",
    Walking = "walking",
    Stalled = "stalled",
    Truncated = "truncated",
    Complete = "complete",
});

impl HistoryState {
    /// Whether the history was cut short, or only a part of it was walked, as the operator asked.
    pub(in crate::archive) fn is_partial(self) -> bool {
        matches!(self, Self::None | Self::Truncated)
    }
}

/// Notes how much of the room's past is archived; `reason`: why no more.
pub(in crate::archive) async fn set(
    connection: &mut PgConnection,
    room_key: i32,
    state: HistoryState,
    reason: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.rooms set history_state = $2, history_reason = $3
         where room_key = $1 and (history_state, history_reason) is distinct from ($2, $3)",
        room_key,
        state as _,
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}
