//! Tests whether the private PostgreSQL works on this machine, with a temporary cluster near the data directory.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Exit,
    postgres::{self, Server, Settings},
};

/// A directory that is removed with its content.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, what is left is small, and its name shows what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Creates a cluster, starts a server on it, calls `look` with its URL, and removes the cluster.
///
/// # Errors
/// The exit code and the text that a failure in `data_dir` would have.
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

/// Creates it in the nearest existing parent of `data_dir`: on the same file system and with the same access rights
/// above it.
fn scratch(data_dir: &Path) -> io::Result<Scratch> {
    let place = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let path = nix::unistd::mkdtemp(&place.join(".backscroll-check.XXXXXX"))?;
    let scratch = Scratch(path);
    // Started by root, the server runs as another user, who must be able to enter.
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o711))?;
    Ok(scratch)
}
