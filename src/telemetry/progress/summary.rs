//! The summary that is logged from time to time.

use std::fmt::Write as _;

use crate::text::{count, duration, thousands};

/// The fields of the summary.
pub(super) struct Summary {
    /// Whether the first `/sync` response is being stored.
    pub(super) first_sync: bool,
    pub(super) rooms_active: usize,
    pub(super) event_count: u64,
    pub(super) page_count: u64,
    pub(super) live_event_count: u64,
    pub(super) rate_per_second: u64,
    pub(super) eta_s: Option<u64>,
}

impl Summary {
    pub(super) fn log(&self) {
        tracing::info!(
            first_sync = self.first_sync,
            rooms_active = self.rooms_active,
            event_count = self.event_count,
            page_count = self.page_count,
            rate_per_second = self.rate_per_second,
            live_event_count = self.live_event_count,
            eta_s = self.eta_s,
            "{}",
            self.message()
        );
    }

    pub(super) fn message(&self) -> String {
        let rooms = count(self.rooms_active as u64, "room");
        let stored = count(self.event_count, "event");
        let rate = thousands(self.rate_per_second);
        let mut text = if self.first_sync {
            format!("storing the first sync response: {stored} stored in this run, {rate} a second")
        } else if self.rooms_active == 0 {
            format!("no history left to fetch: {stored} of history stored in this run")
        } else {
            format!("fetching the history of {rooms}: {stored} stored in this run, {rate} a second")
        };
        if let Some(seconds) = self.eta_s {
            let _ = write!(text, ", about {} to go", duration(seconds));
        }
        if self.live_event_count > 0 {
            let live = count(self.live_event_count, "event");
            let _ = write!(text, "; {live} received live");
        }
        text
    }
}
