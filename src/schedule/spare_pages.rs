//! Limits how many pages are fetched ahead, because each needs memory.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many pages may be in memory besides the next one of each walk, counted over all walks.
const SPARE: usize = 4;

/// Permits for pages that are fetched ahead.
#[derive(Debug)]
pub(crate) struct SparePages(Semaphore);

impl Default for SparePages {
    fn default() -> Self {
        Self(Semaphore::new(SPARE))
    }
}

impl SparePages {
    /// A permit for one page, if one is left.
    pub(crate) fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}
