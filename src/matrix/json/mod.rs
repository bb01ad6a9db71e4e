//! JSON without loss.
//!
//! A homeserver may serve JSON that `serde_json::Value` and PostgreSQL's `jsonb` cannot store: NUL and lone
//! surrogates in strings, `1e400`, `-0`, integers of thirty digits, duplicate keys, extreme nesting. Here numbers
//! stay tokens, strings are WTF-8 (UTF-8 that may contain lone surrogates), objects keep every member, and values
//! that are nested deeper than [`MAX_DEPTH`] stay text. The input is always a [`RawValue`], so it is well-formed.

mod reader;

use std::cmp::Ordering;

use serde_json::value::RawValue;

use self::reader::Reader;

/// The levels of nesting that are parsed. Deeper values stay text.
pub(crate) const MAX_DEPTH: usize = 200;
/// The longest number that is stored in `jsonb` as a number. PostgreSQL's `numeric` has at most 16,383 fraction digits.
const MAX_NUMBER: usize = 1000;
/// The largest exponent that is stored in `jsonb` as a number. Beyond it, fifteen bytes print as a hundred thousand
/// digits.
const MAX_EXPONENT: i32 = 308;
/// Begins an escape in a text column; see [`Text::to_column`].
const ESCAPE: char = '\u{F8FE}';

/// A decoded JSON string as WTF-8 bytes.
#[derive(Clone, Debug)]
pub(crate) enum Text<'a> {
    /// Without escapes: the text between the quotes.
    Plain(&'a str),
    /// With escapes, decoded.
    Decoded(Vec<u8>),
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// A JSON value. [`Json::parse`] reads one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    /// `null`, `true` or `false`.
    Literal(&'a str),
    /// A number's token as served.
    Number(&'a str),
    /// A string.
    String(Text<'a>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object's members in the order served, duplicates included.
    Object(Vec<(Text<'a>, Json<'a>)>),
    /// The text of a value nested deeper than [`MAX_DEPTH`].
    Deep(&'a str),
}

/// One member of an object. Its value is not parsed.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// The decoded name.
    pub(crate) name: Text<'a>,
    /// `"name": value` as served.
    pub(crate) whole: &'a str,
    /// The value as served.
    pub(crate) value: &'a str,
}

/// The members of `raw`. Their values are not parsed. `None`: it is not an object.
pub(crate) fn members(raw: &RawValue) -> Option<Vec<Member<'_>>> {
    let mut reader = Reader::new(raw.get());
    reader.members()
}

/// The members of a [`Member::value`]. `None`: it is not an object.
pub(crate) fn members_of(value: &str) -> Option<Vec<Member<'_>>> {
    Reader::new(value).members()
}

impl<'a> Json<'a> {
    /// Parses a value that is known to be well-formed, such as a [`RawValue`] or a [`Member::value`].
    pub(crate) fn parse(text: &'a str) -> Self {
        Reader::new(text).value(0)
    }

    /// The last member called `name` of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().rev().find(|(key, _)| key.is(name)).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The string, if it is one.
    pub(crate) fn as_text(&self) -> Option<&Text<'a>> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Removes all members called `name` of an object.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Self::Object(members) = self {
            members.retain(|(key, _)| !key.is(name));
        }
    }

    /// Appends the value as text for a `jsonb` column. Returns whether `jsonb` returns it as served. If not, NUL and
    /// lone surrogates are replaced by U+FFFD, huge numbers are strings, and values that are nested too deeply are
    /// null.
    pub(crate) fn write_jsonb(&self, out: &mut String) -> bool {
        match self {
            Self::Literal(token) => {
                out.push_str(token);
                true
            }
            Self::Number(token) => write_number(token, out),
            Self::String(text) => text.write_jsonb(out),
            Self::Array(items) => {
                let mut faithful = true;
                write_list(out, ['[', ']'], items, |item, out| faithful &= item.write_jsonb(out));
                faithful
            }
            Self::Object(members) => {
                let mut faithful = !has_duplicates(members);
                write_list(out, ['{', '}'], members, |(name, value), out| {
                    faithful &= name.write_jsonb(out);
                    out.push(':');
                    faithful &= value.write_jsonb(out);
                });
                faithful
            }
            Self::Deep(_) => {
                out.push_str("null");
                false
            }
        }
    }

    /// Appends the value as canonical JSON (specification, appendices, "Canonical JSON"). There are two exceptions,
    /// so that every value has such a form: numbers and values that are nested too deeply stay as served.
    pub(crate) fn write_canonical(&self, out: &mut String) {
        match self {
            Self::Literal(token) | Self::Number(token) | Self::Deep(token) => out.push_str(token),
            Self::String(text) => text.write_canonical(out),
            Self::Array(items) => write_list(out, ['[', ']'], items, Self::write_canonical),
            Self::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
                write_list(out, ['{', '}'], &sorted, |(name, value), out| {
                    name.write_canonical(out);
                    out.push(':');
                    value.write_canonical(out);
                });
            }
        }
    }
}

