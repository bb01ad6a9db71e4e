//! Measures the whole program against the goals of its design, each as a ratio of two things run side by side. See
//! `benches/README.md` for what it printed last.

mod archiver;
mod data;
mod database;
mod encryption;
mod growth;
mod homeserver;
mod live;
mod memory;
mod network;
mod peers;
mod process;
mod proof;
mod replay;
mod rooms;
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
    /// A large key backup on a real Synapse, and messages that its keys decrypt.
    Encryption {
        /// Sessions of the backup.
        #[arg(long, default_value_t = 100_000)]
        sessions: u64,
        /// Messages, a hundred of each session.
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
    },
    /// From a `/sync` answer to the row visible in SQL, while four rooms are walked.
    Live {
        /// Events of each room.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
    },
    /// The first `/sync` of an account in many rooms, and of one in a room of many members, by socket and by TCP.
    Rooms {
        /// Rooms of the account; several, separated by commas, are measured one after the other.
        #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 20_000])]
        rooms: Vec<u64>,
        /// Members of the one large room; 0 leaves it out.
        #[arg(long, default_value_t = 100_000)]
        members: u64,
        /// Pairs.
        #[arg(long, default_value_t = 1)]
        repetitions: usize,
    },
    /// The backfill of one room with the database behind loopback TCP, against that behind a Unix socket.
    Network {
        /// Events of the room.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// Pairs.
        #[arg(long, default_value_t = 7)]
        repetitions: usize,
    },
    /// Verifying, sealing, exporting and importing.
    Proof {
        /// Events of the one room.
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
        /// Messages of each of the four rooms of Synapse.
        #[arg(long, default_value_t = 2_500)]
        synapse: u64,
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
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
        /// Rooms, first room, events, body bytes, whether to keep pages, delay in ms, members, timeline.
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
            let numbers: Vec<u64> = replay.split(',').map(str::parse).collect::<Result<_, _>>()?;
            let &[rooms, first_room, events, body_bytes, keep, delay_ms, members, timeline] =
                numbers.as_slice()
            else {
                anyhow::bail!("eight numbers")
            };
            let (body_bytes, keep) = (usize::try_from(body_bytes)?, keep != 0);
            let replay = Replay { rooms, first_room, events, body_bytes, keep, delay_ms, members, timeline };
            replay::serve(replay).await;
            Ok(())
        }
        What::Homeserver { events, repetitions } => {
            with_database(set, async |database| homeserver::print(database, events, repetitions).await).await
        }
        What::Memory => with_database(set, async |database| memory::print(database).await).await,
        What::Encryption { sessions, messages } => {
            let print = async |database: &Database| encryption::print(database, sessions, messages).await;
            with_database(set, print).await
        }
        What::Live { events } => {
            with_database(set, async |database| live::print(database, events).await).await
        }
        What::Rooms { rooms, members, repetitions } => {
            let print =
                async |database: &Database| rooms::print(database, &rooms, members, repetitions).await;
            with_tcp(set, print).await
        }
        What::Network { events, repetitions } => {
            with_tcp(set, async |database| network::print(database, events, repetitions).await).await
        }
        What::Peers(peers) => with_database(set, async |database| peers::print(database, &peers).await).await,
        What::Growth { events, parts } => {
            with_database(set, async |database| growth::print(database, events, parts).await).await
        }
        What::Proof { events, synapse, repetitions } => {
            with_database(set, async |database| {
                proof::print(database, events, repetitions).await?;
                homeserver::print_proof(database, synapse, repetitions).await
            })
            .await
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
    measured(Database::start(set).await?, work).await
}

/// The same with a server that also listens on loopback TCP.
async fn with_tcp(
    set: &[(String, String)],
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    measured(Database::start(set).await?.listen().await?, work).await
}

async fn measured(
    database: Database,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let result = work(&database).await;
    database.stop().await?;
    result
}
