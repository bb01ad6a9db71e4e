//! The stopwatch on signals.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{daemon::Daemon, stage::Stage};

/// A service manager's patience, and ours.
const LIMIT: Duration = Duration::from_secs(5);

async fn ends(daemon: &mut Daemon, signal: Signal) -> (Option<i32>, Duration) {
    let start = Instant::now();
    daemon.signal(signal);
    let status = daemon.wait().await;
    (status.code(), start.elapsed())
}

#[tokio::test]
async fn sigterm_under_load_ends_it_in_time() {
    let stage = Stage::new().await.set("backfill.page_size", "50");
    let rooms: Vec<_> = (0..4).map(|_| stage.room(3000)).collect();
    let stored = "select coalesce(sum(event_count), 0) from archive.rooms";
    let (mut longest, mut at_work) = (Duration::ZERO, 0);
    for round in 0..4_u64 {
        let before: u64 = stage.database.value(stored).await.parse().unwrap();
        let mut daemon = stage.follow();
        let more = async || stage.database.value(stored).await.parse::<u64>().unwrap() > before + 500;
        daemon.until("it is at work", more).await;
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        let (code, took) = ends(&mut daemon, Signal::SIGTERM).await;
        assert_eq!(code, Some(0), "{}", daemon.stderr());
        assert!(took < LIMIT, "{took:?}\n{}", daemon.stderr());
        longest = longest.max(took);
        let done: u64 = stage.database.value(stored).await.parse().unwrap();
        if done > 11_000 {
            break;
        }
        at_work += 1;
    }
    assert!(at_work >= 2, "it was still at work at the end of {at_work} rounds");
    eprintln!("SIGTERM under load: at most {longest:?}");
    stage.once().await;
    for room in &rooms {
        stage.is_archived(room).await;
    }
}

/// A transaction that cannot end, because somebody holds the table, is left; a second signal does not even wait for that.
#[tokio::test]
async fn a_transaction_that_hangs_is_left() {
    let stage = Stage::new().await;
    let room = stage.room(200);
    for signals in [1, 2] {
        let mut holder = PgConnection::connect(stage.database.url()).await.unwrap();
        let lock = "begin; lock table archive.events in access exclusive mode";
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut holder).await.unwrap();
        let mut daemon = stage.follow();
        let blocked = "select count(*) > 0 from pg_stat_activity
                       where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0";
        daemon.until("it waits", async || stage.database.value(blocked).await == "t").await;
        let start = Instant::now();
        daemon.signal(Signal::SIGTERM);
        if signals == 2 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(daemon.ended(), None, "it waits for the transaction under way");
            let (code, took) = ends(&mut daemon, Signal::SIGTERM).await;
            assert_eq!(code, Some(130), "{}", daemon.stderr());
            assert!(took < Duration::from_secs(1), "{took:?}");
        } else {
            let status = daemon.wait().await;
            assert_eq!(status.code(), Some(0), "{}", daemon.stderr());
            assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
            assert!(daemon.stderr().contains("the next run fetches it again"), "{}", daemon.stderr());
        }
        eprintln!("{signals} signal(s) while a transaction hangs: {:?}", start.elapsed());
        holder.close().await.unwrap();
    }
    stage.once().await;
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_wrong_configuration_says_where_and_exits_with_78() {
    let stage = Stage::new().await;
    let file = stage.backscroll.path().join("backscroll.toml");
    for (text, found) in [
        ("[homeserver]\nulr = \"https://x\"\n", "did you mean `homeserver.url`?"),
        ("[backfill]\nconcurrency = 0\n", "`backfill.concurrency`"),
        ("[http]\nlisten = \"everywhere\"\n", "`http.listen` must be an address"),
        ("[http\n", "not valid TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        let run = stage.backscroll.run(&["run"]).await;
        assert_eq!(run.status.code(), Some(78), "{text}: {}", run.stderr);
        let place = format!("{}, line", file.display());
        assert!(run.stderr.contains(found), "{text}: {}", run.stderr);
        assert!(
            run.stderr.contains("backscroll.toml") && run.stderr.contains("line"),
            "{place}: {}",
            run.stderr
        );
    }
}
