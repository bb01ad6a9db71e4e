//! Lays out text for a terminal or a pipe, and colours it if the terminal allows it.

use std::{
    fmt::{self, Display},
    io::{self, Write as _},
};

use console::{Term, measure_text_width, truncate_str};

use super::escape::escape;

/// The width if stdout is not a terminal.
const COLUMNS: usize = 100;
const FEWEST_COLUMNS: usize = 40;

/// The width and colours of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canvas {
    pub(crate) columns: usize,
    pub(crate) colour: bool,
}

impl Canvas {
    /// For standard output. The width of a pipe is taken from `COLUMNS`, which `watch` sets.
    pub(crate) fn stdout() -> Self {
        let term = Term::stdout();
        let screen = term.size_checked().map(|(_, columns)| usize::from(columns));
        let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
        let columns = screen.filter(|columns| *columns > 0).or_else(variable).unwrap_or(COLUMNS);
        Self { columns: columns.max(FEWEST_COLUMNS), colour: term.is_term() && is_colour_wanted() }
    }

    /// The text in the colour or weight of an SGR `code`.
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        paint(self.colour, code, text)
    }

    /// Wraps the text and indents it to column `indent`. The first line begins with `head`, which must be that wide.
    pub(crate) fn hang(self, head: &str, indent: usize, text: &str) -> String {
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

/// Whether the environment allows colours on a terminal.
pub(crate) fn is_colour_wanted() -> bool {
    allows_colour(|name| std::env::var(name).ok())
}

/// See <https://no-color.org>: any value but an empty one means no.
fn allows_colour(variable: impl Fn(&str) -> Option<String>) -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && variable("TERM").as_deref() != Some("dumb")
}

/// Displays a text in the colour or weight of an SGR `code`, if `colour` is set.
pub(crate) struct Painted<'c, T> {
    pub(crate) colour: bool,
    pub(crate) code: &'c str,
    pub(crate) text: T,
}

impl<T: Display> Display for Painted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { colour, code, text } = self;
        if *colour { write!(f, "\x1b[{code}m{text}\x1b[0m") } else { text.fmt(f) }
    }
}

/// The text in the colour or weight of an SGR `code`, if `colour` is set and the text is not blank.
pub(crate) fn paint(colour: bool, code: &str, text: &str) -> String {
    let colour = colour && !code.is_empty() && !text.trim().is_empty();
    Painted { colour, code, text }.to_string()
}

/// Writes to standard output. A reader that closes the pipe early is not an error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Escapes the text and cuts it to at most `width` columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    truncate_str(&escape(text), width, "…").into_owned()
}

/// Escapes a name, and cuts or pads it to exactly this many columns.
pub(crate) fn fit(name: &str, width: usize) -> String {
    let escaped = escape(name);
    let cut = truncate_str(&escaped, width, "…");
    let gap = width.saturating_sub(measure_text_width(&cut));
    format!("{cut}{}", " ".repeat(gap))
}

/// Escapes the text and wraps it to lines of at most `width` columns, between words if possible. Returns at least one
/// line.
fn wrap(text: &str, width: usize) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_environment() {
        let allows = |name: &'static str, value: &'static str| {
            allows_colour(|asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(allows("TERM", "xterm") && allows("NO_COLOR", ""));
        assert!(!allows("TERM", "dumb") && !allows("NO_COLOR", "1"));
    }

    #[test]
    fn paints_what_can_be_seen() {
        assert_eq!(paint(true, "32", "ok"), "\x1b[32mok\x1b[0m");
        for (colour, code, text) in [(false, "32", "ok"), (true, "", "ok"), (true, "32", "  ")] {
            assert_eq!(paint(colour, code, text), text);
        }
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

    #[test]
    fn a_text_hangs_beside_its_head() {
        let canvas = Canvas { columns: 20, colour: false };
        assert_eq!(canvas.hang("head  ", 6, "one two three four"), "head  one two three\n      four\n");
    }
}
