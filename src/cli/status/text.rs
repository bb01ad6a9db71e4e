//! Lays out text for a terminal or a pipe, and formats numbers for people.

use std::io::{self, Write as _};

use console::{Term, measure_text_width, truncate_str};

use crate::text::escape;

/// The width if stdout is not a terminal.
const COLUMNS: usize = 100;
const FEWEST_COLUMNS: usize = 40;
/// The number of days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// The width and colours of standard output.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Canvas {
    pub(in crate::cli) columns: usize,
    pub(in crate::cli) colour: bool,
}

impl Canvas {
    /// For standard output. The width of a pipe is taken from `COLUMNS`, which `watch` sets.
    pub(in crate::cli) fn stdout() -> Self {
        let term = Term::stdout();
        let screen = term.size_checked().map(|(_, columns)| usize::from(columns));
        let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
        let columns = screen.filter(|columns| *columns > 0).or_else(variable).unwrap_or(COLUMNS);
        Self { columns: columns.max(FEWEST_COLUMNS), colour: term.features().colors_supported() }
    }

    /// The text in the colour or weight of an SGR `code`.
    pub(in crate::cli) fn paint(self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Wraps the text and indents it to column `indent`. The first line begins with `head`, which must be that wide.
    pub(in crate::cli) fn hang(self, head: &str, indent: usize, text: &str) -> String {
        let lines = wrap(text, self.columns.saturating_sub(indent));
        let mut laid = String::new();
        for (n, line) in lines.iter().enumerate() {
            if n == 0 {
                laid.push_str(head);
            } else {
                laid.push_str(&" ".repeat(indent));
            }
            laid.push_str(line);
            laid.push('\n');
        }
        laid
    }
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(in crate::cli) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Escapes the text and cuts it to at most `width` columns.
pub(in crate::cli) fn cut(text: &str, width: usize) -> String {
    truncate_str(&escape(text), width, "…").into_owned()
}

/// Escapes the text and wraps it to lines of at most `width` columns, between words if possible. Returns at least one
/// line.
pub(in crate::cli) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in escape(text).split_whitespace() {
        let gap = usize::from(!line.is_empty());
        if gap > 0 && measure_text_width(&line) + gap + measure_text_width(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            let mut bytes = [0; 4];
            if measure_text_width(&line) + measure_text_width(c.encode_utf8(&mut bytes)) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

/// `1,234,567`.
pub(in crate::cli) fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 room`, `1,234 rooms`.
pub(in crate::cli) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", thousands(i64::try_from(number).unwrap_or(i64::MAX)))
}

/// `8.4 MB`, `843 MB`, `1.2 GB`; decimal units.
pub(super) fn size(bytes: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes.max(0) as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        // Use the larger unit already if the value would be rounded to 1000.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit != "B" && value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `12 s ago`, `3 min ago`, `5 h ago`, `12 days ago`.
pub(super) fn ago(seconds: f64) -> String {
    match whole(seconds.floor()) {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", thousands(seconds / 86_400)),
    }
}

/// `45s`, `14m`, `3h`, `12d`, as in the progress lines: rounded up, because an estimate is not more exact than that.
pub(super) fn left(seconds: f64) -> String {
    match whole(seconds) {
        seconds @ 0..100 => format!("{seconds}s"),
        seconds @ 100..6000 => format!("{}m", (seconds + 59) / 60),
        seconds @ 6000..172_800 => format!("{}h", (seconds + 3599) / 3600),
        seconds @ 172_800..8_640_000 => format!("{}d", (seconds + 86_399) / 86_400),
        _ => ">99d".to_owned(),
    }
}

/// `0.4/s`, `1,234/s`.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        format!("{:.1}/s", per_second.max(0.0))
    } else {
        format!("{}/s", thousands(whole(per_second)))
    }
}

/// The day, in UTC, of a time in milliseconds. A server may send any number.
pub(super) fn day(milliseconds: i64) -> String {
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

/// Rounds to a whole number. A negative number or NaN becomes 0.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn whole(value: f64) -> i64 {
    value.round().max(0.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(-1000), "-1,000");
        assert_eq!(count(1, "room"), "1 room");
        assert_eq!(count(1200, "room"), "1,200 rooms");
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (8_420_000, "8.4 MB"),
            (9_960_000, "10 MB"),
            (999_600_000, "1.0 GB"),
            (i64::MAX, "9223 PB"),
            (-1, "0 B"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(
            [rate(0.04), rate(9.94), rate(9.96), rate(12_345.6)],
            ["0.0/s", "9.9/s", "10/s", "12,346/s"]
        );
    }

    #[test]
    fn times_are_for_people() {
        for (seconds, shown) in [
            (-3.0, "0 s ago"),
            (59.9, "59 s ago"),
            (60.0, "1 min ago"),
            (3600.0, "1 h ago"),
            (172_800.0, "2 days ago"),
            (1e12, "11,574,074 days ago"),
            (f64::NAN, "0 s ago"),
        ] {
            assert_eq!(ago(seconds), shown);
        }
        let shown = [0.0, 99.0, 100.0, 6000.0, 172_800.0, 1e18, f64::INFINITY].map(left);
        assert_eq!(shown, ["0s", "99s", "2m", "2h", "2d", ">99d", ">99d"]);
        let shown = [0, 951_782_400_000, 1_614_816_000_000, -1, i64::MAX, i64::MIN].map(day);
        assert_eq!(shown, ["1970-01-01", "2000-02-29", "2021-03-04", "odd date", "odd date", "odd date"]);
    }

    #[test]
    fn lines_are_broken_between_words_by_what_is_seen() {
        assert_eq!(wrap("the server gives no older event", 14), ["the server", "gives no older", "event"]);
        assert_eq!(wrap("a verylongwordindeed", 10), ["a", "verylongwo", "rdindeed"]);
        assert_eq!(wrap("日本語の部屋の名前", 8), ["日本語の", "部屋の名", "前"]);
        assert_eq!(wrap("a\u{1b}[2J\nb", 40), ["a\\u{1b}[2J\\nb"]);
        assert_eq!(wrap("", 40), [""]);
    }

    #[test]
    fn names_are_cut_by_what_is_seen() {
        assert_eq!(cut("日本語の部屋", 8), "日本語…");
        assert_eq!(cut("a\nb", 8), "a\\nb");
    }

    #[test]
    fn a_text_hangs_beside_its_head() {
        let canvas = Canvas { columns: 20, colour: false };
        assert_eq!(canvas.hang("head  ", 6, "one two three four"), "head  one two three\n      four\n");
    }
}
