//! The output of a running daemon: log lines and progress on stderr, and metrics.
//!
//! Text from rooms is [escaped](crate::text::escape()) before it is logged, so that a room's name can neither control
//! a terminal nor forge a log line. Log lines are printed above the progress lines.

mod format;
pub(crate) mod level;
pub(crate) mod metrics;
pub(crate) mod progress;
pub(crate) mod pulse;

use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

pub(crate) use progress::{Progress, Reached, RoomProgress};

use crate::{
    config::{LogFormat, LogSettings},
    text::is_colour_wanted,
};

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The level is not valid.
    #[error("`log.level` is not valid: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// It was started before. A process can start it once.
    #[error("logging has been started twice")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// The running telemetry, from which [`Progress`] is made.
#[derive(Clone, Debug)]
pub struct Telemetry {
    bars: MultiProgress,
    terminal: bool,
    colour: bool,
}

/// Starts logging to stderr for the whole process. Call it once.
pub(crate) fn start(settings: &LogSettings) -> Result<Telemetry, Error> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && is_colour_wanted();
    let pretty = is_pretty(settings.format, terminal);
    let telemetry = Telemetry::new(terminal && pretty, colour);
    let writer = AboveBars(telemetry.bars.clone());
    subscriber(&settings.level, pretty, colour, writer)?.try_init()?;
    Ok(telemetry)
}

impl Telemetry {
    /// `terminal`: whether stderr is a terminal. Progress lines are drawn only there.
    pub fn new(terminal: bool, colour: bool) -> Self {
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), terminal, colour }
    }

    /// The progress of one run: drawn on a terminal, logged elsewhere.
    pub(crate) fn progress(&self) -> Progress {
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

/// Clears the progress lines while it writes to stderr.
#[derive(Clone)]
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    /// The formatter writes whole lines, so the progress lines are cleared once for each.
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
