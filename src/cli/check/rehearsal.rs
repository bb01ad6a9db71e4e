//! Would the embedded PostgreSQL work here? Tried where the data would lie, on a database that is thrown away.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Exit,
    postgres::{self, Server, Settings},
};

/// A directory that is removed with all that is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is small, and named so that one sees what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a cluster, starts a server on it, calls `look` with its URL, and removes it all.
///
/// # Errors
/// An exit code and a text, as they would be in `data_dir`.
pub(super) async fn rehearse<T>(
    data_dir: &Path,
    bin_dir: Option<PathBuf>,
    look: impl AsyncFnOnce(String) -> T,
) -> Result<T, (Exit, String)> {
    let explain = |error: postgres::Error| (error.exit_code(), error.to_string());
    let scratch = scratch(data_dir).map_err(|source| {
        explain(postgres::Error::Io {
            action: "create the data directory",
            path: data_dir.to_owned(),
            source,
        })
    })?;
    let (place, real) = (scratch.0.display().to_string(), data_dir.display().to_string());
    let explain = |error| {
        let (exit, text) = explain(error);
        (exit, text.replace(&place, &real))
    };
    let server = Server::start(&Settings { data_dir: scratch.0.clone(), bin_dir }).await.map_err(explain)?;
    let looked = look(server.url()).await;
    server.stop().await.map_err(explain)?;
    Ok(looked)
}

/// In the nearest directory above that is there, so on the same file system and behind the same doors.
fn scratch(data_dir: &Path) -> io::Result<Scratch> {
    let place = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let path = nix::unistd::mkdtemp(&place.join(".backscroll-check.XXXXXX"))?;
    let scratch = Scratch(path);
    // Root's server runs as somebody else, who must get through.
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o711))?;
    Ok(scratch)
}
