//! Checks whether other users could tamper with a directory, because they may write in it, or in a directory above it
//! and so replace it.
//!
//! The rule is that of ssh (`StrictModes` in its manual), with two exceptions: a directory such as /tmp, whose sticky
//! bit protects files from other users, and a group that contains only its owner, as Debian creates for each user.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use super::Error;

/// The kernel's limit for links in one path lookup.
const MOST_LINKS: u32 = 40;
const STICKY: u32 = 0o1000;

/// Follows the path from the root, including links, and checks every directory on it. A missing end of the path is
/// not checked. Returns the path without links.
///
/// `owner`: the user that runs the server, who may write in its own directories.
pub(super) fn resolve(path: &Path, owner: u32) -> Result<PathBuf, Error> {
    let mut names = names(path);
    let mut at = PathBuf::from("/");
    look(&at, &found(&at)?, owner, names.is_empty())?;
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let metadata = match fs::symlink_metadata(&next) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(names.iter().rev().fold(next, |path, name| path.join(name)));
            }
            Err(error) => return Err(Error::io("look at", &next)(error)),
        };
        if metadata.is_symlink() {
            links += 1;
            must_belong(&next, &metadata, owner)?;
            if links > MOST_LINKS {
                return Err(Error::io("follow", path)(io::Error::other("too many symbolic links")));
            }
            let target = fs::read_link(&next).map_err(Error::io("read", &next))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            names.extend(self::names(&target));
        } else {
            look(&next, &metadata, owner, names.is_empty())?;
            at = next;
        }
    }
    Ok(at)
}

/// The parts of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    let mut names: Vec<_> = path.components().filter_map(name).collect();
    names.reverse();
    names
}

fn found(path: &Path) -> Result<Metadata, Error> {
    fs::symlink_metadata(path).map_err(Error::io("look at", path))
}

/// `is_last`: whether files are created in this directory.
fn look(dir: &Path, metadata: &Metadata, owner: u32, is_last: bool) -> Result<(), Error> {
    must_belong(dir, metadata, owner)?;
    let mode = metadata.mode();
    let is_shared = mode & STICKY != 0 && !is_last;
    let group_writes = mode & 0o020 != 0 && !is_private(metadata.gid(), metadata.uid());
    if is_shared || (mode & 0o002 == 0 && !group_writes) {
        return Ok(());
    }
    let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
    Err(Error::Unsafe {
        dir: dir.to_owned(),
        why: format!("{who} may write in it (mode {:04o})", mode & 0o7777),
        remedy: format!("`chmod go-w {}`", dir.display()),
    })
}

fn must_belong(path: &Path, metadata: &Metadata, owner: u32) -> Result<(), Error> {
    let uid = metadata.uid();
    let is_trusted = uid == 0 || uid == owner || uid == Uid::effective().as_raw() || is_unmapped_root(uid);
    if is_trusted {
        return Ok(());
    }
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let name = name.unwrap_or_else(|| format!("user id {uid}"));
    Err(Error::Unsafe {
        dir: path.to_owned(),
        why: format!("it belongs to {name}"),
        remedy: format!("run backscroll as {name}, or `chown` it"),
    })
}

/// Whether the group contains only this user (useradd(8), `USERGROUPS_ENAB`).
fn is_private(gid: u32, uid: u32) -> bool {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let (Some(user), Some(group)) = (user, group) else { return false };
    user.gid == group.gid && user.name == group.name && group.mem.iter().all(|member| *member == user.name)
}

/// In a user namespace, such as that of a rootless container, all users outside of it appear as one user id,
/// including root. Their directories cannot be written from inside.
fn is_unmapped_root(uid: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid");
    let all = ["0", "0", "4294967295"];
    let is_initial = read("/proc/self/uid_map").split_whitespace().eq(all);
    !is_initial && overflow.trim().parse() == Ok(uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn nobody_else_may_write_on_the_way() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path().canonicalize().unwrap().join("parent");
        let dir = parent.join("data");
        fs::create_dir_all(&dir).unwrap();
        let me = Uid::effective().as_raw();
        let refused = |path: &Path| match resolve(path, me) {
            Err(Error::Unsafe { dir, .. }) => Some(dir),
            Ok(_) => None,
            Err(error) => panic!("{error}"),
        };
        for (parent_mode, dir_mode, bad) in [
            (0o755, 0o700, None),
            (0o1777, 0o700, None),
            (0o755, 0o1777, Some(&dir)),
            (0o755, 0o777, Some(&dir)),
            (0o755, 0o702, Some(&dir)),
            (0o777, 0o700, Some(&parent)),
        ] {
            mode(&parent, parent_mode);
            mode(&dir, dir_mode);
            assert_eq!(refused(&dir).as_ref(), bad, "{parent_mode:o} {dir_mode:o}");
        }
        mode(&parent, 0o755);
        mode(&dir, 0o700);
        assert_eq!(resolve(&dir.join("../data/new/deep"), me).unwrap(), dir.join("new/deep"));
        // A link leads through the directories of its target.
        let (open, link) = (parent.join("open"), parent.join("link"));
        fs::create_dir_all(open.join("data")).unwrap();
        mode(&open, 0o777);
        symlink("open/data", &link).unwrap();
        assert_eq!(refused(&link), Some(open.clone()));
        mode(&open, 0o755);
        assert_eq!(resolve(&link, me).unwrap(), open.join("data"));
        symlink("round", parent.join("round")).unwrap();
        assert!(resolve(&parent.join("round"), me).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("theirs");
        fs::create_dir_all(dir.join("data")).unwrap();
        std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
        assert!(
            matches!(resolve(&dir.join("data"), 0), Err(Error::Unsafe { dir: found, .. }) if found == dir)
        );
        resolve(&dir.join("data"), 65534).unwrap();
        // Of a group that others are in, or may come to be in.
        std::os::unix::fs::chown(&dir, Some(0), Some(65534)).unwrap();
        mode(&dir, 0o775);
        assert!(resolve(&dir.join("data"), 0).is_err());
    }
}
