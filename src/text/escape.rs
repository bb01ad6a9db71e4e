//! Makes text from rooms safe to print. Anybody can choose such a text, so a character that would control the
//! terminal, break a line of the log or change the reading direction is shown as its code point.

use std::borrow::Cow;
use std::fmt;

/// Whether a character must be escaped: control characters, line and paragraph separators, bidirectional and other
/// invisible format characters, and tags.
pub(crate) const fn needs_escape(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// Escapes every such character, as `\n`, `\t` or `\u{202e}`. Borrows the text if there is none.
///
/// A backslash stays a backslash: the result is for reading, not for parsing.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(needs_escape) { Cow::Owned(Printable(text).to_string()) } else { Cow::Borrowed(text) }
}

/// Displays a text escaped. Width and precision work as for a `str`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_some() || f.precision().is_some() {
            return f.pad(&escape(self.0));
        }
        write_escaped(f, self.0)
    }
}

/// Writes a text escaped.
pub(crate) fn write_escaped(to: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\n' | '\t' | '\r' => write!(to, "{}", c.escape_default())?,
            c if needs_escape(c) => write!(to, "{}", c.escape_unicode())?,
            c => to.write_char(c)?,
        }
    }
    Ok(())
}

/// Writes JSON with every such character as `\u202e`. JSON itself escapes few characters. Other such characters occur
/// only inside strings, so they are escaped in JSON's notation too, and the value stays the same.
pub(crate) fn write_escaped_json(to: &mut impl fmt::Write, json: &str) -> fmt::Result {
    for c in json.chars() {
        if needs_escape(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(to, "\\u{unit:04x}")?;
            }
        } else {
            to.write_char(c)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_obeys_and_nothing_else() {
        assert_eq!(escape("Café ☕ 日本語 👩‍👩‍👧"), "Café ☕ 日本語 👩‍👩‍👧");
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
        assert_eq!(escape("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("a\nb\r\tc\0"), "a\\nb\\r\\tc\\u{0}");
        assert_eq!(escape("\u{9b}2J\u{7f}"), "\\u{9b}2J\\u{7f}");
        assert_eq!(escape("abc\u{202e}fed\u{2066}"), "abc\\u{202e}fed\\u{2066}");
        assert_eq!(escape("\u{2028}\u{feff}\u{200f}"), "\\u{2028}\\u{feff}\\u{200f}");
        assert_eq!(escape("C:\\n"), "C:\\n");
    }

    #[test]
    fn no_control_character_gets_through() {
        for c in (0..=0x0010_ffff_u32).filter_map(char::from_u32).filter(|c| c.is_control()) {
            let shown = Printable(&c.to_string()).to_string();
            assert!(!shown.contains(c) && shown.is_ascii(), "{c:?}");
        }
    }

    #[test]
    fn pads_and_cuts_what_is_shown() {
        assert_eq!(format!("{:<6}|", Printable("a\n")), "a\\n   |");
        assert_eq!(format!("{:.3}|", Printable("\u{1b}[2J")), "\\u{|");
    }
}
