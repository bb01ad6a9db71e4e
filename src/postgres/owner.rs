//! The user that runs the server.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use nix::errno::Errno;
use nix::unistd::{Uid, User};

use super::Error;
use super::dir::Dir;
use crate::child;

/// The user that owns the cluster and runs the server. Never root: PostgreSQL refuses that.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) uid: u32,
    gid: u32,
    /// This process is root, and every child becomes this user.
    drops: bool,
}

impl Owner {
    /// The owner of an existing cluster. Otherwise the current user; for root, the user `postgres`, else `nobody`.
    pub(super) fn of(cluster: &Path) -> Result<Self, Error> {
        let existing = match fs::metadata(cluster) {
            Ok(metadata) => Some(metadata.uid()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("look at", cluster)(error)),
        };
        let me = Uid::effective();
        match existing {
            Some(uid) if uid != me.as_raw() && (uid == 0 || !me.is_root()) => Err(Error::ForeignCluster {
                dir: cluster.to_owned(),
                owner: named(uid).map_or_else(|_| format!("user id {uid}"), |user| user.name),
            }),
            Some(uid) if uid != 0 => Ok(Self::from(named(uid)?, me)),
            _ if me.is_root() => Ok(Self::from(unprivileged()?, me)),
            _ => Ok(Self::from(named(me.as_raw())?, me)),
        }
    }

    fn from(user: User, me: Uid) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), drops: me.is_root() }
    }

    /// A command that runs as this user, in a directory that it can enter. It inherits no variables that could
    /// contain a secret or change what PostgreSQL does (`PGDATA`, `PGPORT`).
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = child::command(program);
        command.current_dir("/");
        if self.drops {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Whether a child could not be started because this process may not become the user. If the user lacks access to
    /// a program or directory, the error is `EACCES` instead.
    pub(super) fn is_out_of_reach(&self, error: &io::Error) -> bool {
        let refusals = [Errno::EPERM, Errno::EINVAL].map(|errno| Some(errno as i32));
        self.drops && refusals.contains(&error.raw_os_error())
    }

    pub(super) fn cannot_drop(&self, source: io::Error) -> Error {
        Error::CannotDrop { user: self.name.clone(), source }
    }

    /// Whether the user can enter a directory. Mode bits do not show it (access lists, namespaces), so a child tries
    /// it. `program` must be one that this user may run.
    pub(super) fn must_reach(&self, dir: &Path, program: &Path) -> Result<(), Error> {
        if !self.drops {
            return Ok(());
        }
        let mut command = self.command(program);
        command.arg("--version").current_dir(dir);
        match command.output() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Unreachable { dir: dir.to_owned(), user: self.name.clone() })
            }
            Err(error) => Err(Error::io("enter", dir)(error)),
        }
    }

    /// Makes sure that the directory exists, is not a symbolic link, belongs to this user and is closed to others.
    pub(super) fn private_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let handle = fs::OpenOptions::new()
            .read(true)
            .custom_flags((nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW).bits())
            .open(dir)?;
        let holder = handle.metadata()?.uid();
        if holder != self.uid {
            // Only a directory that this process has just created, or had created before a power failure, may change
            // its owner.
            if !self.drops || holder != 0 {
                return Err(io::Error::other(format!("belongs to user id {holder}")));
            }
            fchown(&handle, Some(self.uid), Some(self.gid))?;
        }
        handle.set_permissions(fs::Permissions::from_mode(0o700))
    }

    /// Replaces a file in a directory of this user. Root must not write through a link that this user may have
    /// created, so it writes a new file and renames it.
    pub(super) fn write(&self, dir: &Dir, name: &str, text: &str) -> Result<(), Error> {
        self.replace(dir, name, text).map_err(Error::io("write", &dir.path(name)))
    }

    fn replace(&self, dir: &Dir, name: &str, text: &str) -> io::Result<()> {
        use std::io::Write as _;
        let draft = format!("{name}.new");
        let mut file = dir.new_file(&draft)?;
        if self.drops {
            fchown(&file, Some(self.uid), Some(self.gid))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        dir.rename(&draft, name)
    }
}

fn named(uid: u32) -> Result<User, Error> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user),
        Ok(None) | Err(_) => Err(Error::NamelessUser(uid)),
    }
}

fn unprivileged() -> Result<User, Error> {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .filter(|user| !user.uid.is_root())
        .ok_or(Error::NoUnprivilegedUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let metadata = fs::metadata(dir.path()).unwrap();
        let owner = Owner { name: "me".to_owned(), uid: metadata.uid(), gid: metadata.gid(), drops: false };
        assert!(owner.private_dir(&link).is_err());
        assert!(owner.private_dir(&dir.path().join("new")).is_ok());
    }
}
