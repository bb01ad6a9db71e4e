//! JSON as text.
//!
//! A server may serve what neither `serde_json` nor `jsonb` can hold: NUL, lone surrogates, `1e400`, thirty digits,
//! duplicate keys (P110-P117). This reader keeps every number as it was written and every member of an object, in
//! order, so what the oracle says does not depend on the libraries under test.

/// Deeper than this a value is not read at all; the event that holds it is opaque to the model.
const DEEPEST: usize = 500;

/// A JSON value. Strings and keys are kept escaped, with escapes normalised: `\u00e9` and `é` are equal here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    Text(String),
    /// A number, `true`, `false` or `null`, as written.
    Bare(String),
}

impl Json {
    /// Reads one value and nothing after it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// Reads one value from bytes, which need not be UTF-8.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?)
    }

    /// The member called `key`; of several the last, as `jsonb` has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let key = escape(key);
        self.members().iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// What `get` finds when followed along a path.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The members of an object, none for anything else.
    pub(crate) fn members(&self) -> &[(String, Self)] {
        if let Self::Object(members) = self { members } else { &[] }
    }

    /// The items of an array, none for anything else.
    pub(crate) fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// The string, unescaped; lone surrogates become U+FFFD.
    pub(crate) fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(unescape(text)) } else { None }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        if let Self::Bare(bare) = self { bare.parse().ok() } else { None }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Bare("true".to_owned())
    }

    /// The same object with only the members named.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let kept = self.members().iter().filter(|(name, _)| names.contains(&name.as_str()));
        Self::Object(kept.cloned().collect())
    }

    /// The same object without the member called `name`.
    pub(crate) fn without(&self, name: &str) -> Self {
        Self::Object(self.members().iter().filter(|(key, _)| key != name).cloned().collect())
    }

    /// The same object with one member more, or another value for it.
    pub(crate) fn with(&self, name: &str, value: Self) -> Self {
        let Self::Object(mut members) = self.without(name) else {
            return self.clone();
        };
        members.push((escape(name), value));
        Self::Object(members)
    }

    /// A string value.
    pub(crate) fn of(text: &str) -> Self {
        Self::Text(escape(text))
    }

    /// As text, members in the order they stand.
    pub(crate) fn write(&self) -> String {
        let mut out = String::new();
        self.append_to(&mut out, false);
        out
    }

    /// As text, members sorted by name; members of the same name keep their order.
    pub(crate) fn canonical(&self) -> String {
        let mut out = String::new();
        self.append_to(&mut out, true);
        out
    }

    fn append_to(&self, out: &mut String, sorted: bool) {
        match self {
            Self::Bare(bare) => out.push_str(bare),
            Self::Text(text) => push_quoted(out, text),
            Self::Array(items) => {
                let write = |out: &mut String, item: &Self| item.append_to(out, sorted);
                push_list(out, ['[', ']'], items.iter(), write);
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if sorted {
                    members.sort_by(|a, b| a.0.cmp(&b.0));
                }
                push_list(out, ['{', '}'], members.into_iter(), |out, (name, value)| {
                    push_quoted(out, name);
                    out.push(':');
                    value.append_to(out, sorted);
                });
            }
        }
    }
}

fn push_quoted(out: &mut String, escaped: &str) {
    out.push('"');
    out.push_str(escaped);
    out.push('"');
}

fn push_list<T>(
    out: &mut String,
    ends: [char; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    out.push(ends[0]);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(ends[1]);
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

/// An object of members already written.
pub(crate) fn object(members: &[(&str, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", quote(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// `text` escaped as little as JSON allows.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        c if c < ' ' => push_unit(out, u32::from(c)),
        c => out.push(c),
    }
}

fn push_unit(out: &mut String, unit: u32) {
    out.push_str("\\u");
    let digits = [12, 8, 4, 0].map(|shift| char::from_digit(unit >> shift & 15, 16));
    out.extend(digits.into_iter().flatten());
}

fn unescape(escaped: &str) -> String {
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((unit, after)) = code_unit(rest) else {
            break;
        };
        out.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = after;
    }
    out
}

/// The UTF-16 code unit an escape stands for, and what follows; `rest` begins after the backslash.
fn code_unit(rest: &str) -> Option<(u16, &str)> {
    let simple = |unit: u8| Some((u16::from(unit), &rest[1..]));
    match rest.as_bytes().first()? {
        b'n' => simple(b'\n'),
        b'r' => simple(b'\r'),
        b't' => simple(b'\t'),
        b'b' => simple(8),
        b'f' => simple(12),
        b'u' => Some((u16::from_str_radix(rest.get(1..5)?, 16).ok()?, &rest[5..])),
        byte @ (b'"' | b'\\' | b'/') => simple(*byte),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn take(&mut self, expected: char) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.skip_space();
        match self.rest.chars().next()? {
            _ if depth > DEEPEST => None,
            '{' => self.list(['{', '}'], |reader| reader.member(depth + 1)).map(Json::Object),
            '[' => self.list(['[', ']'], |reader| reader.value(depth + 1)).map(Json::Array),
            '"' => self.string().map(Json::Text),
            _ => self.bare(),
        }
    }

    fn member(&mut self, depth: usize) -> Option<(String, Json)> {
        self.skip_space();
        let name = self.string()?;
        self.take(':')?;
        Some((name, self.value(depth)?))
    }

    fn list<T>(&mut self, ends: [char; 2], mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.take(ends[0])?;
        let mut items = Vec::new();
        if self.take(ends[1]).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(ends[1]).is_some() {
                return Some(items);
            }
            self.take(',')?;
        }
    }

    fn bare(&mut self) -> Option<Json> {
        let end = self.rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(self.rest.len());
        let (bare, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = bare.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        (number || matches!(bare, "true" | "false" | "null")).then(|| Json::Bare(bare.to_owned()))
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut out = String::new();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            self.rest[..end].chars().for_each(|c| push_escaped(&mut out, c));
            let closed = self.rest[end..].starts_with('"');
            self.rest = &self.rest[end + 1..];
            if closed {
                return Some(out);
            }
            self.escaped(&mut out)?;
        }
    }

    fn escaped(&mut self, out: &mut String) -> Option<()> {
        let (high, rest) = code_unit(self.rest)?;
        self.rest = rest;
        let low = rest.strip_prefix('\\').and_then(code_unit);
        if let Some((low, rest)) = low
            && let Some(Ok(c)) = char::decode_utf16([high, low]).next()
            && (0xd800..0xdc00).contains(&high)
        {
            out.push(c);
            self.rest = rest;
        } else if let Some(c) = char::from_u32(u32::from(high)) {
            push_escaped(out, c);
        } else {
            push_unit(out, u32::from(high));
        }
        Some(())
    }
}
