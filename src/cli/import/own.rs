//! `backscroll import` without `--from`: an export of Backscroll.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::{
    Error, Exit,
    archive::Writer,
    cli::progress::Progress,
    config::Config,
    daemon::Store,
    text::{count, escape},
    transfer::{
        self, Checked, Outcome,
        foreign::{self, Input},
    },
};

/// Imports an export of Backscroll.
pub(super) async fn run(directory: &Path, config: &Config) -> anyhow::Result<Exit> {
    let shown = Progress::new();
    shown.begin("checking the files", 0);
    let checked = transfer::check(directory, |read| shown.show(read));
    shown.finish();
    let rooms = match checked {
        Ok(rooms) => rooms,
        Err(error) => {
            eprintln!("backscroll: nothing was imported: {error}");
            return Ok(Exit::Stalled);
        }
    };
    let store = Store::open(config).await?;
    let imported = import(&store, config, &rooms, directory).await;
    store.close().await?;
    imported
}

async fn import(store: &Store, config: &Config, rooms: &[Checked], directory: &Path) -> anyhow::Result<Exit> {
    store.archive.migrate().await.map_err(Error::from)?;
    let writer = store.archive.writer(config.redactions).await.map_err(Error::from)?;
    let imported = import_with(&writer, rooms, directory).await;
    writer.release().await;
    imported
}

async fn import_with(writer: &Writer, rooms: &[Checked], directory: &Path) -> anyhow::Result<Exit> {
    let shown = Progress::new();
    let total: u64 = rooms.iter().map(|room| room.events).sum();
    shown.begin("importing", i64::try_from(total).unwrap_or_default());
    let (mut imported, mut events, mut there, mut passed, mut lacking) = (0, 0, 0, 0, Vec::new());
    for user_id in transfer::import_common(writer, directory).await? {
        let user_id = escape(&user_id);
        eprintln!(
            "backscroll: {user_id} was erased in the other archive. What they send from now on is covered here, too, and \
             `backscroll erase --user {user_id}` covers what this archive already has of them"
        );
    }
    for room in rooms {
        let progress = |read| shown.show(passed + read);
        match Box::pin(transfer::import(writer, room, progress)).await? {
            Outcome::Imported => (imported, events) = (imported + 1, events + room.events),
            Outcome::There => there += 1,
            Outcome::Lacking => lacking.push(room.room_id.clone()),
        }
        passed += room.events;
    }
    shown.finish();
    let mut said = format!("{} imported: {}", count(imported, "room"), count(events, "event"));
    if there > 0 {
        said = format!("{said}; {} had been archived before", count(there, "room"));
    }
    eprintln!("backscroll: {said}");
    if !lacking.is_empty() {
        let mut input = Input::read_export(directory, &lacking)?;
        shown.begin("adding what was lacking", i64::try_from(input.event_count).unwrap_or_default());
        let shutdown = CancellationToken::new();
        let added =
            Box::pin(foreign::import(writer, &mut input, &shutdown, |done| shown.show(done.read))).await;
        shown.finish();
        let added = added?;
        eprintln!(
            "backscroll: {} had been archived before, but lacked {} of the export. They were added, and are in the view \
             imported_events until the homeserver gives them",
            count(added.rooms, "room"),
            count(added.stored, "event")
        );
    }
    Ok(Exit::Success)
}
