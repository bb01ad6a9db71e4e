//! Takes JSON values from a file one by one, so that the file need not fit into memory, and says where each
//! begins.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde_json::value::RawValue;

use super::BadInput;

/// The largest value in bytes. No event is as large: the archive takes events of at most 16 MiB.
const MOST: usize = 17 << 20;

/// A file that is being read.
pub(super) struct Scanner {
    path: PathBuf,
    input: BufReader<File>,
    at: Mark,
}

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    offset: u64,
    line: u64,
}

impl Scanner {
    pub(super) fn open(path: &Path) -> Result<Self, BadInput> {
        let file = File::open(path).map_err(|error| BadInput::io(path, error))?;
        Ok(Self { path: path.to_owned(), input: BufReader::new(file), at: Mark { offset: 0, line: 1 } })
    }

    /// The same at a place where this file was before.
    pub(super) fn open_at(path: &Path, mark: Mark) -> Result<Self, BadInput> {
        let mut scanner = Self::open(path)?;
        let moved = scanner.input.seek(SeekFrom::Start(mark.offset));
        moved.map_err(|error| BadInput::io(path, error))?;
        scanner.at = mark;
        Ok(scanner)
    }

    pub(super) fn mark(&self) -> Mark {
        self.at
    }

    /// An error at the current place.
    pub(super) fn bad(&self, problem: impl Into<String>) -> BadInput {
        self.bad_at(self.at, problem)
    }

    pub(super) fn bad_at(&self, mark: Mark, problem: impl Into<String>) -> BadInput {
        let place = format!("line {} (byte {})", mark.line, mark.offset + 1);
        BadInput::new(&self.path, place, problem)
    }

    /// The next byte, which is not taken. `None`: the file ends.
    fn peek(&mut self) -> Result<Option<u8>, BadInput> {
        let buffer = self.input.fill_buf().map_err(|error| BadInput::io(&self.path, error))?;
        Ok(buffer.first().copied())
    }

    fn take(&mut self) -> Result<Option<u8>, BadInput> {
        let next = self.peek()?;
        if let Some(byte) = next {
            self.input.consume(1);
            self.at.offset += 1;
            self.at.line += u64::from(byte == b'\n');
        }
        Ok(next)
    }

    /// The next byte that is no white space. It is not taken.
    pub(super) fn next(&mut self) -> Result<Option<u8>, BadInput> {
        while let Some(byte) = self.peek()? {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(Some(byte));
            }
            self.take()?;
        }
        Ok(None)
    }

    /// Takes the next byte that is no white space, if it is this one.
    pub(super) fn takes(&mut self, byte: u8) -> Result<bool, BadInput> {
        let is_next = self.next()? == Some(byte);
        if is_next {
            self.take()?;
        }
        Ok(is_next)
    }

    /// Takes an object.
    pub(super) fn object(&mut self) -> Result<Box<RawValue>, BadInput> {
        match self.next()? {
            Some(b'{') => self.value(),
            Some(_) => Err(self.bad("here should be an event, which is a JSON object")),
            None => Err(self.bad("the file ends where an event should be")),
        }
    }

    /// Takes a value of any kind.
    pub(super) fn value(&mut self) -> Result<Box<RawValue>, BadInput> {
        self.next()?;
        let start = self.at;
        let mut bytes = Vec::new();
        let mut shape = Shape::default();
        loop {
            let buffer = self.input.fill_buf().map_err(|error| BadInput::io(&self.path, error))?;
            if buffer.is_empty() {
                break;
            }
            let (length, is_whole) = shape.extend(buffer);
            bytes.extend_from_slice(&buffer[..length]);
            let lines = memchr::memchr_iter(b'\n', &buffer[..length]).count();
            self.at.offset += length as u64;
            self.at.line += lines as u64;
            self.input.consume(length);
            if is_whole {
                break;
            }
            if bytes.len() > MOST {
                return Err(self.bad_at(start, "a value is larger than an event may be (16 MiB)"));
            }
        }
        self.checked(start, bytes)
    }

    /// The value, if it is JSON.
    fn checked(&self, start: Mark, bytes: Vec<u8>) -> Result<Box<RawValue>, BadInput> {
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let lines = memchr::memchr_iter(b'\n', &error.as_bytes()[..good]).count();
            let mark = Mark { offset: start.offset + good as u64, line: start.line + lines as u64 };
            self.bad_at(mark, "the text is not UTF-8")
        })?;
        if text.is_empty() {
            return Err(self.bad_at(start, "a value is missing here: this is not JSON"));
        }
        RawValue::from_string(text).map_err(|error| {
            // serde_json counts the lines of the value.
            let line = start.line + error.line().saturating_sub(1) as u64;
            if error.is_eof() {
                return self.bad(
                    "the file ends in the middle of a value that begins at ".to_owned() + &place(start),
                );
            }
            self.bad_at(
                Mark { line, ..start },
                format!("a value that begins here is not JSON: {}", why(&error)),
            )
        })
    }
}

