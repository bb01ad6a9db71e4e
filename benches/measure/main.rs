//! Measures the whole program against the goals of its design, each as a ratio of two things run side by side. See
//! `benches/README.md` for what it printed last.

mod archiver;
mod data;
mod database;
mod growth;
mod homeserver;
mod live;
mod memory;
mod peers;
mod process;
mod replay;
mod table;
mod writer;

use std::io::Write as _;

use clap::Parser;

use crate::{database::Database, replay::Replay};

#[derive(Parser)]
struct Arguments {
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// A setting of PostgreSQL to try instead of the program's own: `autovacuum=off`. May be repeated.
    #[arg(long, global = true, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The whole archiver against one raw COPY of the same rows, with one room and with four.
    Writer {
        /// Events of the one room; each of the four has half of it.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// Pairs.
        #[arg(long, default_value_t = 7)]
        repetitions: usize,
    },
    /// The whole archiver behind a real Synapse, against fetching the same pages.
    Homeserver {
        /// Messages of each of the four rooms.
        #[arg(long, default_value_t = 2_500)]
        events: u64,
        /// Pairs.
        #[arg(long, default_value_t = 7)]
        repetitions: usize,
    },
    /// The most memory resident, with eight rooms in flight.
    Memory,
    /// From a `/sync` answer to the row visible in SQL, while four rooms are walked.
    Live {
        /// Events of each room.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
    },
    /// What the tenth million costs beside the first; then start, questions and idleness on all of them.
    Growth {
        /// Events of each room; four rooms a part.
        #[arg(long, default_value_t = 250_000)]
        events: u64,
        #[arg(long, default_value_t = 10)]
        parts: u64,
    },
    /// What people use instead, against the same replay server; `benches/run.sh peers` installs them.
    Peers(peers::Peers),
    /// The replay server, as a process of its own.
    #[command(hide = true)]
    Serve {
        /// Rooms, first room, events, body bytes, whether to keep pages, delay in ms.
        replay: String,
    },
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> anyhow::Result<()> {
    let Arguments { what, set, .. } = Arguments::parse();
    // The replay server shares two cores with what is measured: one thread of it is enough.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(what, &set))
}

async fn run(what: What, set: &[(String, String)]) -> anyhow::Result<()> {
    match what {
        What::Serve { replay } => {
            let parts: Vec<&str> = replay.split(',').collect();
            let &[rooms, first_room, events, body_bytes, keep, delay_ms] = parts.as_slice() else {
                anyhow::bail!("six parts")
            };
            let replay = Replay {
                rooms: rooms.parse()?,
                first_room: first_room.parse()?,
                events: events.parse()?,
                body_bytes: body_bytes.parse()?,
                keep: keep.parse()?,
                delay_ms: delay_ms.parse()?,
            };
            replay::serve(replay).await;
            Ok(())
        }
        What::Homeserver { events, repetitions } => {
            with_database(set, async |database| homeserver::print(database, events, repetitions).await).await
        }
        What::Memory => with_database(set, async |database| memory::print(database).await).await,
        What::Live { events } => {
            with_database(set, async |database| live::print(database, events).await).await
        }
        What::Peers(peers) => with_database(set, async |database| peers::print(database, &peers).await).await,
        What::Growth { events, parts } => {
            with_database(set, async |database| growth::print(database, events, parts).await).await
        }
        What::Writer { events, repetitions } => {
            with_database(set, async |database| writer::print(database, events, repetitions).await).await
        }
    }
}

async fn with_database(
    set: &[(String, String)],
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let database = Database::start(set).await?;
    let result = work(&database).await;
    database.stop().await?;
    result
}
