//! Parses text to [`Json`], without loss.

use super::{Json, MAX_DEPTH, Member, Text};

/// Parses well-formed JSON. For malformed text it returns some value, but neither panics nor loops.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space, without consuming it.
    fn token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub(super) fn value(&mut self, depth: usize) -> Json<'a> {
        match self.token() {
            Some(b'"') => Json::String(self.string()),
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Json::Deep(self.skip()),
            Some(b'{') => {
                let mut members = Vec::new();
                self.list(b'}', |reader| {
                    let name = reader.name();
                    members.push((name, reader.value(depth + 1)));
                });
                Json::Object(members)
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.list(b']', |reader| items.push(reader.value(depth + 1)));
                Json::Array(items)
            }
            Some(b't' | b'f' | b'n') => Json::Literal(self.skip()),
            _ => Json::Number(self.skip()),
        }
    }

    pub(super) fn members(&mut self) -> Option<Vec<Member<'a>>> {
        if self.token() != Some(b'{') {
            return None;
        }
        let mut members = Vec::new();
        self.list(b'}', |reader| {
            let start = reader.at;
            let name = reader.name();
            reader.token();
            let value = reader.skip();
            members.push(Member { name, whole: reader.since(start), value });
        });
        Some(members)
    }

    /// Consumes a list from its opening to its closing bracket, and calls `item` at the first byte of each item.
    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self)) {
        self.at += 1;
        while let Some(byte) = self.token() {
            let start = self.at;
            if byte == close {
                self.at += 1;
                return;
            }
            if byte == b',' {
                self.at += 1;
            } else {
                item(self);
            }
            if self.at == start {
                return;
            }
        }
    }

    /// Consumes a member's name and its colon.
    fn name(&mut self) -> Text<'a> {
        let name = self.string();
        if self.token() == Some(b':') {
            self.at += 1;
        }
        name
    }

    fn string(&mut self) -> Text<'a> {
        let token = self.skip();
        let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
        if inner.as_bytes().contains(&b'\\') { Text::Decoded(unescape(token)) } else { Text::Plain(inner) }
    }

    /// Consumes the value that begins here, without recursion, however deep it is.
    fn skip(&mut self) -> &'a str {
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => return self.since(start),
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => self.at += 1,
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => return self.since(start),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return self.since(start);
            }
        }
        self.since(start)
    }

    fn skip_string(&mut self) {
        self.at += 1;
        let bytes = self.text.as_bytes();
        while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(self.at..).unwrap_or_default()) {
            let quote = bytes.get(self.at + found) == Some(&b'"');
            self.at += found + if quote { 1 } else { 2 };
            if quote {
                return;
            }
        }
        self.at = self.at.max(bytes.len());
    }
}

/// Decodes a quoted string to WTF-8. `serde_json` keeps lone surrogates if it deserialises to bytes.
fn unescape(token: &str) -> Vec<u8> {
    struct Bytes;
    impl serde::de::Visitor<'_> for Bytes {
        type Value = Vec<u8>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_owned())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(token);
    serde::Deserializer::deserialize_bytes(&mut deserializer, Bytes).unwrap_or_default()
}
