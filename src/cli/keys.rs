//! `backscroll keys`

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use secrecy::SecretString;

use super::hidden;
use crate::{
    Error, Exit,
    archive::ImportedSessions,
    config::{Config, SecretSource},
    daemon::Store,
    encryption::{KeyFile, KeyFileError},
    text::{Printable, count, print, thousands},
};

/// Give the archive keys of encrypted messages.
///
/// A running Backscroll begins to decrypt what the keys are for within 15 seconds, else the next `backscroll run` does.
#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Import a key file, as clients export it (in Element: All settings, Encryption, Export keys)
    ///
    /// The passphrase is asked for on the terminal without showing it. The keys are then in the archive, so the file
    /// is needed no more. The same file changes nothing when it is imported again.
    Import {
        /// The key file
        file: PathBuf,

        /// Read the passphrase from this file, which only you can read
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

impl Keys {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let Action::Import { file, passphrase_file } = self.action;
        let passphrase = passphrase(&file, passphrase_file).await?;
        let Some(passphrase) = passphrase else {
            eprintln!(
                "backscroll: standard input is no terminal to ask for the passphrase on: name a file that contains it with \
                 --passphrase-file"
            );
            return Ok(Exit::Usage);
        };
        let read = {
            let file = file.clone();
            tokio::task::spawn_blocking(move || KeyFile::open(&file, &passphrase)).await?
        };
        let keys = match read {
            Ok(keys) => keys,
            Err(error) => {
                eprintln!("backscroll: failed to import {}: {error}", Printable(&file.to_string_lossy()));
                let is_io = matches!(error, KeyFileError::Io(_));
                return Ok(if is_io { Exit::Io } else { Exit::Stalled });
            }
        };
        let rooms =
            keys.sessions.iter().map(|session| session.room_id.clone()).collect::<BTreeSet<_>>().len();
        let unreadable = keys.unreadable.clone();
        let store = Store::open(config).await?;
        let imported = import(&store, keys).await;
        store.close().await?;
        print(&summary(imported?, rooms, unreadable.values().sum()))?;
        for (reason, entries) in unreadable {
            eprintln!("backscroll: left out {} {reason}", count(entries as u64, "session"));
        }
        Ok(Exit::Success)
    }
}

/// `None`: there is no terminal to ask on.
async fn passphrase(file: &Path, passphrase_file: Option<PathBuf>) -> anyhow::Result<Option<SecretString>> {
    if let Some(path) = passphrase_file {
        return Ok(Some(SecretSource::passphrase_file(path).read()?));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let prompt = format!("Passphrase of {}: ", Printable(&file.to_string_lossy()));
    let line = hidden::ask("passphrase", &prompt).await?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).into()))
}

async fn import(store: &Store, keys: KeyFile) -> Result<ImportedSessions, Error> {
    store.archive.migrate().await?;
    Ok(store.archive.import_sessions(keys.sessions).await?)
}

fn summary(imported: ImportedSessions, rooms: usize, unreadable: usize) -> String {
    let mut text = format!(
        "Sessions of {}: {} new, {} better than before, {} known, {} unreadable.\n",
        count(rooms as u64, "room"),
        thousands(imported.new as u64),
        thousands(imported.better as u64),
        thousands(imported.known as u64),
        thousands(unreadable as u64)
    );
    if imported.refused > 0 {
        let refused = count(imported.refused as u64, "session");
        let _ = writeln!(text, "Refused {refused}, of which too many copies contradict each other.");
    }
    if imported.erased > 0 {
        let erased = count(imported.erased as u64, "session");
        let _ = writeln!(text, "Left out {erased} of erased rooms.");
    }
    if imported.queued > 0 {
        let queued = count(u64::try_from(imported.queued).unwrap_or_default(), "session");
        let _ = writeln!(text, "A running Backscroll, or the next run, decrypts messages of {queued}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_each_session_once() {
        let imported = ImportedSessions { new: 1200, better: 1, known: 3, refused: 0, erased: 1, queued: 2 };
        assert_eq!(
            summary(imported, 2, 4),
            "Sessions of 2 rooms: 1,200 new, 1 better than before, 3 known, 4 unreadable.\n\
             Left out 1 session of erased rooms.\n\
             A running Backscroll, or the next run, decrypts messages of 2 sessions.\n"
        );
    }
}
