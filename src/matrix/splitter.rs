//! Splits a large `/sync` response into small ones while its bytes arrive. Each part is a valid response with some of
//! the rooms, which are complete and as served. So a response with ten thousand rooms needs the memory of a few.

use memchr::memchr2;

use super::Error;

/// A part ends after this many bytes. It contains at least one room.
const PORTION: usize = 1 << 20;
/// The largest room, in bytes.
const ROOM_CAP: usize = 256 << 20;
/// The largest other value that is kept, in bytes. Most servers send at most 100 to-device events of 64 KiB at once.
const FIELD_CAP: usize = 16 << 20;
/// Members of the response itself that are kept, with their quotes.
const KEPT_MEMBERS: [&[u8]; 3] =
    [b"\"to_device\"", b"\"device_one_time_keys_count\"", b"\"device_unused_fallback_key_types\""];
/// In a key backup, a part ends after this many bytes: some 250 sessions.
const BACKUP_PORTION: usize = 256 << 10;
/// The most bytes of a session in a key backup, which takes some 1,000.
const SESSION_CAP: usize = 64 << 10;
/// Replaces a room that is too large. It is not an object, so the room counts as unreadable.
const TOO_LARGE: &[u8] = b"false";

/// The object whose members are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Answer,
    Rooms,
    /// `join`, `leave`, `invite` or `knock`. In a key backup: a room.
    Section,
    /// `sessions` of a room of a key backup.
    Sessions,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the response's opening brace.
    Begin,
    /// Before a member's name, or the closing brace.
    Member,
    Name {
        escaped: bool,
    },
    Colon,
    /// Before a value.
    Value,
    Within(Value),
    /// Before a comma, or the closing brace.
    Comma,
    /// After the response.
    End,
}

/// A value that is not split.
#[derive(Clone, Copy, Debug)]
struct Value {
    /// The number of open brackets and braces.
    depth: usize,
    in_string: bool,
    escaped: bool,
    kept: Kept,
    /// Its length so far.
    len: usize,
}

