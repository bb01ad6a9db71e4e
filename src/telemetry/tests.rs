//! Log lines as they are written, captured.

use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::text::needs_escape;

/// A writer into memory.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn capture(level: &str, pretty: bool, colour: bool, log: impl FnOnce()) -> String {
    let captured = Captured::default();
    let subscriber = subscriber(level, pretty, colour, captured.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, log);
    let text = captured.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

const HOSTILE: &str = "a\u{1b}[2J\u{202e}b\r\n12:00:00 ERROR forged\u{9b}31m\u{e0041}";

fn log_hostile() {
    let span = tracing::info_span!("backfill", room.id = HOSTILE, room.name = %HOSTILE);
    let _entered = span.enter();
    tracing::info!(name = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, "room {HOSTILE}");
    let error = io::Error::other(HOSTILE);
    tracing::warn!(error = &error as &dyn std::error::Error, "it failed");
}

#[test]
fn pretty_lines_let_nothing_raw_through() {
    let text = capture("info", true, false, log_hostile);
    assert_eq!(text.lines().count(), 2, "{text}");
    let raw = |c: char| c != '\n' && needs_escape(c);
    assert!(!text.contains(raw), "{text:?}");
    let message = "room a\\u{1b}[2J\\u{202e}b\\r\\n12:00:00 ERROR forged\\u{9b}31m\\u{e0041} name=";
    assert!(text.contains(message), "{text}");
    assert!(text.contains("it failed error=\"a\\u{1b}"), "{text}");

    let colour = capture("info", true, true, log_hostile);
    let plain = [DIM, RESET, "\x1b[32m", "\x1b[33m"];
    let stripped = plain.iter().fold(colour, |text, code| text.replace(code, ""));
    assert_eq!(without_clock(&stripped), without_clock(&text));
}

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

fn without_clock(text: &str) -> Vec<&str> {
    text.lines().map(|line| &line[8..]).collect()
}

#[test]
fn json_lines_let_nothing_raw_through_and_lose_nothing() {
    let text = capture("info", false, false, log_hostile);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains(|c| c != '\n' && needs_escape(c)), "{text:?}");
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["message"], format!("room {HOSTILE}"));
    assert_eq!(line["name"], HOSTILE);
    assert_eq!(line["spans"][0]["room.id"], HOSTILE);
    assert_eq!(line["spans"][0]["room.name"], HOSTILE);
    assert_eq!(line["level"], "INFO");
}

#[test]
fn a_pretty_line_is_short() {
    let text = capture("info", true, false, || {
        let _span = tracing::info_span!("backfill", room.id = "!abc:hs").entered();
        tracing::info!(event_count = 1000, duration_ms = 12, note = "two words", "stored a page");
    });
    assert_eq!(
        without_clock(&text),
        [" INFO  backfill room.id=!abc:hs: stored a page event_count=1000 duration_ms=12 note=\"two words\""]
    );
    let clock = &text[..8];
    assert!(clock.as_bytes()[2] == b':' && clock.as_bytes()[5] == b':', "{clock}");
}

#[test]
fn levels_are_obeyed_and_libraries_are_quiet() {
    let log = || {
        tracing::info!(target: "sqlx::query", "a query");
        tracing::warn!(target: "hyper", "a warning");
        tracing::debug!("ours");
    };
    let count = |level| capture(level, true, false, log).lines().count();
    assert_eq!((count("error"), count("info"), count("debug")), (0, 1, 2));
    assert_eq!(count("debug,sqlx=info"), 3);
    assert_eq!(count("off"), 0);
}

#[test]
fn the_format_follows_the_terminal() {
    assert!(is_pretty(LogFormat::Auto, true) && !is_pretty(LogFormat::Auto, false));
    assert!(is_pretty(LogFormat::Pretty, false) && !is_pretty(LogFormat::Json, true));
}
