//! `backscroll import`

mod foreign;
mod own;

use std::path::PathBuf;

use clap::ValueEnum;
use ruma::OwnedRoomId;

use crate::{Exit, archive::ImportSource, config::Config};

/// Put an export of Backscroll into the archive, or events from files of other programs.
///
/// All files are checked before anything is written, so a bad file changes nothing. Stop the daemon first.
///
/// An export comes back as it was: the same rows, in the same order, with the same seals.
///
/// Of a room that is there already, and with --from, what the archive has already stays as it is. What it lacks is stored between the events that it knows, in
/// the file's order, and the view `imported_events` lists it, because the homeserver has not given it. Once the
/// homeserver gives such an event, its copy replaces the imported one. An interrupted import is continued by the same
/// command.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// What wrote it, if it is no export of Backscroll
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,

    /// The directory or file
    path: PathBuf,

    /// The room of an Element file whose messages do not name it; of other files, the only room to import
    #[arg(long, value_name = "ROOM", requires = "from")]
    room: Option<OwnedRoomId>,
}

/// What other programs write.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The directory that `synapse_admin_cmd export-data` has written
    SynapseExport,
    /// The JSON file of Element's "Export chat"
    ElementJson,
    /// The database of gomuks, gomuks.db, or its directory
    Gomuks,
}

impl From<Kind> for ImportSource {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::SynapseExport => Self::SynapseExport,
            Kind::ElementJson => Self::ElementJson,
            Kind::Gomuks => Self::Gomuks,
        }
    }
}

impl Import {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        match self.from {
            Some(kind) => foreign::run(kind.into(), &self.path, self.room.as_deref(), config).await,
            None => own::run(&self.path, config).await,
        }
    }
}
