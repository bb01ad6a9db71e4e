//! The `limit` of a `/messages` request: as many events as the server returns quickly and as fit into memory.

use std::time::Duration;

use crate::matrix::{Error, Page};

/// The largest page that is read, in bytes. A larger one is requested again with fewer events, so that memory is
/// bounded however long the events are. At most six times this is used while one page is parsed and the one before it
/// is stored.
const USUAL_BYTES: usize = 1 << 20;
/// The largest page of a single event that is read, in bytes. It cannot be requested with fewer events.
const MOST_BYTES: usize = 64 << 20;
/// The first `limit`.
const FIRST: u32 = 100;
/// A server that fails with pages of this size fails for another reason, so the size is not reduced further.
const TROUBLED: u32 = 10;
/// The largest `limit` in an [active](crate::schedule::active_rooms) room. A live message may have to wait until a
/// page is stored, and a page of four times as many events takes four times as long.
const ACTIVE: u32 = 250;
/// [`ACTIVE`] applies only if the server returns a page faster than this. Otherwise a message rarely meets a page
/// that is being stored.
const SWIFT: Duration = Duration::from_millis(100);
/// After a page that took less time than this, the next may be larger.
const QUICK: Duration = Duration::from_secs(2);
/// After a page that took longer than this, the next is smaller: proxies time out after 30 or 60 s (P10).
const SLOW: Duration = Duration::from_secs(15);

/// The size of one walk's next page.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    most: u32,
    now: u32,
    is_swift: bool,
}

impl PageSize {
    /// For pages of at most `most` events.
    pub fn new(most: u32) -> Self {
        Self { most, now: FIRST.min(most), is_swift: false }
    }

    /// The `limit` of the next request.
    pub fn limit(&self, is_active: bool) -> u32 {
        if is_active && self.is_swift { self.now.min(ACTIVE) } else { self.now }
    }

    /// The largest response to read, in bytes.
    pub fn most_bytes(&self) -> usize {
        if self.now > 1 { USUAL_BYTES } else { MOST_BYTES }
    }

    /// Adjusts the size after a page.
    pub fn after_page(&mut self, page: &Page, took: Duration) {
        self.is_swift = took < SWIFT;
        if took > SLOW {
            self.halve(TROUBLED);
        } else if took < QUICK {
            self.now = self.now.saturating_mul(2).min(self.most);
        }
        let events = page.chunk.events.len() + page.chunk.malformed.len();
        if let Some(event_bytes) = page.bytes.checked_div(events) {
            // A quarter is spare, for longer events.
            let fitting = (USUAL_BYTES - USUAL_BYTES / 4) / event_bytes.max(1);
            self.now = self.now.min(u32::try_from(fitting).unwrap_or(u32::MAX)).max(1);
        }
    }

    /// Adjusts the size after an error. True if the smaller page may be requested at once, because Backscroll itself
    /// rejected the larger one.
    pub(crate) fn after_error(&mut self, error: &Error) -> bool {
        let refused = matches!(error, Error::TooLarge { .. }) && self.now > 1;
        if refused {
            self.halve(1);
        } else if error.wants_smaller_page() {
            self.halve(TROUBLED);
        }
        refused
    }

    fn halve(&mut self, least: u32) {
        self.now = (self.now / 2).max(least.min(self.now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(events: usize, event_bytes: usize) -> Page {
        let event = |index| {
            format!(
                r#"{{"type":"t","sender":"s","event_id":"${index}","content":{{}},"origin_server_ts":1}}"#
            )
        };
        let body = format!(r#"{{"chunk":[{}]}}"#, (0..events).map(event).collect::<Vec<_>>().join(","));
        let page = Page::parse("!r:hs", body.as_bytes()).expect("a page");
        Page { bytes: events * event_bytes, ..page }
    }

    fn sizes(size: &mut PageSize, times: usize, mut after: impl FnMut(&mut PageSize)) -> Vec<u32> {
        let next = |_| {
            after(size);
            size.limit(false)
        };
        (0..times).map(next).collect()
    }

    #[test]
    fn grows_while_the_server_is_quick_and_shrinks_when_it_is_not() {
        let mut size = PageSize::new(1000);
        let quick = |size: &mut PageSize| size.after_page(&page(100, 600), Duration::from_millis(100));
        assert_eq!(sizes(&mut size, 5, quick), [200, 400, 800, 1000, 1000]);
        let slow = |size: &mut PageSize| size.after_page(&page(100, 600), Duration::from_secs(40));
        assert_eq!(sizes(&mut size, 3, slow), [500, 250, 125]);
        let so_so = |size: &mut PageSize| size.after_page(&page(100, 600), Duration::from_secs(5));
        assert_eq!(sizes(&mut size, 2, so_so), [125, 125]);
        let silent = |size: &mut PageSize| {
            size.after_error(&Error::Timeout { path: "/messages", limit_s: 180 });
        };
        assert_eq!(sizes(&mut size, 5, silent), [62, 31, 15, 10, 10]);
        assert_eq!(PageSize::new(7).limit(false), 7);
    }

    #[test]
    fn where_people_talk_a_swift_servers_pages_stay_short() {
        let mut size = PageSize::new(1000);
        for (took_ms, active, quiet) in [(20, 200, 200), (20, 250, 400), (150, 800, 800), (20, 250, 1000)] {
            size.after_page(&page(100, 600), Duration::from_millis(took_ms));
            assert_eq!((size.limit(true), size.limit(false)), (active, quiet));
        }
    }

    #[test]
    fn bytes_bound_it() {
        let mut size = PageSize::new(1000);
        let long = |size: &mut PageSize| size.after_page(&page(10, 60 << 10), Duration::ZERO);
        assert_eq!(sizes(&mut size, 2, long), [12, 12]);
        let refused = |size: &mut PageSize| {
            size.after_error(&Error::TooLarge { limit_bytes: 1 });
        };
        assert_eq!(sizes(&mut size, 4, refused), [6, 3, 1, 1]);
        assert_eq!(size.most_bytes(), MOST_BYTES);
        assert!(
            !size.after_error(&Error::TooLarge { limit_bytes: MOST_BYTES }),
            "no smaller page is possible"
        );
    }
}
