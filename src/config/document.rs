//! Parses the TOML file: its values for figment, and the line of each key.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Error, file};

/// The name of the file's layer in figment.
pub(super) const FILE: &str = "file";

/// The largest file that is read. A larger one is not a file of settings.
const LONGEST: u64 = 1 << 20;

/// A file that is valid TOML.
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) values: Dict,
    lines: BTreeMap<String, usize>,
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let table = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        let mut lines = BTreeMap::new();
        note_lines(table.get_ref(), "", text, &mut lines);
        Ok(Self {
            path: path.to_owned(),
            values: toml::from_str(text).map_err(|error| syntax(path, text, &error))?,
            lines,
        })
    }

    /// The line of a key such as `homeserver.url` or `rooms.room.0.id`, or else of the nearest enclosing key.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let around = key.rsplit_once('.').map(|(around, _)| around);
        let line = self.lines.get(key).copied();
        line.or_else(|| self.line(around?))
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let (file, _) = file::open(path)?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is far too long: check that this is the right file",
        ));
    }
    Ok(text)
}

impl Provider for &Document {
    fn metadata(&self) -> Metadata {
        Metadata::named(FILE)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn note_lines(table: &DeTable<'_>, around: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = join(around, key.get_ref());
        lines.insert(path.clone(), position(text, key.span().start).0);
        note_value(value, &path, text, lines);
    }
}

fn note_value(value: &Spanned<DeValue<'_>>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(table, path, text, lines),
        DeValue::Array(array) => {
            for (n, element) in array.iter().enumerate() {
                let path = join(path, &n.to_string());
                lines.insert(path.clone(), position(text, element.span().start).0);
                note_value(element, &path, text, lines);
            }
        }
        _ => {}
    }
}

/// `around.key`, or `key` at the top level.
pub(super) fn join(around: &str, key: &str) -> String {
    if around.is_empty() { key.to_owned() } else { format!("{around}.{key}") }
}

/// The parser's message and the position. Its own `Display` also quotes the line, which may contain a secret.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let (line, column) = position(text, error.span().map_or(0, |span| span.start));
    Error::Syntax { path: path.to_owned(), line, column, message: error.message().to_owned() }
}

/// Line and column of a byte offset, counted from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, Error> {
        Document::parse(Path::new("/etc/b.toml"), text)
    }

    #[test]
    fn knows_the_line_of_every_key() {
        let text = "data_dir = \"x\"\n\n[rooms]\ninclude = [\n  \"#a\",\n  \"#b\",\n]\n\n\
                    [[rooms.room]]\nid = \"!a\"\n";
        let document = parse(text).unwrap();
        assert_eq!(document.line("data_dir"), Some(1));
        assert_eq!(document.line("rooms.include"), Some(4));
        assert_eq!(document.line("rooms.include.1"), Some(6));
        assert_eq!(document.line("rooms.room.0.id"), Some(10));
        assert_eq!(document.line("rooms.room.0.gone"), document.line("rooms.room.0"));
        assert_eq!(document.line("http.listen"), None);
    }

    #[test]
    fn a_syntax_error_never_quotes_the_line() {
        for text in [
            "[homeserver]\naccess_token = \"syt_secret\n",
            "[homeserver]\naccess_token = syt_secret\n",
            "[homeserver]\naccess_token = 'a' syt_secret\n",
            "[homeserver]\naccess_token = \"\\syt_secret\"\n",
            "[homeserver]\nsyt_secret\n",
            "[homeserver]\nurl = 'a'\nurl = 'syt_secret'\n",
        ] {
            let error = parse(text).err().unwrap();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("syt_secret"), "{shown}");
            assert!(shown.starts_with("/etc/b.toml, line ") && shown.contains("not valid TOML"), "{shown}");
        }
    }
}
