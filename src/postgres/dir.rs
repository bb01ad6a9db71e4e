//! A directory that is kept open. Files in it are opened, replaced and removed relative to it, so a change of its
//! path has no effect, and symbolic links are never followed. This is necessary because root opens these files, and
//! another user may own the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// More than the size of any file that is read completely.
const LARGEST: u64 = 256 * 1024;

/// An open directory and its path.
#[derive(Clone, Debug)]
pub(super) struct Dir {
    handle: Arc<File>,
    path: PathBuf,
}

impl Dir {
    /// Opens the directory. The path was checked before, see [`super::trust`]. Its last part must not be a link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits());
        Ok(Self { handle: Arc::new(options.open(path)?), path: path.to_owned() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a regular file with this name, not a link.
    pub(super) fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(&self.handle, name, flags, Mode::from_bits_truncate(0o600));
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::ELOOP) => {
                return Err(foreign("it is a symbolic link, which is not followed: remove it"));
            }
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() > 1 {
            return Err(foreign("it is a pipe, a directory, or a second name of another file: remove it"));
        }
        Ok(file)
    }

    /// Removes what has this name, then creates a new file.
    pub(super) fn new_file(&self, name: &str) -> io::Result<File> {
        self.remove(name)?;
        self.file(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Reads a file as text. Bytes that are not UTF-8 are replaced.
    pub(super) fn read(&self, name: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.file(name, OFlag::O_RDONLY)?.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Removes a file or a link. Succeeds if there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }
}

/// The error for something that another user has put there.
fn foreign(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_planted_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "precious").unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        fs::hard_link(&outside, inside.join("name")).unwrap();
        nix::unistd::mkfifo(&inside.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        let dir = Dir::open(&inside).unwrap();
        for name in ["link", "name", "pipe"] {
            for flags in [OFlag::O_RDONLY, OFlag::O_RDWR | OFlag::O_CREAT, OFlag::O_WRONLY | OFlag::O_APPEND]
            {
                assert!(dir.file(name, flags).is_err(), "{name}");
            }
            drop(dir.new_file(name).unwrap());
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
        symlink(&inside, place.path().join("dir")).unwrap();
        assert!(Dir::open(&place.path().join("dir")).is_err());
    }
}
