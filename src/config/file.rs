//! Opens a file that a person has named. Refuses anything but a regular file, and never blocks on a pipe.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Opens a regular file for reading.
///
/// # Errors
/// Also for a directory, a pipe, a socket or a device. The text follows the file's name and "cannot be read: ".
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Checked before it is opened, because opening a device may have an effect.
    must_be_regular(std::fs::metadata(path)?.file_type())?;
    // Opened without blocking, because it may have been replaced by a pipe meanwhile.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    must_be_regular(metadata.file_type())?;
    Ok((file, metadata))
}

fn must_be_regular(kind: FileType) -> io::Result<()> {
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "it is a directory"
    } else if kind.is_fifo() {
        "it is a pipe, which could be read only once"
    } else if kind.is_socket() {
        "it is a socket"
    } else {
        "it is a device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{what}; name a regular file")))
}

/// What to do about a file that cannot be read, to append to the reason.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, or correct the path",
        io::ErrorKind::PermissionDenied => {
            "; it must belong to the user who runs backscroll (chown), \
             who must be able to enter its directory"
        }
        _ => "",
    }
}
