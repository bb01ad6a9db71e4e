//! The first response of a room that is new to the archive.

use super::RoomSync;
use crate::{
    archive::{
        Error,
        event::row::distinct,
        walk::{history, operator},
    },
    matrix::room_update::state_events,
};

impl RoomSync<'_> {
    /// Stores the events without positions, and opens the history walk, which will place them. Returns how many
    /// events were new.
    pub(super) async fn bootstrap(&mut self) -> Result<usize, Error> {
        let (room_id, response) = (&self.room.room_id.clone(), self.response);
        let events = distinct(state_events(self.update));
        let new = self.gather(&events, &[]).await?;
        // `backscroll backfill` has stored events of the room already.
        if self.portion.top(room_id).position().is_some() {
            match response.next_batch {
                Some(next_batch) => operator::hand_over(self.connection, room_id, next_batch).await?,
                None => self.afterwards.handed_over.push(room_id.clone()),
            }
        }
        // The walk begins at next_batch, not at prev_batch. Late events that sort early are neither below
        // prev_batch nor in this timeline (P160).
        match response.next_batch {
            Some(next_batch) => {
                history::begin(self.connection, response.rooms, &self.room, next_batch).await?;
            }
            None if response.rooms.prev_batch(&self.room.room_id).is_some() => {
                self.afterwards.begun_by_operator.push(self.room.clone());
            }
            None => self.afterwards.begun.push(room_id.clone()),
        }
        Ok(new)
    }
}
