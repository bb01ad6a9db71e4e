//! Who stores next. Walks have all the time in the world; what is said now is to be seen now.

use std::{num::NonZero, thread::available_parallelism};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets as many pages be stored at once as there are processors: more of them would each take longer, and no page would
/// be done sooner. Where people talk half as many: each keeps a processor busy on the server's side and in part one on ours.
/// What `/sync` brings waits for nobody, and no page is begun beside it.
#[derive(Debug)]
pub struct WriteSlots {
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
    /// Stores a page when its turn has come. `talk`: whether people talk in any room.
    pub async fn page<T>(&self, talk: bool, store: impl Future<Output = T>) -> T {
        let _slots = self.take(if talk { self.at_once.min(2) } else { 1 }).await;
        store.await
    }

    /// Stores at once what `/sync` brought.
    pub async fn live<T>(&self, store: impl Future<Output = T>) -> T {
        tokio::pin!(store);
        // Slots are given in the order in which they were asked for, so that no page is begun after this, whether or not
        // those in hand end before the store does.
        tokio::select! {
            biased;
            _slots = self.take(self.at_once) => store.await,
            stored = &mut store => stored,
        }
    }

    async fn take(&self, slots: u32) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
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
    async fn what_is_live_waits_for_no_page_and_holds_back_the_next() {
        let slots = of(1);
        let (live_begins, order) = (Notify::new(), RefCell::new(Vec::new()));
        let did = |what| order.borrow_mut().push(what);
        let first = slots.page(false, async {
            live_begins.notified().await;
            did("the page in hand");
        });
        let live = slots.live(async {
            live_begins.notify_one();
            // Time for the next page to begin, were it let.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            did("what is live");
        });
        let next = slots.page(false, async { did("the next page") });
        tokio::join!(first, live, next);
        assert_eq!(order.into_inner(), ["the page in hand", "what is live", "the next page"]);
    }

    #[tokio::test]
    async fn half_as_many_pages_at_once_where_people_talk() {
        for (at_once, talk, expected) in [(4, false, 4), (4, true, 2), (3, true, 1), (1, true, 1)] {
            let (slots, begun) = (of(at_once), RefCell::new(0));
            let pages: [_; 5] = std::array::from_fn(|_| {
                slots.page(talk, async {
                    *begun.borrow_mut() += 1;
                    std::future::pending::<()>().await;
                })
            });
            let all = join_all(pages);
            assert!(all.now_or_never().is_none());
            assert_eq!(begun.into_inner(), expected, "{talk} of {at_once}");
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
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("a turn was free");
    }
}
