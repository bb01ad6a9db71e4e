//! Goal 3: what people use instead, each to the end of the same rooms.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;

use crate::{
    archiver::{self, Archiver, ReplayServer, Run},
    database::Database,
    replay::Replay,
    say,
    table::{self, Row},
};

const ROOMS: u64 = 4;

/// Where `benches/run.sh peers` has put them.
#[derive(clap::Args)]
pub(crate) struct Peers {
    /// A virtual environment with matrix-nio, psycopg and matrix-commander.
    #[arg(long)]
    venv: PathBuf,
    /// The program in `benches/peers/matrix-sdk`.
    #[arg(long)]
    matrix_sdk: PathBuf,
    /// Events of each of the four rooms.
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
}

#[derive(Clone, Copy)]
enum Tool {
    Backscroll,
    MatrixSdk,
    Nio,
    Commander,
}

const TOOLS: [Tool; 4] = [Tool::Backscroll, Tool::MatrixSdk, Tool::Nio, Tool::Commander];

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Backscroll => "Backscroll, PostgreSQL",
            Self::MatrixSdk => "matrix-sdk's event cache, SQLite",
            Self::Nio => "loop on matrix-nio, PostgreSQL",
            Self::Commander => "matrix-commander, prints",
        }
    }
}

/// Runs them alternately and prints a table.
pub(crate) async fn print(database: &Database, peers: &Peers) -> anyhow::Result<()> {
    let replay = Replay { rooms: ROOMS, events: peers.events, keep: true, ..Replay::default() };
    let server = ReplayServer::start(&replay)?;
    // So that the replay server's memory is filled with everybody's pages.
    for tool in TOOLS {
        run(database, &server, peers, tool).await?;
    }
    let mut runs: [Vec<Run>; TOOLS.len()] = Default::default();
    for _ in 0..peers.repetitions {
        for (tool, runs) in TOOLS.into_iter().zip(&mut runs) {
            let run = run(database, &server, peers, tool).await?;
            say(&format!("  {}: {:.2?}, {} KiB", tool.name(), run.took, run.peak_rss_kib));
            runs.push(run);
        }
    }
    let events = f64::from(u32::try_from(ROOMS * peers.events)?);
    let rows = TOOLS.into_iter().zip(&runs).map(|(tool, theirs)| {
        let rates: Vec<f64> = theirs.iter().map(|run| events / run.took.as_secs_f64()).collect();
        let times = theirs.iter().zip(&runs[0]);
        let ratios: Vec<f64> =
            times.map(|(run, own)| run.took.as_secs_f64() / own.took.as_secs_f64()).collect();
        let peaks = theirs.iter().map(|run| u32::try_from(run.peak_rss_kib).unwrap_or(u32::MAX));
        let peaks: Vec<f64> = peaks.map(|kib| f64::from(kib) / 1024.0).collect();
        Row::new(tool.name()).quartiles(&rates, 0).quartiles(&ratios, 1).quartiles(&peaks, 0)
    });
    table::print(&["peers", "events/s", "its time / Backscroll's", "peak MiB"], &rows.collect::<Vec<_>>());
    Ok(())
}

/// One of them, from its start to its end, into nothing that was there before.
async fn run(database: &Database, server: &ReplayServer, peers: &Peers, tool: Tool) -> anyhow::Result<Run> {
    let directory = tempfile::tempdir()?;
    let url = database.fresh("peer").await?;
    let total = ROOMS * peers.events;
    let (run, stored) = match tool {
        Tool::Backscroll => {
            let run = Archiver::new(&server.url, &url)?.once()?;
            (run, database.number("peer", "select count(*)::text from archive.events").await?)
        }
        Tool::MatrixSdk => {
            let mut command = Command::new(&peers.matrix_sdk);
            command.arg(&server.url).arg(directory.path().join("store"));
            let (run, output) = finish(command, directory.path())?;
            (run, output.trim().parse()?)
        }
        Tool::Nio => {
            let mut command = Command::new(peers.venv.join("bin/python"));
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/nio_rows.py");
            command.arg(script).arg(&server.url).arg(&url);
            let (run, output) = finish(command, directory.path())?;
            (run, output.trim().parse()?)
        }
        Tool::Commander => {
            let rooms = (0..ROOMS).map(|number| format!("!replay{number:06}:bench.test"));
            let rooms: Vec<String> = rooms.collect();
            let credentials = directory.path().join("credentials.json");
            std::fs::write(
                &credentials,
                format!(
                    r#"{{"homeserver":"{}","user_id":"@archive:bench.test","device_id":"D","access_token":"replay","room_id":"{}"}}"#,
                    server.url, rooms[0]
                ),
            )?;
            let store = directory.path().join("store");
            std::fs::create_dir(&store)?;
            let mut command = Command::new(peers.venv.join("bin/matrix-commander"));
            command.arg("--credentials").arg(credentials).arg("--store").arg(store);
            command.args(["--listen", "all", "--listen-self", "--room"]).args(&rooms);
            let (run, output) = finish(command, directory.path())?;
            // It prints messages only, and says so if it could not fetch one.
            let printed = i64::try_from(output.lines().filter(|line| line.starts_with("Message ")).count())?;
            anyhow::ensure!(
                printed > i64::try_from(total / 2)?,
                "it printed {printed} messages: {output:.2000}"
            );
            (run, i64::try_from(total)?)
        }
    };
    anyhow::ensure!(stored == i64::try_from(total)?, "{}: {stored} of {total} events", tool.name());
    Ok(run)
}

/// Runs a program to its end; its output goes to a file, which no reader slows down.
fn finish(mut command: Command, directory: &Path) -> anyhow::Result<(Run, String)> {
    let (output, log) = (directory.join("output"), directory.join("log"));
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&output)?).stderr(std::fs::File::create(&log)?);
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let run = archiver::wait(child, start)
        .with_context(|| format!("{command:?}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
    Ok((run, std::fs::read_to_string(&output)?))
}
