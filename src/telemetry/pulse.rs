//! Signs of life of the loops. Before a loop waits it says for how long that may take ([`within`]), or that it waits for
//! something to happen ([`resting`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a loop does between two waits: parsing an answer and storing it.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// That of the loop that is running.
    static PULSE: Arc<Pulse>;
}

/// When a loop is to show the next sign of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) name: &'static str,
    /// `None`: resting.
    due: Mutex<Option<Instant>>,
}

impl Pulse {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, due: Mutex::new(Instant::now().checked_add(GRACE)) }
    }

    fn set(&self, due: Option<Instant>) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|due| now > due)
    }
}

/// Runs a loop whose signs of life go to `pulse`.
pub(crate) fn with<T>(pulse: Arc<Pulse>, work: impl Future<Output = T>) -> impl Future<Output = T> {
    PULSE.scope(pulse, Box::pin(work))
}

/// Says that the running loop's next step may take so long, and work of its own besides. Nothing outside a loop.
pub(crate) fn within(step: Duration) {
    let _ = PULSE.try_with(|pulse| pulse.set(Instant::now().checked_add(step + GRACE)));
}

/// Says that the running loop waits for something to happen, however long that takes.
pub(crate) fn resting() {
    let _ = PULSE.try_with(|pulse| pulse.set(None));
}

/// How the homeserver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Homeserver {
    /// It has not been asked yet.
    Unknown,
    /// The last request for news was answered.
    Answers,
    /// It was not; in words.
    Fails(String),
}
