//! How much of a room's history is archived.

use sqlx::PgConnection;

use crate::archive::{Error, column::text_column};

/// How much of a room's history is archived; stored in `archive.rooms.history_state`. The view `rooms` also shows
/// `Walking`, `Stalled` or `Truncated` if the history is complete and a gap is not filled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryState {
    /// No walk through the whole history has begun. Set when the room's row is created.
    None,
    /// A walk through the whole history is open. Set when that walk is opened, when it is opened again because the
    /// daemon starts or the account joins the room again, and when it finds new events after it has stalled.
    Walking,
    /// That walk has failed, and is retried. Set when it stalls; `history_reason` has the reason.
    Stalled,
    /// That walk is done, but it has not reached the room's start, because the homeserver returns no more. Set by its
    /// last page, and when the homeserver refuses access to the room; `history_reason` has the reason.
    Truncated,
    /// A walk has reached the create event. Set by the last page of that walk, or of a re-walk that came further.
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
    /// Whether the history is truncated, or only a part of it was walked at the operator's request.
    pub(in crate::archive) fn is_partial(self) -> bool {
        matches!(self, Self::None | Self::Truncated)
    }
}

/// Sets how much of the room's history is archived. `reason`: why not more.
pub(in crate::archive) async fn set(
    connection: &mut PgConnection,
    room_id: &str,
    state: HistoryState,
    reason: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.rooms set history_state = $2, history_reason = $3
         where room_id = $1 and (history_state, history_reason) is distinct from ($2, $3)",
        room_id,
        state as _,
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}
