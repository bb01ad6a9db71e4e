//! Renders the progress lines for a terminal.

use std::time::Instant;

use console::{measure_text_width, truncate_str};

use super::{Following, Room, rate::whole};
use crate::text::escape;

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

/// The number of days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// The size and colours of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) colour: bool,
}

impl Canvas {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
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
    let date = reached.oldest_ts.map_or_else(String::new, date);
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

/// Escapes a name, and cuts or pads it to exactly this many columns.
fn fit(name: &str, width: usize) -> String {
    let escaped = escape(name);
    let cut = truncate_str(&escaped, width, "…");
    let gap = width.saturating_sub(measure_text_width(&cut));
    format!("{cut}{}", " ".repeat(gap))
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

/// `1 room`, `1,234 rooms`.
pub(super) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(number))
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `45s`, `14m`, `3h`, `12d`: rounded up to a whole unit, because an estimate is not more exact than that.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6000 => format!("{}m", seconds.div_ceil(60)),
        6000..172_800 => format!("{}h", seconds.div_ceil(3600)),
        172_800..8_640_000 => format!("{}d", seconds.div_ceil(86_400)),
        _ => ">99d".to_owned(),
    }
}

/// The day, in UTC, of a time in milliseconds. A server may send any number.
fn date(milliseconds: i64) -> String {
    let (year, month, day) = civil(milliseconds.div_euclid(86_400_000));
    if (1970..=9999).contains(&year) {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        "odd date".to_owned()
    }
}

/// Year, month and day from a number of days since 1970-01-01. Counts years from March, in eras of 400 years.
const fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(count(1, "room"), "1 room");
        assert_eq!(count(0, "room"), "0 rooms");
        for (seconds, shown) in [
            (0, "0s"),
            (99, "99s"),
            (100, "2m"),
            (5999, "100m"),
            (6000, "2h"),
            (172_800, "2d"),
            (u64::MAX, ">99d"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
        assert_eq!(floor_percent(0.999), 99);
        assert_eq!(floor_percent(1.0), 100);
    }

    #[test]
    fn dates_are_right_and_absurd_ones_do_not_panic() {
        for (milliseconds, day) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_614_816_000_000, "2021-03-04"),
            (4_107_542_399_999, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
            (-1, "odd date"),
            (i64::MAX, "odd date"),
            (i64::MIN, "odd date"),
            (9_007_199_254_740_991, "odd date"),
        ] {
            assert_eq!(date(milliseconds), day, "{milliseconds}");
        }
    }

    #[test]
    fn a_name_fills_its_columns_exactly() {
        for name in [
            "",
            "short",
            "#a-very-long-alias-indeed:example.org",
            "日本語の部屋の名前はとても長い",
            "a\u{1b}[2Jb\n",
            "e\u{301}",
            "👩‍👩‍👧 family",
        ] {
            for width in [8, 20, 44] {
                let fitted = fit(name, width);
                assert_eq!(measure_text_width(&fitted), width, "{fitted:?}");
                assert!(!fitted.contains(['\u{1b}', '\n']), "{fitted:?}");
            }
        }
        assert_eq!(fit("日本語の部屋", 8), "日本語… ");
    }
}
