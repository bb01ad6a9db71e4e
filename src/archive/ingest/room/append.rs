//! A later response of a room that the archive has: its timeline is appended.

use super::RoomSync;
use crate::{
    archive::{Error, event::row::distinct, redaction, walk},
    matrix::{Section, room_update::after},
};

impl RoomSync<'_> {
    /// Appends the timeline. Opens a gap if events are missing before it. Returns how many events were new.
    pub(super) async fn append(&mut self) -> Result<usize, Error> {
        let (room_id, update) = (&self.room.room_id.clone(), self.update);
        // Read these before anything of the response is stored.
        let top = self.portion.top(room_id);
        let may_repeat = self.may_repeat();
        let hole = self.find_hole(&top).await?;
        let removals = redaction::removals(update.state.events.iter().chain(after(update)));
        let mut names_no_target =
            redaction::names_no_target(&self.room, &removals, self.portion.known(room_id));

        let mut new = self.store_state().await?;
        let timeline = self.place_timeline(&top, hole.is_some()).await?;
        names_no_target |=
            redaction::names_no_target(&self.room, &timeline.events, self.portion.known(room_id));
        new += self.gather(&timeline.events, &timeline.positions).await?;

        if names_no_target {
            walk::rewalk_now(self.connection, room_id).await?;
        }
        if update.section == Section::Join && (hole.is_some() || may_repeat) {
            // The server may have refused the walk while the account was not in the room. The leave and the
            // return may both be in the missing part.
            walk::reopen_stalled(self.connection, Some(room_id)).await?;
        }
        if let Some(hole) = hole {
            self.open_gap(hole, may_repeat, &top, &timeline).await?;
        }
        self.walk_partial_history(hole.is_some()).await?;
        Ok(new)
    }

    /// Stores the events of the response's state without positions: they do not belong to the timeline. Returns how
    /// many were new.
    async fn store_state(&mut self) -> Result<usize, Error> {
        let state = distinct(self.update.state.events.iter().chain(after(self.update)));
        let new = self.gather(&state, &[]).await?;
        self.portion.found(&self.room.room_id).note_unplaced(&state);
        Ok(new)
    }
}
