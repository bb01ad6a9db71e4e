//! Renders the progress lines for a terminal.

use std::time::Instant;

use console::truncate_str;

use super::{Following, Room};
use crate::text::{count, day, duration, escape, fit, paint, thousands, whole};

/// The most rooms that have a line of their own.
const MOST_LINES: usize = 12;

/// The width of the columns to the right of the name, without the bar: events, rate, date, percent, time left, and
/// gaps.
const NUMBERS: usize = 54;

/// The largest width of the name, however wide the terminal is.
const WIDEST_NAME: usize = 44;

/// The smallest width of a terminal on which a bar is shown.
const WIDTH_FOR_BAR: usize = 110;
const BAR: usize = 16;

/// The size and colours of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) colour: bool,
}

impl Canvas {
    fn paint(self, code: &str, text: &str) -> String {
        paint(self.colour, code, text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// One column stays free, because some terminals wrap after the last one.
    fn width(self) -> usize {
        self.columns.saturating_sub(1)
    }

    fn bar_width(self) -> usize {
        if self.columns >= WIDTH_FOR_BAR { BAR + 2 } else { 0 }
    }

    fn name_width(self) -> usize {
        let left = self.width().saturating_sub(NUMBERS + self.bar_width());
        left.clamp(8, WIDEST_NAME)
    }

    /// Half of the screen at most, to leave space for log lines above.
    fn room_lines(self) -> usize {
        (self.rows / 2).clamp(1, MOST_LINES)
    }
}

/// A line for each active room, `… and 12 more`, and a line for `/sync`.
pub(super) fn lines(
    rooms: &[Room],
    following: Option<Following>,
    now: Instant,
    canvas: Canvas,
) -> Vec<String> {
    let most = canvas.room_lines();
    let shown = if rooms.len() > most { most - 1 } else { rooms.len() };
    let mut lines: Vec<_> = rooms.iter().take(shown).map(|r| room(r, canvas)).collect();
    if rooms.len() > shown {
        let more = format!("… and {} more", thousands((rooms.len() - shown) as u64));
        lines.push(canvas.dim(&more));
    }
    if let Some(following) = following {
        lines.push(follow(following, now, canvas));
    }
    lines.iter().map(|line| truncate_str(line, canvas.width(), "").into_owned()).collect()
}

/// `#general:hs         1,234,567 ev   2,345/s  2021-03-04   63%  14m left`
fn room(room: &Room, canvas: Canvas) -> String {
    let reached = room.reached.unwrap_or_default();
    let share = reached.share();
    let rate = room
        .events
        .per_second()
        .map_or_else(|| "…".to_owned(), |rate| format!("{}/s", thousands(whole(rate))));
    let date = reached.oldest_ts.map_or_else(String::new, day);
    let percent = share.map_or_else(String::new, |share| format!("{}%", floor_percent(share)));
    let left = room.seconds_left().map_or_else(String::new, |seconds| format!("{} left", duration(seconds)));
    let bar = match share {
        _ if canvas.bar_width() == 0 => String::new(),
        Some(share) => format!("  {}", bar(share, canvas)),
        None => " ".repeat(canvas.bar_width()),
    };
    format!(
        "{}  {:>11} ev {}  {}{bar}  {percent:>4} {}",
        canvas.paint("36", &fit(&room.name, canvas.name_width())),
        thousands(reached.event_count),
        canvas.dim(&format!("{rate:>9}")),
        canvas.dim(&format!("{date:>10}")),
        canvas.dim(&format!("{left:>9}")),
    )
}

fn follow(following: Following, now: Instant, canvas: Canvas) -> String {
    let news = match following.last_news {
        None => "nothing new yet".to_owned(),
        Some(at) => {
            let ago = now.saturating_duration_since(at).as_secs();
            let events = count(following.event_count, "new event");
            format!("{events}, the last {} ago", duration(ago))
        }
    };
    let rooms = count(following.room_count as u64, "room");
    let head = canvas.paint("32", &format!("following {rooms}"));
    format!("{head}{}", canvas.dim(&format!(": {news}")))
}

/// The line that stays on the screen when a room is done.
pub(super) fn outcome(room: &Room, state: &str, now: Instant, canvas: Canvas) -> String {
    let took = now.saturating_duration_since(room.since).as_secs();
    let reached = room.reached.unwrap_or_default();
    let name = canvas.paint("36", &fit(&room.name, canvas.name_width()));
    let line =
        format!("{name}  {:>11} ev  {}", thousands(reached.event_count), canvas.paint("1", &escape(state)));
    let detail = canvas.dim(&format!(", {} new in {}", thousands(room.stored), duration(took)));
    truncate_str(&format!("{line}{detail}"), canvas.width(), "…").into_owned()
}

fn bar(share: f64, canvas: Canvas) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let full = usize::try_from(whole(share * BAR as f64)).unwrap_or(BAR).min(BAR);
    let done = canvas.paint("32", &"━".repeat(full));
    format!("{done}{}", canvas.dim(&"─".repeat(BAR - full)))
}

/// Rounded down: 100 only when nothing is left.
fn floor_percent(share: f64) -> u64 {
    whole((share * 100.0).floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_reached_only_at_the_end() {
        assert_eq!([0.999, 1.0].map(floor_percent), [99, 100]);
    }
}
