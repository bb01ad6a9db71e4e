//! Goal 5: the most memory resident, with eight rooms in flight, of usual events and of events of 60 KiB.

use crate::{
    archiver::{Archiver, ReplayServer},
    database::Database,
    replay::Replay,
    table::{self, Row},
};

const ROOMS: u64 = 8;

/// Prints the goal's rows.
pub(crate) async fn print(database: &Database) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, events, body_bytes) in [("590 B", 25_000, 0), ("60 KiB", 2_000, 60 << 10)] {
        let replay = Replay { rooms: ROOMS, events, body_bytes, ..Replay::default() };
        let server = ReplayServer::start(&replay)?;
        let url = database.fresh("archived").await?;
        let archiver = Archiver::new(&server.url, &url)?;
        let run = archiver.set("BACKSCROLL_BACKFILL__CONCURRENCY", &ROOMS.to_string()).once()?;
        let stored = database.number("archived", "select count(*)::text from archive.events").await?;
        anyhow::ensure!(stored == i64::try_from(ROOMS * events)?, "{stored} events were archived");
        rows.push(
            Row::new(format!("{ROOMS} rooms of {events} events of {name}"))
                .cell(format!("{:.1} MiB", f64::from(u32::try_from(run.peak_rss_kib)?) / 1024.0)),
        );
    }
    table::print(&["memory", "most resident"], &rows);
    Ok(())
}
