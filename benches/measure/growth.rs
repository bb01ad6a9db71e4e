//! Goals 4, 6 and 7: what a long archive costs that a short one does not. Fills one million after million.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    archiver::{Archiver, ReplayServer},
    database::Database,
    process,
    replay::{RETURNING, Replay},
    say,
    table::{self, Row},
};

/// Rooms of each part.
const ROOMS: u64 = 4;
/// How often each question is asked.
const REPETITIONS: usize = 7;
/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(60);
/// When it has nothing left to do: the states are compared after the first answer of `/sync`, which takes 30 s.
const SETTLED: Duration = Duration::from_secs(45);

/// What people ask most, as the README has it; the rooms are those of the first and the last part.
const QUESTIONS: [(&str, &str); 7] = [
    (
        "the newest 50 messages of a room",
        "select sent_at, sender_name, body from messages where room_id = '{room}'
         order by position desc limit 50",
    ),
    (
        "50 messages from the middle on",
        "select sent_at, sender_name, body from messages where room_id = '{room}' and position >
         (select (min(position) + max(position)) / 2 from archive.events where room_id = '{room}')
         order by position limit 50",
    ),
    ("an event by its id", "select * from events where room_id = '{room}' and event_id = '{event}'"),
    (
        "a room's topics and names",
        "select * from state_history where room_id = '{room}' and type = 'm.room.name'",
    ),
    ("a room's members", "select count(*) from members where room_id = '{room}' and membership = 'join'"),
    ("all rooms", "select * from rooms"),
    ("is anything missing", "select * from gaps where state <> 'closed'"),
];

/// A part of the growth and what it cost.
struct Part {
    name: String,
    events: u64,
    took: Duration,
    cpu: Duration,
    wal_bytes: i64,
}

/// Archives `parts` times `ROOMS` rooms of `events`, in order; goes back to the first rooms after the first and the last part;
/// then measures the archive's start, its questions, and its idleness.
pub(crate) async fn print(database: &Database, events: u64, parts: u64) -> anyhow::Result<()> {
    let rooms = parts * ROOMS;
    let replay = Replay { rooms, events, ..Replay::default() };
    let server = ReplayServer::start(&replay)?;
    let url = database.fresh("archived").await?;
    // The recheck of a gap would come into the idle minute.
    let archiver = Archiver::new(&server.url, &url)?.set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1d");
    let (mut grown, mut returned) = (Vec::new(), Vec::new());
    for part in 1..=parts {
        server.conduct(&format!("rooms/{}", part * ROOMS)).await?;
        let name = format!("part {part}");
        grown.push(measure(database, &archiver, name, ROOMS * events).await?);
        if part == 1 || part == parts {
            // As much as would let a fixed cost of each run disappear.
            let more = events / 2;
            server.conduct(&format!("more/{more}")).await?;
            let name = format!("back to the first rooms after part {part}");
            returned.push(measure(database, &archiver, name, RETURNING * more).await?);
        }
    }
    let rows = [compare(&grown), compare(&returned)].concat();
    table::print(
        &["growth", "µs/event", "of the first", "its CPU", "WAL bytes/event", "of the first"],
        &rows,
    );
    restart(database, &server, &archiver).await?;
    ask(&url, rooms).await?;
    idle(database, &archiver).await
}

async fn measure(
    database: &Database,
    archiver: &Archiver,
    name: String,
    events: u64,
) -> anyhow::Result<Part> {
    let stored = "select coalesce(sum(event_count), 0)::text from archive.rooms";
    let wal = "select (pg_current_wal_insert_lsn() - '0/0')::text";
    database.run("archived", "checkpoint").await?;
    let before = (database.number("archived", stored).await?, database.number("archived", wal).await?);
    let run = archiver.once()?;
    let after = (database.number("archived", stored).await?, database.number("archived", wal).await?);
    let new = after.0 - before.0;
    anyhow::ensure!(new == i64::try_from(events)?, "{name}: {new} of {events} events were archived");
    say(&format!("  {name}: {events} events in {:.2?}", run.took));
    Ok(Part { name, events, took: run.took, cpu: run.cpu, wal_bytes: after.1 - before.1 })
}