/// Where the bytes of a value are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Not,
    /// To the current part.
    InPortion,
    /// To `next_batch`.
    AsToken,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Splitter {
    level: Level,
    state: State,
    /// The name of the current member, as served, with its quotes.
    name: Vec<u8>,
    /// The name of the current section.
    section: Vec<u8>,
    /// The value of `next_batch`, as served.
    next_batch: Vec<u8>,
    /// The current part.
    portion: Vec<u8>,
    /// The objects that are open in it.
    open: Option<Level>,
    ready: Vec<Vec<u8>>,
    room_cap: usize,
    portion_from: usize,
    too_large: Vec<String>,
    /// Whether it is a key backup, whose `rooms` are rooms with sessions.
    is_key_backup: bool,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self::with_sizes(PORTION, ROOM_CAP)
    }

    /// For a response to `GET /room_keys/keys`, whose parts have some sessions of some rooms.
    pub(super) fn for_key_backup() -> Self {
        Self { is_key_backup: true, ..Self::with_sizes(BACKUP_PORTION, SESSION_CAP) }
    }

    fn with_sizes(portion_from: usize, room_cap: usize) -> Self {
        Self {
            level: Level::Answer,
            state: State::Begin,
            name: Vec::new(),
            section: Vec::new(),
            next_batch: Vec::new(),
            portion: Vec::new(),
            open: None,
            ready: Vec::new(),
            room_cap,
            portion_from,
            too_large: Vec::new(),
            is_key_backup: false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Within(value) => {
                    bytes = self.read_value(value, bytes)?;
                    continue;
                }
                State::Name { escaped } => {
                    self.name.push(byte);
                    if self.name.len() > FIELD_CAP {
                        return Err(malformed("a name is too long"));
                    }
                    self.state = match byte {
                        b'"' if !escaped => State::Colon,
                        _ => State::Name { escaped: byte == b'\\' && !escaped },
                    };
                }
                _ if byte.is_ascii_whitespace() => {}
                State::Begin if byte == b'{' => self.state = State::Member,
                State::Member if byte == b'"' => {
                    self.name.clear();
                    self.name.push(byte);
                    self.state = State::Name { escaped: false };
                }
                State::Member | State::Comma if byte == b'}' => self.leave(),
                State::Colon if byte == b':' => self.state = State::Value,
                State::Comma if byte == b',' => self.state = State::Member,
                State::Value => {
                    self.begin_value(byte);
                    // The first byte belongs to the value, unless it opens an object whose members are read.
                    if matches!(self.state, State::Within(_)) {
                        continue;
                    }
                }
                _ => return Err(malformed("it is not a JSON object")),
            }
            bytes = rest;
        }
        Ok(())
    }

    /// The parts that are complete by now. They have no `next_batch`.
    pub(super) fn take_ready(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.ready)
    }

    /// The rooms that were too large since the last call, by their names as served.
    pub(super) fn take_too_large(&mut self) -> Vec<String> {
        std::mem::take(&mut self.too_large)
    }

    /// The value of `next_batch`, as served, once it has been read.
    pub(super) fn next_batch(&self) -> Option<&[u8]> {
        let is_whole = !matches!(self.state, State::Within(Value { kept: Kept::AsToken, .. }));
        Some(self.next_batch.as_slice()).filter(|token| is_whole && !token.is_empty())
    }

    /// The last part, after all bytes.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        if !matches!(self.state, State::End) {
            return Err(malformed("it ends within"));
        }
        self.make_ready();
        Ok(self.ready.pop().unwrap_or_default())
    }

    fn begin_value(&mut self, first: u8) {
        let name = self.name.as_slice();
        let is_object = first == b'{';
        match self.level {
            Level::Answer if name == b"\"rooms\"" && is_object => self.enter(Level::Rooms),
            Level::Rooms if is_object && (self.is_key_backup || is_section(name)) => {
                self.section.clone_from(&self.name);
                self.enter(Level::Section);
            }
            Level::Section if self.is_key_backup && is_object && name == b"\"sessions\"" => {
                self.enter(Level::Sessions);
            }
            Level::Answer if name == b"\"next_batch\"" => {
                self.next_batch.clear();
                self.state = within(Kept::AsToken);
            }
            Level::Section if self.is_key_backup => self.state = within(Kept::Not),
            Level::Section | Level::Sessions => self.keep_value(),
            Level::Answer if name == b"\"rooms\"" || KEPT_MEMBERS.contains(&name) => self.keep_value(),
            Level::Rooms if !self.is_key_backup && is_section(name) => self.keep_value(),
            Level::Answer | Level::Rooms => self.state = within(Kept::Not),
        }
    }

    fn enter(&mut self, level: Level) {
        self.level = level;
        self.state = State::Member;
    }

    fn leave(&mut self) {
        (self.level, self.state) = match self.level {
            Level::Sessions => (Level::Section, State::Comma),
            Level::Section => (Level::Rooms, State::Comma),
            Level::Rooms => (Level::Answer, State::Comma),
            Level::Answer => (Level::Answer, State::End),
        };
        if self.open == Some(Level::Sessions) && self.level == Level::Section {
            self.portion.push(b'}');
            self.open = Some(Level::Section);
        }
        if self.open == Some(Level::Section) && self.level == Level::Rooms {
            self.portion.push(b'}');
            self.open = Some(Level::Rooms);
        }
        if self.open == Some(Level::Rooms) && self.level == Level::Answer {
            self.portion.push(b'}');
            self.open = Some(Level::Answer);
        }
    }

    /// Writes the beginning of a member to the current part, up to its value.
    fn keep_value(&mut self) {
        if self.open.is_none() {
            self.portion.push(b'{');
            self.open = Some(Level::Answer);
        }
        if self.open == Some(Level::Answer) && self.level != Level::Answer {
            self.separate();
            self.portion.extend_from_slice(b"\"rooms\":{");
            self.open = Some(Level::Rooms);
        }
        let is_within = matches!(self.level, Level::Section | Level::Sessions);
        if self.open == Some(Level::Rooms) && is_within {
            self.separate();
            self.portion.extend_from_slice(&self.section);
            self.portion.extend_from_slice(b":{");
            self.open = Some(Level::Section);
        }
        if self.open == Some(Level::Section) && self.level == Level::Sessions {
            self.separate();
            self.portion.extend_from_slice(b"\"sessions\":{");
            self.open = Some(Level::Sessions);
        }
        self.separate();
        self.portion.extend_from_slice(&self.name);
        self.portion.push(b':');
        self.state = within(Kept::InPortion);
    }

    fn separate(&mut self) {
        if self.portion.last() != Some(&b'{') {
            self.portion.push(b',');
        }
    }

    /// Continues reading a value. Returns the bytes after it.
    fn read_value<'b>(&mut self, mut value: Value, bytes: &'b [u8]) -> Result<&'b [u8], Error> {
        let (read, is_whole) = value.read(bytes);
        if is_whole && value.len == 0 {
            return Err(malformed("a value is missing"));
        }
        let (part, rest) = bytes.split_at(read);
        let is_split = matches!(self.level, Level::Section | Level::Sessions);
        let cap = if is_split { self.room_cap } else { FIELD_CAP };
        let fits = value.len <= cap;
        match value.kept {
            Kept::InPortion if fits => self.portion.extend_from_slice(part),
            Kept::InPortion => self.replace(value.len - read),
            Kept::AsToken if fits => self.next_batch.extend_from_slice(part),
            Kept::AsToken => return Err(malformed("next_batch is too long")),
            Kept::Not => {}
        }
        if value.kept == Kept::InPortion && !fits {
            value.kept = Kept::Not;
        }
        self.state = if is_whole { State::Comma } else { State::Within(value) };
        if is_whole && is_split && self.portion.len() >= self.portion_from {
            self.make_ready();
        }
        Ok(rest)
    }

    /// Removes what was kept of a value that is too large.
    fn replace(&mut self, kept: usize) {
        self.portion.truncate(self.portion.len() - kept);
        self.portion.shrink_to(self.portion_from);
        self.portion.extend_from_slice(TOO_LARGE);
        if self.level != Level::Section {
            return;
        }
        // It is only logged, and may be longer than a room id.
        self.too_large.push(String::from_utf8_lossy(&self.name).chars().take(300).collect());
    }

    /// Ends the current part.
    fn make_ready(&mut self) {
        let mut portion = std::mem::take(&mut self.portion);
        let closing: &[u8] = match self.open.take() {
            None => return,
            Some(Level::Answer) => b"}",
            Some(Level::Rooms) => b"}}",
            Some(Level::Section) => b"}}}",
            Some(Level::Sessions) => b"}}}}",
        };
        portion.extend_from_slice(closing);
        self.ready.push(portion);
    }
}

