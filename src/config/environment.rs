//! The process's environment: variables, working directory, user. It is a value, so that tests do not have to change
//! the variables of the whole process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What the configuration depends on besides the file.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    directory: PathBuf,
    etc: PathBuf,
    root: bool,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn process() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            etc: PathBuf::from("/etc"),
            root: nix::unistd::geteuid().is_root(),
        }
    }

    /// An environment for tests: only these variables, an ordinary user, the working directory `directory`, and an
    /// `etc` below it.
    pub fn of<const N: usize>(directory: &Path, variables: [(&str, &str); N]) -> Self {
        Self {
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            directory: directory.to_owned(),
            etc: directory.join("etc"),
            root: false,
        }
    }

    /// A variable's value. An empty variable counts as unset, because Docker Compose sets unset variables to empty
    /// ones.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| self.directory.join(value))
    }

    /// The variables with this prefix, without the empty ones. The prefix is removed from the names.
    pub(super) fn prefixed<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        self.variables
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_os_str())))
    }

    /// Makes a path absolute.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }

    /// The default configuration files. The first that exists is read.
    pub(super) fn default_files(&self) -> [PathBuf; 2] {
        [self.directory.join("backscroll.toml"), self.etc.join("backscroll/backscroll.toml")]
    }

    /// The file of a systemd credential, if there is one of this name.
    pub(super) fn credential(&self, name: &str) -> Option<PathBuf> {
        Some(self.path("CREDENTIALS_DIRECTORY")?.join(name)).filter(|path| path.exists())
    }

    /// The default data directory: `$STATE_DIRECTORY` of systemd, else root's or the user's usual place. The second
    /// value is the variable that decided it.
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