/// Appends a string as canonical JSON.
pub(crate) fn write_canonical_text(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return Text::Decoded(text.as_bytes().to_vec()).write_canonical(out);
    }
    Text::Plain(text).write_canonical(out);
}

impl Text<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Decoded(bytes) => bytes,
        }
    }

    /// Whether this is `other`.
    pub(crate) fn is(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }

    /// The text. `None`: it contains NUL or a lone surrogate, which PostgreSQL's text cannot.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            // NUL occurs in JSON only as an escape.
            Self::Plain(text) => Some(text),
            Self::Decoded(bytes) => std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')),
        }
    }

    /// The text for a column, and whether it is unchanged. Escapes: U+F8FE `0` for NUL, U+F8FE `1` for U+F8FE itself,
    /// U+F8FE and four hexadecimal digits for a lone surrogate. Different strings give different texts.
    pub(crate) fn to_column(&self) -> (String, bool) {
        if let Some(text) = self.as_str().filter(|text| !text.contains(ESCAPE)) {
            return (text.to_owned(), true);
        }
        let mut column = String::with_capacity(self.as_bytes().len() + 8);
        for code_point in self.code_points() {
            match char::from_u32(code_point) {
                Some('\0') => column.extend([ESCAPE, '0']),
                Some(ESCAPE) => column.extend([ESCAPE, '1']),
                Some(character) => column.push(character),
                None => {
                    column.push(ESCAPE);
                    push_hex(code_point, &mut column);
                }
            }
        }
        (column, false)
    }

    fn write_jsonb(&self, out: &mut String) -> bool {
        let faithful = self.as_str().is_some();
        write_quoted(self, out, |code_point, out| match char::from_u32(code_point) {
            Some('\0') | None => out.push(char::REPLACEMENT_CHARACTER),
            Some(_) => {
                out.push_str("\\u");
                push_hex(code_point, out);
            }
        });
        faithful
    }

    fn write_canonical(&self, out: &mut String) {
        write_quoted(self, out, |code_point, out| {
            out.push_str("\\u");
            push_hex(code_point, out);
        });
    }

    /// Decodes WTF-8. Only used for the few strings that are not UTF-8 or need an escape.
    fn code_points(&self) -> impl Iterator<Item = u32> {
        let mut rest = self.as_bytes();
        std::iter::from_fn(move || {
            let (&first, _) = rest.split_first()?;
            let (length, bits) = match first {
                0..0x80 => (1, u32::from(first)),
                0x80..0xE0 => (2, u32::from(first & 0x1F)),
                0xE0..0xF0 => (3, u32::from(first & 0x0F)),
                0xF0.. => (4, u32::from(first & 0x07)),
            };
            let (head, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = tail;
            let continuation = head.get(1..).unwrap_or_default();
            Some(continuation.iter().fold(bits, |bits, byte| bits << 6 | u32::from(byte & 0x3F)))
        })
    }
}

/// Writes a quoted string. `special` writes lone surrogates and the control characters without a short escape.
fn write_quoted(text: &Text<'_>, out: &mut String, special: impl Fn(u32, &mut String)) {
    out.push('"');
    if let Text::Plain(text) = text {
        // Other characters need no escape in JSON.
        out.push_str(text);
    } else {
        for code_point in text.code_points() {
            match char::from_u32(code_point) {
                Some('"') => out.push_str("\\\""),
                Some('\\') => out.push_str("\\\\"),
                Some('\n') => out.push_str("\\n"),
                Some('\r') => out.push_str("\\r"),
                Some('\t') => out.push_str("\\t"),
                Some('\u{8}') => out.push_str("\\b"),
                Some('\u{c}') => out.push_str("\\f"),
                Some(character) if character >= ' ' => out.push(character),
                _ => special(code_point, out),
            }
        }
    }
    out.push('"');
}

fn write_list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: &[T],
    mut write: impl FnMut(&T, &mut String),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

fn write_number(token: &str, out: &mut String) -> bool {
    let exponent = token.split_once(['e', 'E']).map(|(_, exponent)| exponent.parse::<i32>());
    let holdable = token.len() <= MAX_NUMBER
        && exponent
            .as_ref()
            .is_none_or(|exponent| exponent.as_ref().is_ok_and(|exponent| exponent.abs() <= MAX_EXPONENT));
    if !holdable {
        out.push('"');
        out.push_str(token);
        out.push('"');
        return false;
    }
    out.push_str(token);
    let negative_zero =
        token.starts_with('-') && token.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.'));
    exponent.is_none() && !negative_zero
}

