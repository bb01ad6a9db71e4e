//! The first `/sync` of an account in many rooms, and of one in a room of many members: how long until all is stored and
//! walked, how much memory that takes, and how long a live message waits meanwhile.

use std::{
    collections::HashMap,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::{
    archiver::{Archiver, ReplayServer},
    data::Room,
    database::Database,
    process,
    replay::{self, Replay},
    say,
    table::{self, Row},
};

/// What each room begins with has five events of state; so many join.
const MEMBERS: u64 = 5;
/// State events and messages of each room.
const EVENTS: u64 = 15;
const MESSAGES: u64 = 5;
/// Between two looks into the database.
const LOOK: Duration = Duration::from_millis(100);
/// Between two live messages.
const PAUSE: Duration = Duration::from_secs(1);
/// How long all may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What one account's first run came to.
#[derive(Debug)]
struct Outcome {
    /// Seconds until the first answer was stored.
    stored_s: f64,
    /// Until the histories were walked.
    walked_s: f64,
    /// Of each live message: milliseconds from the answer that reported it until it was visible, in their order.
    late_ms: Vec<f64>,
    /// Seconds from when the first live message was sent, while the first answer was being stored.
    first_live_s: f64,
    peak_rss_kib: u64,
    /// The same of a second start, which compares the states.
    again_rss_kib: Option<u64>,
}

/// Prints a row for each account and way.
pub(crate) async fn print(
    database: &Database,
    rooms: &[u64],
    members: u64,
    repetitions: usize,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for &rooms in rooms {
        let replay = Replay {
            rooms,
            events: EVENTS,
            members: MEMBERS,
            timeline: MESSAGES,
            keep: true,
            ..Replay::default()
        };
        rows.extend(by_both_ways(database, &replay, &format!("{rooms} rooms"), repetitions).await?);
    }
    if members > 0 {
        let events = members + EVENTS - MEMBERS;
        let replay = Replay { rooms: 1, events, members, timeline: MESSAGES, ..Replay::default() };
        rows.extend(by_both_ways(database, &replay, &format!("a room of {members}"), repetitions).await?);
    }
    let heads = [
        "first sync",
        "stored, s",
        "walked, s",
        "live, most ms from its answer",
        "first live, s from its sending",
        "most MiB",
        "again, MiB",
    ];
    table::print(&heads, &rows);
    Ok(())
}

async fn by_both_ways(
    database: &Database,
    replay: &Replay,
    name: &str,
    repetitions: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut outcomes = [Vec::new(), Vec::new()];
    for repetition in 0..repetitions {
        // Which goes first alternates.
        for index in [repetition % 2, 1 - repetition % 2] {
            let outcome = measure(database, replay, index == 1).await?;
            say(&format!("  {name} by {}: {outcome:.2?}", WAYS[index]));
            outcomes[index].push(outcome);
        }
    }
    let body = body_mib(replay);
    let rows = WAYS.iter().zip(&outcomes);
    Ok(rows.map(|(way, outcomes)| row(&format!("{name}, {body} MiB, by {way}"), outcomes)).collect())
}

const WAYS: [&str; 2] = ["socket", "TCP"];

fn row(name: &str, outcomes: &[Outcome]) -> Row {
    let figures = |figure: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(figure).collect::<Vec<_>>();
    let mib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0;
    let row = Row::new(name)
        .extremes(&figures(&|outcome| outcome.stored_s), 1)
        .extremes(&figures(&|outcome| outcome.walked_s), 1)
        .extremes(&figures(&|outcome| outcome.late_ms.iter().copied().fold(0.0, f64::max)), 0)
        .extremes(&figures(&|outcome| outcome.first_live_s), 1)
        .extremes(&figures(&|outcome| mib(outcome.peak_rss_kib)), 0);
    if outcomes.iter().all(|outcome| outcome.again_rss_kib.is_none()) {
        return row.cell("–");
    }
    row.extremes(&figures(&|outcome| mib(outcome.again_rss_kib.unwrap_or_default())), 0)
}

/// The size of the first answer.
fn body_mib(replay: &Replay) -> usize {
    let &Replay { events, members, timeline, .. } = replay;
    let rooms = (0..replay.rooms).map(|number| Room { number, events, members, body_bytes: 0 });
    rooms.map(|room| replay::entry(&room, events - timeline).len() + 1).sum::<usize>() >> 20
}

async fn measure(database: &Database, replay: &Replay, tcp: bool) -> anyhow::Result<Outcome> {
    let server = ReplayServer::start(replay)?;
    let socket_url = database.fresh("archived").await?;
    let url = if tcp { database.tcp_url("archived")? } else { socket_url.clone() };
    let archiver = Archiver::new(&server.url, &url)?;
    let mut daemon = archiver.start(&["run"])?;
    let outcome = watch(&mut daemon, &server, &socket_url, replay.rooms).await;
    daemon.kill()?;
    daemon.wait()?;
    let mut outcome = outcome.with_context(|| archiver.read_log())?;
    if replay.rooms == 1 {
        outcome.again_rss_kib = Some(archiver.once()?.peak_rss_kib);
    }
    let stored = database.number("archived", "select count(*)::text from archive.events").await?;
    let expected = replay.rooms * replay.events + u64::try_from(outcome.late_ms.len())?;
    anyhow::ensure!(stored == i64::try_from(expected)?, "{stored} of {expected} events were archived");
    Ok(outcome)
}

/// A question to the database whose answer is a number.
async fn count(connection: &mut PgConnection, sql: &str) -> anyhow::Result<i64> {
    let row = sqlx::raw_sql(AssertSqlSafe(format!("select ({sql})::text"))).fetch_one(connection).await?;
    let text: String = row.try_get_unchecked(0)?;
    Ok(text.parse()?)
}

/// Looks on until all is walked and all live messages are there.
async fn watch(daemon: &mut Child, server: &ReplayServer, url: &str, rooms: u64) -> anyhow::Result<Outcome> {
    let rooms = i64::try_from(rooms)?;
    let mut connection = PgConnection::connect(url).await?;
    let start = Instant::now();
    let (mut stored_s, mut walked_s) = (None, None);
    let (mut sent, mut seen) = (Vec::new(), Vec::new());
    loop {
        tokio::time::sleep(LOOK).await;
        anyhow::ensure!(
            start.elapsed() < PATIENCE && daemon.try_wait()?.is_none(),
            "it has not come to its end"
        );
        let elapsed = start.elapsed().as_secs_f64();
        if stored_s.is_none() {
            let stored =
                count(&mut connection, "select count(*) from archive.rooms where bootstrapped").await?;
            stored_s = (stored == rooms).then_some(elapsed);
        } else if walked_s.is_none() {
            let open = "select count(*) from archive.walks where kind = 'history' and state <> 'done'";
            walked_s = (count(&mut connection, open).await? == 0).then_some(elapsed);
        }
        // The first one as soon as something of the first answer is stored: it is in the next.
        let is_time = sent.last().is_none_or(|last: &Instant| last.elapsed() >= PAUSE);
        if is_time
            && walked_s.is_none()
            && count(&mut connection, "select count(*) from archive.rooms limit 1").await? > 0
        {
            server.conduct("live").await?;
            sent.push(Instant::now());
        }
        while seen.len() < sent.len() && is_visible(&mut connection, seen.len() + 1).await? {
            seen.push((process::now_us(), Instant::now()));
        }
        if let (Some(stored_s), Some(walked_s)) = (stored_s, walked_s)
            && seen.len() == sent.len()
        {
            let handed: Vec<(String, u128)> = serde_json::from_str(&server.conduct("handed").await?)?;
            let handed: HashMap<_, _> = handed.into_iter().collect();
            let mut late_ms = Vec::new();
            for (index, (at, _)) in seen.iter().enumerate() {
                let handed = handed.get(&format!("$live{}", index + 1)).context("it was handed out")?;
                late_ms.push(Duration::from_micros(u64::try_from(at - handed)?).as_secs_f64() * 1e3);
            }
            let first_live = sent.first().zip(seen.first()).map(|(sent, (_, seen))| *seen - *sent);
            let first_live_s = first_live.unwrap_or_default().as_secs_f64();
            let peak_rss_kib = process::peak_rss_kib(daemon.id());
            return Ok(Outcome {
                stored_s,
                walked_s,
                late_ms,
                first_live_s,
                peak_rss_kib,
                again_rss_kib: None,
            });
        }
    }
}

/// Whether a live message, which are all in the first room, is archived.
async fn is_visible(connection: &mut PgConnection, number: usize) -> anyhow::Result<bool> {
    let room_id = Room::default().room_id();
    let look = format!(
        "select count(*) from archive.events join archive.rooms using (room_id)
         where room_id = '{room_id}' and event_id = '$live{number}'"
    );
    Ok(count(connection, &look).await? > 0)
}
