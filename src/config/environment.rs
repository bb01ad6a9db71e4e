//! The world outside the file: variables, working directory, user. A value, so that tests need not change
//! the variables of the whole process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What of the process the configuration depends on.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    directory: PathBuf,
    etc: PathBuf,
    root: bool,
}

impl Environment {
    /// That of this process.
    pub fn process() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            etc: PathBuf::from("/etc"),
            root: nix::unistd::geteuid().is_root(),
        }
    }

    /// One with these variables alone, an ordinary user in `directory`, and no `/etc` but that below it.
    /// For tests.
    pub fn of<const N: usize>(directory: &Path, variables: [(&str, &str); N]) -> Self {
        Self {
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            directory: directory.to_owned(),
            etc: directory.join("etc"),
            root: false,
        }
    }

    /// A variable's value; an empty variable counts as unset, as Docker Compose makes them out of nothing.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| self.directory.join(value))
    }

    /// Names and values with this prefix, the empty ones left out; the prefix is taken off.
    pub(super) fn prefixed<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.variables
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_os_str())))
    }

    /// A path as written, made absolute.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// The files that are read when none is named, the first that exists.
    pub(super) fn default_files(&self) -> [PathBuf; 2] {
        [self.directory.join("backscroll.toml"), self.etc.join("backscroll/backscroll.toml")]
    }

    /// A credential that systemd has put there under this name.
    pub(super) fn credential(&self, name: &str) -> Option<PathBuf> {
        Some(self.path("CREDENTIALS_DIRECTORY")?.join(name)).filter(|path| path.exists())
    }

    /// Where a daemon keeps its data: systemd's word, else root's place, else the user's.
    pub(super) fn default_data_dir(&self) -> Option<(PathBuf, Option<&'static str>)> {
        if let Some(list) = self.get("STATE_DIRECTORY").and_then(OsStr::to_str) {
            let first = list.split(':').next().unwrap_or(list);
            return Some((PathBuf::from(first), Some("STATE_DIRECTORY")));
        }
        if self.root {
            return Some((PathBuf::from("/var/lib/backscroll"), None));
        }
        if let Some(data) = self.path("XDG_DATA_HOME") {
            return Some((data.join("backscroll"), Some("XDG_DATA_HOME")));
        }
        let home = self.path("HOME")?;
        Some((home.join(".local/share/backscroll"), Some("HOME")))
    }
}