/// Each part beside the first.
fn compare(parts: &[Part]) -> Vec<Row> {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = |part: &Part| {
        let events = part.events as f64;
        let us = |time: Duration| time.as_secs_f64() * 1e6 / events;
        (us(part.took), us(part.cpu), part.wal_bytes as f64 / events)
    };
    let first = parts.first().map(each).unwrap_or_default();
    let rows = parts.iter().map(|part| {
        let (took, cpu, wal) = each(part);
        Row::new(part.name.clone())
            .cell(format!("{took:.1}"))
            .cell(format!("{:.2}", took / first.0))
            .cell(format!("{cpu:.1}"))
            .cell(format!("{wal:.0}"))
            .cell(format!("{:.2}", wal / first.2))
    });
    rows.collect()
}

/// From the start of the process to its first request.
async fn restart(database: &Database, server: &ReplayServer, archiver: &Archiver) -> anyhow::Result<()> {
    let mut took = Vec::new();
    for _ in 0..REPETITIONS {
        server.conduct("first").await?;
        let start = process::now_us();
        let mut daemon = archiver.start(&["run"])?;
        let first = loop {
            let first: u128 = server.conduct("first").await?.parse()?;
            if first > 0 {
                break first;
            }
            anyhow::ensure!(daemon.try_wait()?.is_none(), "it ended: {}", archiver.read_log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        took.push(Duration::from_micros(u64::try_from(first.saturating_sub(start))?).as_secs_f64() * 1e3);
        daemon.kill()?;
        daemon.wait()?;
    }
    let events = database.number("archived", "select sum(event_count)::text from archive.rooms").await?;
    let head = format!("{events} events archived");
    table::print(&[&head, "ms"], &[Row::new("start to first request").quartiles(&took, 1)]);
    Ok(())
}

/// What questions take, the programs' own and those in SQL.
async fn ask(url: &str, rooms: u64) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let mut rows = Vec::new();
    for room in [0, rooms - 1] {
        let room = crate::data::Room { number: room, events: 1, ..crate::data::Room::default() };
        for (name, sql) in QUESTIONS {
            let sql = sql.replace("{room}", &room.room_id()).replace("{event}", &room.event_id(1000));
            let mut took = Vec::new();
            for _ in 0..REPETITIONS {
                let start = Instant::now();
                sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(&mut connection).await.context(name)?;
                took.push(start.elapsed().as_secs_f64() * 1e3);
            }
            rows.push(Row::new(format!("{name}, {}", room.room_id())).quartiles(&took, 1));
        }
    }
    connection.close().await?;
    table::print(&["question", "ms"], &rows);
    Ok(())
}

/// What a daemon takes that has nothing to do.
async fn idle(database: &Database, archiver: &Archiver) -> anyhow::Result<()> {
    let mut daemon = archiver.start(&["run"])?;
    tokio::time::sleep(SETTLED).await;
    let transactions =
        "select (xact_commit + xact_rollback)::text from pg_stat_database where datname = 'archived'";
    let before = (process::cpu(daemon.id()), database.number("postgres", transactions).await?);
    tokio::time::sleep(IDLE).await;
    let after = (process::cpu(daemon.id()), database.number("postgres", transactions).await?);
    anyhow::ensure!(daemon.try_wait()?.is_none(), "it ended: {}", archiver.read_log());
    daemon.kill()?;
    daemon.wait()?;
    let row = Row::new(format!("{} s", IDLE.as_secs()))
        .cell(format!("{:.0} ms", after.0.saturating_sub(before.0).as_secs_f64() * 1e3))
        .cell((after.1 - before.1).to_string());
    table::print(&["idle", "its CPU", "transactions"], &[row]);
    Ok(())
}
