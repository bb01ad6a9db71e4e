//! The error of a command that reads an archive where there is none. Such a command never creates one.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    Exit,
    config::{Config, DatabaseUrl},
    postgres::{self, Presence},
};

/// There is no archive at the configured place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoArchive(String);

impl NoArchive {
    /// The process's exit code.
    pub(crate) const EXIT_CODE: Exit = Exit::Configuration;

    /// In the configured data directory.
    pub(super) fn in_data_dir(config: &Config) -> Self {
        Self(in_data_dir(config))
    }

    /// In a database that was reached.
    pub(super) fn in_database(url: &DatabaseUrl) -> Self {
        Self(in_database(url))
    }
}

/// Names the directory, the setting that chose it, other directories with an archive, and what to do.
fn in_data_dir(config: &Config) -> String {
    let data_dir = &config.data_dir;
    let mut text =
        format!("there is no archive in {} (data_dir: {})", data_dir.display(), config.data_dir_origin);
    for (place, presence) in elsewhere(data_dir) {
        let found = match presence {
            Presence::There => "there is one in",
            Presence::Unknown => "there may be one, but this user cannot read the directory, in",
            Presence::Missing => continue,
        };
        let _ = write!(text, "\n  {found} {}", place.display());
    }
    text + "\n  to use another archive: set data_dir or BACKSCROLL_DATA_DIR; for a server of your own, set \
            database.url or DATABASE_URL\n  to create one: `backscroll run`"
}

/// Names the database, without the password.
pub(crate) fn in_database(url: &DatabaseUrl) -> String {
    format!(
        "there is no archive in the database {url} yet: `backscroll run` or `backscroll migrate` creates it; \
         to use another database, set database.url or DATABASE_URL"
    )
}

/// The other default places of an archive: root's and this user's.
fn elsewhere(data_dir: &Path) -> Vec<(PathBuf, Presence)> {
    let mut places = vec![PathBuf::from("/var/lib/backscroll")];
    let homes = std::env::home_dir().into_iter().chain(sudo_home());
    places.extend(homes.map(|home| home.join(".local/share/backscroll")));
    places.extend(std::env::var_os("XDG_DATA_HOME").map(|data| PathBuf::from(data).join("backscroll")));
    places.dedup();
    places.retain(|place| place != data_dir);
    let look = |place: PathBuf| {
        let presence = postgres::presence(&place);
        (place, presence)
    };
    places.into_iter().map(look).collect()
}

/// The home directory of the user who called `sudo`.
fn sudo_home() -> Option<PathBuf> {
    let user = nix::unistd::User::from_name(&std::env::var("SUDO_USER").ok()?).ok()??;
    Some(user.dir)
}
