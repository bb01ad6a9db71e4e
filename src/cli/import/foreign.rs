//! `backscroll import --from`: the files of other programs.

use std::path::Path;

use ruma::RoomId;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Exit,
    archive::ImportSource,
    cli::progress::Progress,
    config::Config,
    daemon::Store,
    text::{count, print, thousands},
    transfer::foreign::{self, Done, Input},
};

/// Imports what another program has written.
pub(super) async fn run(
    source: ImportSource,
    path: &Path,
    room: Option<&RoomId>,
    config: &Config,
) -> anyhow::Result<Exit> {
    // Until this is done nothing is written, so a signal may end it.
    let mut input = Box::pin(Input::read(source, path, room)).await?;
    let shutdown = crate::cli::shutdown_on_signal()?;
    let store = Store::open(config).await?;
    let imported = Box::pin(import(&store, config, &mut input, &shutdown)).await;
    store.close().await?;
    let done = imported?;
    print(&summary(&done))?;
    if shutdown.is_cancelled() && done.read < input.event_count {
        eprintln!("The import was stopped. The same command continues it.");
    }
    Ok(Exit::Success)
}

async fn import(
    store: &Store,
    config: &Config,
    input: &mut Input,
    shutdown: &CancellationToken,
) -> anyhow::Result<Done> {
    store.archive.migrate().await.map_err(Error::from)?;
    let writer = store.archive.writer(config.redactions).await.map_err(Error::from)?;
    let shown = Progress::new();
    shown.begin("importing", i64::try_from(input.event_count).unwrap_or_default());
    let imported = foreign::import(&writer, input, shutdown, |done| shown.show(done.read)).await;
    shown.finish();
    writer.release().await;
    Ok(imported?)
}

fn summary(done: &Done) -> String {
    let known = done.read.saturating_sub(done.stored).saturating_sub(done.set_aside);
    format!(
        "{} and {} read: {} stored, {} known already, {} set aside.\n",
        count(done.rooms, "room"),
        count(done.read, "event"),
        thousands(done.stored),
        thousands(known),
        thousands(done.set_aside)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_each_event_once() {
        let done = Done { rooms: 2, read: 1_204, stored: 1_100, set_aside: 4 };
        assert_eq!(
            summary(&done),
            "2 rooms and 1,204 events read: 1,100 stored, 100 known already, 4 set aside.\n"
        );
    }
}
