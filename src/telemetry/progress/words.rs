//! The progress in one sentence, for the service manager's status.

use super::{Inner, Progress};
use crate::text::{count, thousands, whole};

impl Progress {
    /// For example: `following 12 rooms, 34 events received live; 3 walks through history under way, 1,234 events
    /// stored in this run, 560 a second`. It names no room.
    pub(crate) fn in_words(&self) -> String {
        self.lock().in_words()
    }
}

impl Inner {
    fn in_words(&self) -> String {
        let following = self.following.map_or_else(
            || "no news yet".to_owned(),
            |following| {
                let rooms = count(following.room_count as u64, "room");
                let events = count(following.event_count, "event");
                format!("following {rooms}, {events} received live")
            },
        );
        let stored = count(self.event_count, "event");
        if self.rooms.is_empty() {
            return format!("{following}; no walk under way, {stored} of history stored in this run");
        }
        let walks = count(self.rooms.len() as u64, "walk");
        let rate = thousands(whole(self.rate.per_second().unwrap_or(0.0)));
        format!(
            "{following}; {walks} through history under way, {stored} stored in this run, {rate} a second"
        )
    }
}