impl Value {
    /// Continues reading. Returns how many bytes belong to the value, and whether it ends with them.
    fn read(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        let is_whole = loop {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break false };
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                let Some(found) = memchr2(b'"', b'\\', rest) else {
                    at = bytes.len();
                    continue;
                };
                at += found + 1;
                if rest.get(found) == Some(&b'\\') {
                    self.escaped = true;
                    continue;
                }
                self.in_string = false;
                if self.depth == 0 {
                    break true;
                }
                continue;
            }
            match rest.first() {
                // A number or a literal ends before the byte that follows it.
                Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') if self.depth == 0 => break true,
                Some(b'"') => self.in_string = true,
                Some(b'{' | b'[') => self.depth += 1,
                Some(b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        at += 1;
                        break true;
                    }
                }
                _ => {}
            }
            at += 1;
        };
        self.len += at;
        (at, is_whole)
    }
}

fn within(kept: Kept) -> State {
    State::Within(Value { depth: 0, in_string: false, escaped: false, kept, len: 0 })
}

fn is_section(name: &[u8]) -> bool {
    [&b"\"join\""[..], b"\"leave\"", b"\"invite\"", b"\"knock\""].contains(&name)
}

fn malformed(what: &str) -> Error {
    Error::Malformed(format!("/sync: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json, json};

    use super::*;

    /// What the answers made of `body`, cut into pieces of these lengths, hold together; and their number.
    fn split(
        body: &str,
        lengths: &[usize],
        sizes: (usize, usize),
    ) -> Result<(Json, usize, Vec<String>), Error> {
        let mut splitter = Splitter::with_sizes(sizes.0, sizes.1);
        let (mut rest, mut lengths) = (body.as_bytes(), lengths.iter().cycle());
        let mut portions = Vec::new();
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (piece, after) = rest.split_at(length);
            splitter.push(piece)?;
            portions.extend(splitter.take_ready());
            rest = after;
        }
        let too_large = splitter.take_too_large();
        let next_batch = splitter.next_batch().map(<[u8]>::to_vec);
        portions.push(splitter.finish()?);
        portions.retain(|portion| !portion.is_empty());
        let mut whole = Map::new();
        let mut rooms = Map::new();
        for portion in &portions {
            let portion: Json = serde_json::from_slice(portion).expect("JSON");
            for (section, listed) in portion["rooms"].as_object().cloned().unwrap_or_default() {
                let all = rooms.entry(section).or_insert_with(|| json!({}));
                match (all.as_object_mut(), listed.as_object()) {
                    (Some(all), Some(listed)) => all.extend(listed.clone()),
                    _ => *all = listed,
                }
            }
        }
        whole.insert("rooms".into(), rooms.into());
        if let Some(next_batch) = next_batch {
            whole.insert("next_batch".into(), serde_json::from_slice(&next_batch).expect("JSON"));
        }
        Ok((whole.into(), portions.len(), too_large))
    }

    /// What of an answer counts.
    fn wanted(body: &Json) -> Json {
        let mut rooms = body["rooms"].as_object().cloned().unwrap_or_default();
        rooms.retain(|section, listed| {
            is_section(format!("\"{section}\"").as_bytes())
                && listed.as_object().is_none_or(|it| !it.is_empty())
        });
        json!({ "next_batch": body["next_batch"], "rooms": rooms })
    }

    fn value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "[a\"\\\\{}\\[\\],:é \u{1}]{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                object(inner).prop_map(Json::Object),
            ]
        })
    }

    fn object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Map<String, Json>> {
        proptest::collection::vec(("[!a\"\\\\:{}é]{0,6}", value), 0..4)
            .prop_map(|all| all.into_iter().collect())
    }

    fn answer() -> impl Strategy<Value = Json> {
        let section = prop_oneof![object(value()).prop_map(Json::Object), value()];
        let name = prop_oneof![Just("join"), Just("leave"), Just("invite"), Just("knock"), Just("other")];
        let rooms = proptest::collection::vec((name, section), 0..5).prop_map(|all| {
            all.into_iter().map(|(name, listed)| (name.to_owned(), listed)).collect::<Map<_, _>>()
        });
        (object(value()), rooms, "[a-z\"\\\\]{1,5}").prop_map(|(mut rest, rooms, token)| {
            rest.insert("rooms".into(), rooms.into());
            rest.insert("next_batch".into(), token.into());
            rest.into()
        })
    }

    proptest! {
        /// However an answer is cut, and however it is written, its rooms come out as served, each whole.
        #[test]
        fn nothing_is_lost_between_the_pieces(
            body in answer(), lengths in proptest::collection::vec(1_usize..40, 1..8), from in 1_usize..60,
            pretty in any::<bool>(),
        ) {
            let text = if pretty { format!("{body:#}\n") } else { body.to_string() };
            let (split, ..) = split(&text, &lengths, (from, usize::MAX)).expect("an answer");
            prop_assert_eq!(wanted(&split), wanted(&body));
        }

        /// What is cut off is an error, wherever, and never a panic; nor is what is no answer at all.
        #[test]
        fn an_answer_that_breaks_off_is_refused(body in answer(), cut in 1_usize..400) {
            let text = body.to_string();
            let end = text.len().saturating_sub(cut);
            let broken = text.get(..end).unwrap_or_default();
            prop_assert!(split(broken, &[7], (20, usize::MAX)).is_err());
        }

        #[test]
        fn no_bytes_are_too_strange(text in "[{}\\[\\]\",:a\\\\ ]{0,60}") {
            let _ = split(&text, &[1, 3], (5, 9));
        }
    }

    #[test]
    fn a_room_that_is_too_large_is_named_and_leaves_the_others() {
        let large = format!(r#"{{"state":"{}"}}"#, "x".repeat(100));
        let body = format!(
            r#"{{"rooms":{{"join":{{"!a:hs":{{}},"!b:hs":{large},"!c:hs":{{"x":1}}}}}},"next_batch":"s"}}"#
        );
        let (split, portions, too_large) = split(&body, &[9], (1, 50)).expect("an answer");
        assert_eq!(split["rooms"]["join"], json!({ "!a:hs": {}, "!b:hs": false, "!c:hs": { "x": 1 } }));
        assert_eq!((portions, too_large.as_slice()), (3, &[r#""!b:hs""#.to_owned()][..]));
    }
}
