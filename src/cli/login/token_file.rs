//! Writes the access token to its file, in one step, readable only by its owner.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use secrecy::{ExposeSecret as _, SecretString};

use super::Refused;
use crate::Exit;

/// A file to which the token can be written.
#[derive(Debug)]
pub(super) struct TokenFile {
    /// The absolute path, without links.
    path: PathBuf,
    force: bool,
}

impl TokenFile {
    /// Checks that the token can be written to `path`, before there is a token.
    pub(super) fn prepare(path: &Path, force: bool) -> Result<Self, Refused> {
        let path = resolve(path).map_err(|error| Refused::file("find", path, &error))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        access(directory, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|error| Refused::file("write a token into", directory, &error.into()))?;
        let file = Self { path, force };
        file.must_be_free()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `path` is this file.
    pub(super) fn is(&self, path: &Path) -> bool {
        resolve(path).is_ok_and(|path| path == self.path)
    }

    pub(super) fn write(&self, token: &SecretString) -> Result<(), Refused> {
        self.must_be_free()?;
        self.replace(token).map_err(|error| Refused::file("write", &self.path, &error))
    }

    fn must_be_free(&self) -> Result<(), Refused> {
        let Ok(metadata) = fs::metadata(&self.path) else { return Ok(()) };
        let problem = if !metadata.is_file() {
            "it exists and is no regular file"
        } else if metadata.len() > 0 && !self.force {
            "it is not empty and may contain a token: replace it with --force, or choose another file with --token-file"
        } else {
            return Ok(());
        };
        Err(Refused {
            exit: Exit::Usage,
            text: format!("failed to write {}: {problem}", self.path.display()),
        })
    }

    /// Writes a temporary file next to it, then renames that.
    fn replace(&self, token: &SecretString) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = self.path.with_file_name(name);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            writeln!(file, "{}", token.expose_secret())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// The absolute path without links. The file itself need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = std::path::absolute(path)?;
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(error) };
            Ok(fs::canonicalize(directory)?.join(name))
        }
        resolved => resolved,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn write(path: &Path, force: bool) -> Result<(), String> {
        let file = TokenFile::prepare(path, force).map_err(|error| error.to_string())?;
        file.write(&"syt_secret".into()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_is_for_its_owner_only_and_not_overwritten_by_chance() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        write(&path, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "syt_secret\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&path, false).unwrap_err().contains("--force"));
        write(&path, true).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_stays_and_what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (link, target) = (directory.path().join("link"), directory.path().join("target"));
        fs::write(&target, "").unwrap();
        symlink(&target, &link).unwrap();
        write(&link, false).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "syt_secret\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(write(directory.path(), true).unwrap_err().contains("no regular file"));
        assert!(write(&directory.path().join("missing/token"), true).unwrap_err().contains("failed to find"));
    }
}
