//! The order of writes: live `/sync` writes go before backfill pages.

use std::{num::NonZero, thread::available_parallelism};

use tokio::sync::{Semaphore, SemaphorePermit};

/// One slot for each processor. A page takes one slot; with more pages at once, each would take longer and none would
/// finish sooner. While rooms are active, a page takes two slots, because it keeps one processor busy in PostgreSQL
/// and another partly busy in Backscroll. A `/sync` response waits for no slot, and no page begins while it is
/// stored.
#[derive(Debug)]
pub(crate) struct WriteSlots {
    pages: Semaphore,
    at_once: u32,
}

impl Default for WriteSlots {
    fn default() -> Self {
        let at_once = u32::try_from(available_parallelism().map_or(1, NonZero::get)).unwrap_or(1);
        Self { pages: Semaphore::new(at_once as usize), at_once }
    }
}

impl WriteSlots {
    /// Waits for a slot, then stores a page. `is_active`: whether any room is active.
    pub(crate) async fn page<T>(&self, is_active: bool, store: impl Future<Output = T>) -> T {
        let _slots = self.take(if is_active { self.at_once.min(2) } else { 1 }).await;
        store.await
    }

    /// Stores a `/sync` response at once.
    pub(crate) async fn live<T>(&self, store: impl Future<Output = T>) -> T {
        tokio::pin!(store);
        // The semaphore is fair: this request for all slots holds back every page that asks later. The store itself
        // does not wait for the slots.
        tokio::select! {
            biased;
            _slots = self.take(self.at_once) => store.await,
            stored = &mut store => stored,
        }
    }

    async fn take(&self, slots: u32) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so this is always `Some`.
        self.pages.acquire_many(slots).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::sync::Notify;

    use super::*;

    fn of(at_once: u32) -> WriteSlots {
        WriteSlots { pages: Semaphore::new(at_once as usize), at_once }
    }

    #[tokio::test]
    async fn a_sync_response_waits_for_no_page_and_holds_back_the_next() {
        let slots = of(1);
        let (live_begins, order) = (Notify::new(), RefCell::new(Vec::new()));
        let did = |what| order.borrow_mut().push(what);
        let first = slots.page(false, async {
            live_begins.notified().await;
            did("the page under way");
        });
        let live = slots.live(async {
            live_begins.notify_one();
            // Time for the next page to begin, were it let.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            did("the sync response");
        });
        let next = slots.page(false, async { did("the next page") });
        tokio::join!(first, live, next);
        assert_eq!(order.into_inner(), ["the page under way", "the sync response", "the next page"]);
    }

    #[tokio::test]
    async fn half_as_many_pages_at_once_while_a_room_is_active() {
        for (at_once, is_active, expected) in [(4, false, 4), (4, true, 2), (3, true, 1), (1, true, 1)] {
            let (slots, begun) = (of(at_once), RefCell::new(0));
            let pages: [_; 5] = std::array::from_fn(|_| {
                slots.page(is_active, async {
                    *begun.borrow_mut() += 1;
                    std::future::pending::<()>().await;
                })
            });
            let all = join_all(pages);
            assert!(all.now_or_never().is_none());
            assert_eq!(begun.into_inner(), expected, "{is_active} of {at_once}");
        }
    }

    #[tokio::test]
    async fn a_live_store_that_ends_first_leaves_the_slots_to_the_pages() {
        let slots = of(2);
        let other_done = Notify::new();
        let in_hand = slots.page(false, other_done.notified());
        let others = async {
            slots.live(async {}).await;
            slots.page(false, async {}).await;
            other_done.notify_one();
        };
        let all = async { tokio::join!(in_hand, others) };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("a slot was free");
    }
}
