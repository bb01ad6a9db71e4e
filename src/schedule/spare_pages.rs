//! Memory for pages that are fetched ahead.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many pages beyond the next one may be in memory, those of all walks counted.
const SPARE: usize = 4;

/// Room in memory for pages beyond the next one of a walk.
#[derive(Debug)]
pub struct SparePages(Semaphore);

impl Default for SparePages {
    fn default() -> Self {
        Self(Semaphore::new(SPARE))
    }
}

impl SparePages {
    /// Memory for a page, if any is left.
    pub(crate) fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}
