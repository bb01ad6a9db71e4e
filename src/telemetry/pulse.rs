//! How a loop shows that it is alive. Before it waits, it announces how long that may take ([`within`]), or that it
//! waits for an event, however long ([`resting`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a loop's own work between two waits may take, such as parsing a response.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// The pulse of the running loop.
    static PULSE: Arc<Pulse>;
}

/// When a loop must announce its next wait.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) name: &'static str,
    /// `None`: it waits for an event.
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

/// Runs a loop that announces its waits to `pulse`.
pub(crate) fn with<T>(pulse: Arc<Pulse>, work: impl Future<Output = T>) -> impl Future<Output = T> {
    PULSE.scope(pulse, Box::pin(work))
}

/// Announces that the next step of the running loop may take this long, and its own work [`GRACE`] more. Does nothing
/// outside a loop.
pub(crate) fn within(step: Duration) {
    let _ = PULSE.try_with(|pulse| pulse.set(Instant::now().checked_add(step + GRACE)));
}

/// Announces that the running loop waits for an event, however long that takes.
pub(crate) fn resting() {
    let _ = PULSE.try_with(|pulse| pulse.set(None));
}

/// The result of the last login or `/sync` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Homeserver {
    /// No request has ended yet.
    Unknown,
    /// It succeeded.
    Answers,
    /// It failed, with this error.
    Fails(String),
}
