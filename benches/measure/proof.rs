//! Verifying, sealing, exporting and importing, against COPY and against fetching the same pages.

use std::time::{Duration, Instant};

use crate::{
    archiver::{Archiver, ReplayServer, wait},
    database::Database,
    homeserver,
    replay::Replay,
    say,
    table::{self, Row},
};

/// Archives one room and takes it out and in again, in alternation with COPY.
pub(crate) async fn print(database: &Database, events: u64, repetitions: usize) -> anyhow::Result<()> {
    let replay = Replay { rooms: 1, events, keep: true, ..Replay::default() };
    let server = ReplayServer::start(&replay)?;
    let archiver = Archiver::new(&server.url, &database.fresh("archived").await?)?;
    archiver.once()?;
    let millions = f64::from(u32::try_from(events)?) / 1e6;
    let [mut exports, mut imports, mut offline, mut seals, mut walks] = [const { Vec::new() }; 5];
    let mut memory = [0; 5];
    for _ in 0..repetitions {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let path = directory.path().join("export").display().to_string();
        let begun = Instant::now();
        let rows = database.rows("archived").await?;
        let out = begun.elapsed();
        let copied = database.copy("copied", &rows).await?;
        let mut run = |what: usize, archiver: &Archiver, arguments: &[&str]| -> anyhow::Result<Duration> {
            let run = wait(archiver.start(arguments)?, Instant::now())?;
            memory[what] = run.peak_rss_kib.max(memory[what]);
            say(&format!("  {}: {:.2?}, {} KiB", arguments[0], run.took, run.peak_rss_kib));
            Ok(run.took)
        };
        let exported = run(0, &archiver, &["export", "--output", &path])?;
        let other = Archiver::new(&server.url, &database.fresh("imported").await?)?;
        let imported = run(1, &other, &["import", &path])?;
        say(&format!("  copied out in {out:.2?}, in in {copied:.2?}"));
        exports.push(out.as_secs_f64() / exported.as_secs_f64());
        imports.push(copied.as_secs_f64() / imported.as_secs_f64());
        let per_million = |took: Duration| took.as_secs_f64() / millions;
        offline.push(per_million(run(2, &archiver, &["verify", "--offline"])?));
        seals.push(per_million(run(3, &other, &["seal"])?));
        let fetched = homeserver::fetch_from(&server.url, "replay").await?.1;
        walks.push(run(4, &archiver, &["verify"])?.as_secs_f64() / fetched.as_secs_f64());
    }
    let mib = |kib: u64| format!("{} MiB", kib / 1024);
    let row = |name: &str, figures: &[f64], what: usize| {
        Row::new(name).quartiles(figures, 2).cell(mib(memory[what]))
    };
    table::print(
        &["one room; times COPY's speed", "ratio", "most memory"],
        &[row("export", &exports, 0), row("import", &imports, 1)],
    );
    table::print(
        &["the same; seconds for a million events", "s", "most memory"],
        &[row("verify --offline", &offline, 2), row("seal", &seals, 3)],
    );
    table::print(
        &["the same; times the bare walk of the replay server", "ratio", "most memory"],
        &[row("verify", &walks, 4)],
    );
    Ok(())
}
