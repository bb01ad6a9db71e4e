//! Goal 6: from a `/sync` answer's last byte to the row visible in SQL, and to the message found by the search, while
//! backfills run at full speed, and without them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    archiver::{Archiver, ReplayServer},
    database::Database,
    process,
    replay::Replay,
    table::{self, Row},
};

/// Between two live messages.
const PAUSE: Duration = Duration::from_millis(30);
/// Between two looks for a row.
const LOOK: Duration = Duration::from_micros(500);
/// So many messages are sent when nothing else is done any more.
const ALONE: usize = 400;
/// How long a message may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends live messages into one of four rooms while all of them are walked, and then when nothing else is done, and prints
/// how long each took.
pub(crate) async fn print(database: &Database, events: u64) -> anyhow::Result<()> {
    let replay = Replay { rooms: 4, events, keep: true, ..Replay::default() };
    let server = ReplayServer::start(&replay)?;
    // Fills the replay server's memory.
    Archiver::new(&server.url, &database.fresh("archived").await?)?.once()?;
    let url = database.fresh("archived").await?;
    let archiver = Archiver::new(&server.url, &url)?;
    let mut daemon = archiver.start(&["run"])?;
    let seen = follow(database, &url, &server).await;
    daemon.kill()?;
    daemon.wait()?;
    let [beside, alone] = seen.with_context(|| archiver.read_log())?;
    let handed: Vec<(String, u128)> = serde_json::from_str(&server.conduct("handed").await?)?;
    let handed: HashMap<_, _> = handed.into_iter().collect();
    print_times(&format!("{} live messages beside four backfills", beside.len()), &beside, &handed)?;
    print_times(&format!("{} live messages alone", alone.len()), &alone, &handed)
}

/// Prints how long it took from the answer's last byte, in `handed` by event id, until each message was seen.
fn print_times(head: &str, seen: &[Seen], handed: &HashMap<String, u128>) -> anyhow::Result<()> {
    let (mut visible, mut found) = (Vec::new(), Vec::new());
    for Seen { event_id, visible_us, found_us } in seen {
        let handed = handed.get(event_id).context("every message was handed out")?;
        for (took, at) in [(&mut visible, *visible_us), (&mut found, *found_us)] {
            let after = Duration::from_micros(u64::try_from(at.saturating_sub(*handed))?);
            took.push(after.as_secs_f64() * 1e3);
        }
    }
    let row = |name: &str, mut took: Vec<f64>| {
        took.sort_by(f64::total_cmp);
        [0.5, 0.95, 0.99, 1.0]
            .iter()
            .fold(Row::new(name), |row, share| row.cell(format!("{:.1}", table::quantile(&took, *share))))
    };
    table::print(
        &[head, "p50", "p95", "p99", "most"],
        &[row("until visible, ms", visible), row("until found by search(), ms", found)],
    );
    Ok(())
}

/// When a message was seen, in microseconds since 1970.
struct Seen {
    event_id: String,
    visible_us: u128,
    found_us: u128,
}

/// Sends messages until no walk is open any more, and then [`ALONE`] more once all that was fetched can be found. Returns
/// when each of both was visible and found.
async fn follow(database: &Database, url: &str, server: &ReplayServer) -> anyhow::Result<[Vec<Seen>; 2]> {
    let open = "select count(*)::text from archive.walks where state = 'open' and kind = 'history'";
    let queued = "select count(*)::text from archive.search_queue";
    let start = Instant::now();
    while database.number("archived", open).await? == 0 {
        anyhow::ensure!(start.elapsed() < PATIENCE, "no walk was opened");
        tokio::time::sleep(LOOK).await;
    }
    let mut connection = PgConnection::connect(url).await?;
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    while database.number("archived", open).await? > 0 {
        beside.push(send(server, &mut connection, beside.len() + 1).await?);
    }
    while database.number("archived", queued).await? > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    while alone.len() < ALONE {
        alone.push(send(server, &mut connection, beside.len() + alone.len() + 1).await?);
    }
    connection.close().await?;
    Ok([beside, alone])
}

/// Sends a message and waits until it is seen.
async fn send(server: &ReplayServer, connection: &mut PgConnection, number: usize) -> anyhow::Result<Seen> {
    server.conduct("live").await?;
    let event_id = format!("$live{number}");
    let is_visible = format!("select 1 from events where event_id = '{event_id}'");
    let is_found = format!("select 1 from search('\"live {number}\"') where event_id = '{event_id}'");
    let mut times = [0; 2];
    for (time, look) in times.iter_mut().zip([is_visible, is_found]) {
        let start = Instant::now();
        while sqlx::raw_sql(AssertSqlSafe(look.clone())).fetch_optional(&mut *connection).await?.is_none() {
            anyhow::ensure!(start.elapsed() < PATIENCE, "{event_id} was not seen: {look}");
            tokio::time::sleep(LOOK).await;
        }
        *time = process::now_us();
    }
    tokio::time::sleep(PAUSE).await;
    let [visible_us, found_us] = times;
    Ok(Seen { event_id, visible_us, found_us })
}
