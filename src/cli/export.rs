//! `backscroll export`

use std::path::PathBuf;

use ruma::OwnedRoomOrAliasId;

use super::progress::Progress;
use crate::{
    Error, Exit,
    archive::{Archive, transfer::Period},
    config::Config,
    daemon::Store,
    text::{count, escape},
    transfer::{self, Exported},
};

/// Write rooms to files: every event as served, oldest first, one JSON object on each line.
///
/// State, gaps, redactions and what else the archive knows of a room is in files of its own beside them, and a manifest
/// says what all of it hashes to. `backscroll import` makes the same archive of it. An interrupted export goes on where
/// it stopped, if it is run again. A Backscroll may run beside it.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Rooms: ids or aliases [default: all]
    rooms: Vec<OwnedRoomOrAliasId>,
    /// Directory to write to; only you will be able to read it
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Only events sent at this time or later, such as 2026-01-31 or '2026-01-31 12:00+01', besides state events
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events sent before this time, besides state events
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Export {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_archive(config).await?;
        let exported = self.export(&store.archive).await;
        store.close().await?;
        exported
    }

    async fn export(&self, archive: &Archive) -> anyhow::Result<Exit> {
        let mut room_ids = Vec::new();
        for room in &self.rooms {
            room_ids.push(super::archived_room(archive, room).await?);
        }
        let rooms = archive.rooms_to_export(&room_ids).await.map_err(Error::from)?;
        let period = Period {
            since: archive.time(self.since.as_deref()).await?,
            until: archive.time(self.until.as_deref()).await?,
        };
        transfer::begin(&self.output, &period)?;
        let shown = Progress::new();
        shown.begin("exporting", rooms.iter().map(|room| room.event_count).sum());
        let (mut events, mut there, mut passed) = (0, 0, 0);
        for room in &rooms {
            let progress = |written| shown.show(passed + written);
            let export = transfer::export(archive, &room.room_id, &period, &self.output, progress);
            match Box::pin(export).await? {
                Exported::Written(written) => events += written,
                Exported::There => there += 1,
            }
            passed += u64::try_from(room.event_count).unwrap_or_default();
        }
        let room_ids: Vec<String> = rooms.iter().map(|room| room.room_id.clone()).collect();
        transfer::export_common(archive, &room_ids, &self.output).await?;
        shown.finish();
        let (rooms, events) = (count(rooms.len() as i128, "room"), count(events, "event"));
        let mut said =
            format!("{rooms} exported to {}: {events}", escape(&self.output.display().to_string()));
        if there > 0 {
            said = format!("{said}; {} had been exported before", count(there, "room"));
        }
        eprintln!("backscroll: {said}");
        Ok(Exit::Success)
    }
}
