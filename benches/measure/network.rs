//! The backfill of one room with the database behind loopback TCP, against that behind a Unix socket.

use crate::{
    archiver::{Archiver, ReplayServer},
    database::Database,
    replay::Replay,
    say,
    table::{self, Row},
};

/// Archives the same room by either way, in alternation.
pub(crate) async fn print(database: &Database, events: u64, repetitions: usize) -> anyhow::Result<()> {
    let replay = Replay { rooms: 1, events, keep: true, ..Replay::default() };
    let server = ReplayServer::start(&replay)?;
    // The first run fills the replay server's memory.
    archive(database, &server, events, false).await?;
    let (mut ratios, mut by_socket, mut by_tcp) = (vec![], vec![], vec![]);
    for repetition in 0..repetitions {
        let mut took = [0.0; 2];
        // Which goes first alternates.
        for index in [repetition % 2, 1 - repetition % 2] {
            took[index] = archive(database, &server, events, index == 1).await?;
        }
        let [socket, tcp] = took;
        say(&format!("  by socket in {socket:.2} s, by TCP in {tcp:.2} s, ratio {:.3}", tcp / socket));
        ratios.push(tcp / socket);
        by_socket.push(socket);
        by_tcp.push(tcp);
    }
    let row = Row::new(format!("one room of {events}"))
        .extremes(&ratios, 3)
        .extremes(&by_socket, 2)
        .extremes(&by_tcp, 2);
    table::print(&["network; median, least and most", "TCP / socket", "socket, s", "TCP, s"], &[row]);
    Ok(())
}

/// How long archiving the room takes, in seconds.
async fn archive(database: &Database, server: &ReplayServer, events: u64, tcp: bool) -> anyhow::Result<f64> {
    let mut url = database.fresh("archived").await?;
    if tcp {
        url = database.tcp_url("archived")?;
    }
    let run = Archiver::new(&server.url, &url)?.once()?;
    let stored = database.number("archived", "select count(*)::text from archive.events").await?;
    anyhow::ensure!(stored == i64::try_from(events)?, "{stored} of {events} events were archived");
    Ok(run.took.as_secs_f64())
}