fn place(mark: Mark) -> String {
    format!("line {} (byte {})", mark.line, mark.offset + 1)
}

/// The error without its place, which counts from the beginning of the value. It quotes nothing.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// How far a value is read.
#[derive(Debug, Default)]
struct Shape {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// Neither an object, an array nor a string: it has no end of its own.
    is_bare: bool,
}

impl Shape {
    /// How many of these bytes belong to the value, and whether it is whole with them.
    fn extend(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, byte) in bytes.iter().enumerate() {
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' if !self.is_bare => self.is_in_string = true,
                    b'{' | b'[' if !self.is_bare => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => self.depth -= 1,
                    _ if self.depth > 0 => continue,
                    b',' | b'}' | b']' | b'{' | b'[' | b'"' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {
                        return (index, true);
                    }
                    _ => {
                        self.is_bare = true;
                        continue;
                    }
                }
            }
            if self.depth == 0 && !self.is_in_string {
                return (index + 1, true);
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A scanner of a file with this text.
    fn scanner(text: &[u8]) -> (tempfile::NamedTempFile, Scanner) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text).expect("written");
        let scanner = Scanner::open(file.path()).expect("open");
        (file, scanner)
    }

    fn values(text: &str) -> Result<Vec<String>, String> {
        let (_file, mut scanner) = scanner(text.as_bytes());
        let mut values = Vec::new();
        while scanner.next().map_err(|error| error.to_string())?.is_some() {
            values.push(scanner.value().map_err(|error| error.to_string())?.get().to_owned());
        }
        Ok(values)
    }

    #[test]
    fn values_need_nothing_between_them() {
        let text = r#"{"a":"}\"{"}{"b":[1,{"c":"\\"}]}"x""y"[1] 12 true{}"#;
        let expected =
            [r#"{"a":"}\"{"}"#, r#"{"b":[1,{"c":"\\"}]}"#, r#""x""#, r#""y""#, "[1]", "12", "true", "{}"];
        assert_eq!(values(text).expect("values"), expected);
        assert!(values("").expect("none").is_empty());
    }

    #[test]
    fn a_value_may_be_larger_than_the_buffer() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
        assert_eq!(values(&format!("{long}{long}")).expect("values"), [long.clone(), long]);
    }

    #[test]
    fn what_is_no_json_is_named_with_its_line() {
        for (text, line, problem) in [
            ("{}\n{\"a\":1", "line 2", "ends in the middle"),
            ("{}\n\n{\"a\"\n1}", "line 4", "not JSON"),
            ("{}\n}", "line 2", "not JSON"),
            ("[1}", "line 1", "not JSON"),
        ] {
            let error = values(text).expect_err(text);
            assert!(error.contains(line) && error.contains(problem), "{text}: {error}");
        }
        let (_file, mut scanner) = scanner(b"\n{\"a\":\n\"\xff\"}");
        let error = scanner.value().expect_err("no UTF-8").to_string();
        assert!(error.contains("line 3") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn a_mark_leads_back() {
        let (file, mut first) = scanner(b"{\"n\":1}\n{\"n\":2}");
        first.value().expect("a value");
        let mark = first.mark();
        let mut second = Scanner::open_at(file.path(), mark).expect("open");
        assert_eq!(second.value().expect("a value").get(), "{\"n\":2}");
        assert!(second.value().is_err_and(|error| error.to_string().contains("line 2")));
    }
}