/// Appends the four hexadecimal digits of a code point of the first plane.
fn push_hex(code_point: u32, out: &mut String) {
    for shift in [12, 8, 4, 0] {
        out.extend(char::from_digit(code_point >> shift & 0xF, 16));
    }
}

fn has_duplicates(members: &[(Text<'_>, Json<'_>)]) -> bool {
    if members.len() <= 8 {
        return members
            .iter()
            .enumerate()
            .any(|(index, (name, _))| members.iter().take(index).any(|(other, _)| other == name));
    }
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| matches!(pair, [left, right] if left == right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsonb(text: &str) -> (String, bool) {
        let mut out = String::new();
        let faithful = Json::parse(text).write_jsonb(&mut out);
        (out, faithful)
    }

    fn canonical(text: &str) -> String {
        let mut out = String::new();
        Json::parse(text).write_canonical(&mut out);
        out
    }

    #[test]
    fn jsonb_says_what_it_cannot_hold() {
        for (text, sanitised, faithful) in [
            (r#"{"a": [1, 2.50, "é\n\"", true, null]}"#, r#"{"a":[1,2.50,"é\n\"",true,null]}"#, true),
            (r#"{"b\\u0000":1}"#, r#"{"b\\u0000":1}"#, true),
            (r#""\u0000""#, "\"\u{fffd}\"", false),
            (r#"{"\u0000k":1}"#, "{\"\u{fffd}k\":1}", false),
            (r#""a\ud800b""#, "\"a\u{fffd}b\"", false),
            (r#""\ud83d\ude00""#, "\"😀\"", true),
            (r#""\u001b""#, r#""\u001b""#, true),
            ("1e400", r#""1e400""#, false),
            ("1e20", "1e20", false),
            ("-0", "-0", false),
            ("-0.0", "-0.0", false),
            ("-0.5", "-0.5", true),
            ("123456789012345678901234567890", "123456789012345678901234567890", true),
            (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#, false),
            ("[]", "[]", true),
            ("{}", "{}", true),
        ] {
            assert_eq!(jsonb(text), (sanitised.to_owned(), faithful), "{text}");
        }
    }

    #[test]
    fn what_is_too_deep_is_skipped_without_recursion() {
        let depth = 200_000;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (text, faithful) = jsonb(&deep);
        assert!(!faithful);
        assert_eq!(text, format!("{}null{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)));
        assert_eq!(canonical(&deep), deep);
    }

    #[test]
    fn canonical_json_is_that_of_the_specification() {
        for (text, expected) in [
            ("{}", "{}"),
            (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
            (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
            (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
            (r#"{"a": null}"#, r#"{"a":null}"#),
            (r#"{"a":"\/\u0007\ud800"}"#, r#"{"a":"/\u0007\ud800"}"#),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }

    #[test]
    fn columns_stay_apart() {
        let column = |text| Json::parse(text).as_text().map(Text::to_column);
        assert_eq!(column(r#""plain""#), Some(("plain".to_owned(), true)));
        assert_eq!(column(r#""a\u0000""#), Some(("a\u{F8FE}0".to_owned(), false)));
        assert_eq!(column("\"a\u{F8FE}0\""), Some(("a\u{F8FE}10".to_owned(), false)));
        assert_eq!(column(r#""\udfff""#), Some(("\u{F8FE}dfff".to_owned(), false)));
    }

    #[test]
    fn members_keep_their_text() {
        let text = r#" { "a" : {"x": [1, "}"]} , "b\u0041":"\"" } "#;
        let members = members_of(text.trim()).expect("an object");
        let shown: Vec<_> = members.iter().map(|member| (member.whole, member.value)).collect();
        assert_eq!(
            shown,
            [(r#""a" : {"x": [1, "}"]}"#, r#"{"x": [1, "}"]}"#), (r#""b\u0041":"\"""#, r#""\"""#)]
        );
        assert!(members_of("[1]").is_none());
        assert!(members[1].name.is("bA"));
    }

    #[test]
    fn malformed_text_does_no_harm() {
        for text in
            ["", "{", "[", "{\"", "{\"a\"", "{\"a\":", "[1,,", "\"\\", "]", "}{", "{1:2}", "[[[", "\"é\\"]
        {
            let _ = Json::parse(text);
            let _ = members_of(text);
        }
    }
}
