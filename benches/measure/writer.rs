//! Goal 1: the whole archiver against one raw COPY of the same rows.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    archiver::{Archiver, ReplayServer},
    database::Database,
    process,
    replay::Replay,
    say,
    table::{self, Row},
};

/// Archives `rooms` rooms of `events` events and copies the same rows, in alternation.
pub(crate) async fn measure(
    database: &Database,
    rooms: u64,
    events: u64,
    repetitions: usize,
) -> anyhow::Result<Row> {
    let replay = ReplayServer::start(&Replay { rooms, events, keep: true, ..Replay::default() })?;
    // The first run fills the replay server's memory and gives the rows.
    let rows = archive(database, &replay, rooms * events).await?.rows;
    let total = u32::try_from(rooms * events)?;
    let (mut ratios, mut archived, mut copied, mut own, mut theirs) =
        (vec![], vec![], vec![], vec![], vec![]);
    for repetition in 0..repetitions {
        // Which goes first alternates.
        let mut copy = None;
        if repetition % 2 == 0 {
            copy = Some(database.copy("copied", &rows).await?);
        }
        let outcome = archive(database, &replay, rooms * events).await?;
        let copy = match copy {
            Some(copy) => copy,
            None => database.copy("copied", &rows).await?,
        };
        ratios.push(copy.as_secs_f64() / outcome.stored.as_secs_f64());
        let us = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(total);
        archived.push(us(outcome.stored));
        copied.push(us(copy));
        own.push(us(outcome.run.cpu));
        theirs.push(us(outcome.replay_cpu));
        say(&format!(
            "  {rooms} room(s): archived in {:.2?}, searchable in {:.2?}, copied in {copy:.2?}, ratio {:.3}, rss {} KiB",
            outcome.stored,
            outcome.run.took,
            copy.as_secs_f64() / outcome.stored.as_secs_f64(),
            outcome.run.peak_rss_kib
        ));
    }
    Ok(Row::new(format!("{rooms} room(s) of {events}"))
        .quartiles(&ratios, 2)
        .quartiles(&archived, 1)
        .quartiles(&copied, 1)
        .quartiles(&own, 1)
        .quartiles(&theirs, 1))
}

/// Prints both rows of the goal.
pub(crate) async fn print(database: &Database, events: u64, repetitions: usize) -> anyhow::Result<()> {
    let one = measure(database, 1, events, repetitions).await?;
    let four = measure(database, 4, events / 2, repetitions).await?;
    let heads =
        ["writer", "COPY / archiver", "archiver µs/event", "COPY µs/event", "its CPU", "replay's CPU"];
    table::print(&heads, &[one, four]);
    Ok(())
}

struct Outcome {
    run: crate::archiver::Run,
    /// From the start of the process until the last page was stored.
    stored: Duration,
    replay_cpu: Duration,
    rows: Vec<u8>,
}

async fn archive(database: &Database, replay: &ReplayServer, events: u64) -> anyhow::Result<Outcome> {
    let url = database.fresh("archived").await?;
    let before = replay.cpu();
    let begun = process::now_us();
    let run = Archiver::new(&replay.url, &url)?.once()?;
    // The search is filled behind the writer, until the process ends.
    let last = "select (extract(epoch from max(updated_at)) * 1000000)::bigint::text from archive.walks where kind = 'history'";
    let last = u128::try_from(database.number("archived", last).await?)?;
    let stored = Duration::from_micros(u64::try_from(last.saturating_sub(begun))?);
    let replay_cpu = replay.cpu().saturating_sub(before);
    let count = database.number("archived", "select count(*)::text from archive.events").await?;
    anyhow::ensure!(count == i64::try_from(events)?, "{count} of {events} events were archived");
    let rows = database.rows("archived").await.context("read the rows")?;
    Ok(Outcome { run, stored, replay_cpu, rows })
}
