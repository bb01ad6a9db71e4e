//! What people and machines see of a running daemon: log lines and progress, both on stderr.
//!
//! Whatever reaches a log line has been through [`escape`](crate::text::escape()): a room's name can neither steer a terminal nor
//! forge a line. Log lines go above the progress lines, never through them.

mod format;
pub(crate) mod level;
pub(crate) mod metrics;
pub mod progress;
pub(crate) mod pulse;

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

pub use progress::{Progress, Reached, RoomProgress};

use crate::{
    config::{LogFormat, LogSettings},
    text::is_colour_wanted,
};

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level cannot be understood.
    #[error("`log.level` cannot be understood: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// It runs already; it can be started once in a process.
    #[error("logging has been started twice")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// The running telemetry: who holds it may show progress.
#[derive(Clone, Debug)]
pub struct Telemetry {
    bars: MultiProgress,
    terminal: bool,
    colour: bool,
}

/// Starts logging to stderr, for the whole process and once.
pub fn start(settings: &LogSettings) -> Result<Telemetry, Error> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && is_colour_wanted();
    let pretty = is_pretty(settings.format, terminal);
    let telemetry = Telemetry::new(terminal && pretty, colour);
    let writer = AboveBars(telemetry.bars.clone());
    subscriber(&settings.level, pretty, colour, writer)?.try_init()?;
    Ok(telemetry)
}

impl Telemetry {
    /// One that draws only on a terminal: `terminal` says whether stderr is one.
    pub fn new(terminal: bool, colour: bool) -> Self {
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), terminal, colour }
    }

    /// The progress of one run, drawn on a terminal and logged elsewhere.
    pub fn progress(&self) -> Progress {
        Progress::new(self.bars.clone(), self.terminal, self.colour)
    }
}

const fn is_pretty(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    }
}

fn subscriber<W>(
    level: &str,
    pretty: bool,
    colour: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = if pretty {
        fmt::layer()
            .with_ansi(colour)
            .fmt_fields(format::Fields)
            .event_format(format::Pretty)
            .with_writer(writer)
            .boxed()
    } else {
        fmt::layer().json().map_event_format(format::Json::new).with_writer(writer).boxed()
    };
    Ok(registry().with(level::filter(level)?).with(layer))
}

/// Writes to stderr while the progress lines are away.
#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    /// The formatter hands over whole lines, so that the progress lines are taken away once for each.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.suspend(|| io::stderr().write_all(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveBars {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests;
