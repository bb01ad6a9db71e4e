//! The progress of a command: a bar on a terminal, and a log line in a while otherwise.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::text::thousands;

/// How often a line is logged if there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many of the events are done.
pub(super) struct Progress {
    bar: ProgressBar,
    what: Cell<&'static str>,
    logged: Cell<Instant>,
}

impl Progress {
    /// Shows nothing until the first step [begins](Self::begin).
    pub(super) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "{msg:24} {bar:32.cyan/dim} {human_pos} of {human_len} events, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, what: Cell::new(""), logged: Cell::new(Instant::now()) }
    }

    /// Begins a step of so many events.
    pub(super) fn begin(&self, what: &'static str, total: i64) {
        self.bar.reset();
        self.bar.set_length(u64::try_from(total).unwrap_or_default());
        self.bar.set_message(what);
        self.what.set(what);
    }

    /// Shows how many events are done.
    pub(super) fn show(&self, done: u64) {
        self.bar.set_position(done);
        if self.bar.is_hidden() && self.logged.get().elapsed() >= LOG_EVERY {
            self.logged.set(Instant::now());
            let total = self.bar.length().unwrap_or_default();
            tracing::info!(
                event_count = done,
                "{}: {} of {} events",
                self.what.get(),
                thousands(done),
                thousands(total)
            );
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
