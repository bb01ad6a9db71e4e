//! One writer at a time, the rightful one: the lease, its locks, and what they do when the database fails.

mod locks;
mod migration;
mod primary;
mod rounds;

use nix::sys::signal::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    cluster::Cluster,
    daemon::{Backscroll, Daemon},
    postgres::TestDatabase,
    stage::Stage,
};

const HOLDER: &str = "select coalesce(max(pid), 0) from pg_locks
                      where relation = 'archive.writer_lock'::regclass
                        and mode = 'ShareUpdateExclusiveLock' and granted
                        and database = (select oid from pg_database where datname = current_database())";

/// The server process that holds the lease; "0": none.
async fn holder(database: &TestDatabase) -> String {
    database.value(HOLDER).await
}

async fn end_session(database: &TestDatabase, pid: &str) {
    database.run(&format!("select pg_terminate_backend({pid})")).await;
}

/// Another machine's or user's Backscroll beside that of the stage, on the same database.
fn rival(stage: &Stage) -> Backscroll {
    Backscroll::new(stage.server.url(), &stage.server.access_token(), Some(stage.database.url()))
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10")
}

/// A stage on a PostgreSQL of its own, where every role may log in.
async fn on_its_own_server() -> (Cluster, Stage) {
    let cluster = Cluster::new();
    let database = TestDatabase::at(&cluster.url()).await;
    let stage = Stage::new().await.set("database.url", &cluster.url());
    (cluster, Stage { database, ..stage })
}

async fn is_refused(rival: &Backscroll) {
    let refused = rival.run(&["run"]).await;
    assert_eq!(refused.status.code(), Some(75), "{}", refused.stderr);
}

async fn has_lost(old: &mut Daemon) {
    let status = old.wait().await;
    assert_eq!(status.code(), Some(75), "{}", old.stderr());
    assert!(old.stderr().contains("another Backscroll has taken the lease"), "{}", old.stderr());
}

#[tokio::test]
async fn the_lease_is_taken_back_as_soon_as_its_session_ends() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    for round in 0..3 {
        let before = holder(&stage.database).await;
        assert_ne!(before, "0");
        end_session(&stage.database, &before).await;
        let is_back = async || !["0", &before].contains(&holder(&stage.database).await.as_str());
        daemon.until("the lease is held again", is_back).await;
        stage.say(&room, &format!("round {round}"), 3);
        stage.agrees_in_order(&mut daemon, &room).await;
        is_refused(&rival(&stage)).await;
    }
    daemon.stop().await;
}

/// The newcomer waits for the one on record to come back, and takes its place if it does not. Continued then, that one writes
/// nothing and goes.
#[tokio::test]
async fn a_stopped_writer_that_has_lost_its_session_loses_the_lease_and_writes_nothing() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut old = stage.followed(&room).await;
    old.signal(Signal::SIGSTOP);
    let epoch = stage.database.value("select epoch from archive.writer_lease").await;
    // While its session is there it is the writer, stopped or not.
    is_refused(&rival(&stage)).await;
    end_session(&stage.database, &holder(&stage.database).await).await;
    let rival = rival(&stage);
    let mut new = rival.start(&["run"]);
    new.until("it has taken the lease", async || holder(&stage.database).await != "0").await;
    stage.say(&room, "after", 3);
    stage.agrees_in_order(&mut new, &room).await;
    assert!(new.stderr().contains("has lost its session"), "{}", new.stderr());
    old.signal(Signal::SIGCONT);
    has_lost(&mut old).await;
    let written = format!("select epoch - {epoch} from archive.writer_lease");
    assert_eq!(stage.database.value(&written).await, "1");
    stage.say(&room, "alone", 3);
    stage.agrees_in_order(&mut new, &room).await;
    new.stop().await;
}

/// Back in time, it stays, and the newcomer goes.
#[tokio::test]
async fn a_stopped_writer_that_comes_back_in_time_stays() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let mut old = stage.followed(&room).await;
    old.signal(Signal::SIGSTOP);
    end_session(&stage.database, &holder(&stage.database).await).await;
    let rival = rival(&stage);
    let mut newcomer = rival.start(&["run"]);
    newcomer.until("it waits", async || looks_at_the_lease(&stage).await).await;
    old.signal(Signal::SIGCONT);
    let status = newcomer.wait().await;
    assert_eq!(status.code(), Some(75), "{}", newcomer.stderr());
    stage.say(&room, "after", 3);
    stage.agrees_in_order(&mut old, &room).await;
    old.stop().await;
}

/// Somebody looks at the lease.
async fn looks_at_the_lease(stage: &Stage) -> bool {
    let looks = "select count(*) > 0 from pg_stat_activity
                 where datname = current_database()
                   and query like '%from archive.writer_lease l, pg_database d%'
                   and pid <> pg_backend_pid() and now() - query_start < interval '1 s'";
    stage.database.value(looks).await == "t"
}

/// A lease that nobody holds is free at once where its holder has said so, or is known to be dead.
#[tokio::test]
async fn nobody_waits_for_a_writer_that_is_gone() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let patience = "select coalesce(released_at is not null, false) from archive.writer_lease";
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut daemon = stage.followed(&room).await;
        daemon.until("it is the writer", async || holder(&stage.database).await != "0").await;
        if end == Signal::SIGTERM {
            daemon.stop().await;
        } else {
            daemon.kill().await;
        }
        let released = stage.database.value(patience).await;
        assert_eq!(released, if end == Signal::SIGTERM { "t" } else { "f" });
        let next = stage.once().await;
        assert!(!next.stderr.contains("waiting whether it comes back"), "{}", next.stderr);
    }
    // Of another machine's process nobody knows.
    stage
        .database
        .run(
            "update archive.writer_lease set released_at = null, process = '{\"pid\": 1, \"host\": \"far\"}'",
        )
        .await;
    let next = stage.once().await;
    assert!(next.stderr.contains("process 1 on far"), "{}", next.stderr);
}

/// An earlier version has another lock. What a role without rights does with that lock means nothing.
#[tokio::test]
async fn a_daemon_of_an_earlier_version_is_respected_and_a_reader_is_not() {
    let (cluster, stage) = on_its_own_server().await;
    stage.once().await;
    stage.database.run("create role reader login").await;
    let lock = "select pg_advisory_lock(x'6261636b7363726f'::bit(64)::bigint)";
    for (role, code) in [("backscroll", Some(75)), ("reader", Some(0))] {
        let mut earlier = PgConnection::connect(&cluster.url_of(role)).await.unwrap();
        sqlx::raw_sql(lock).execute(&mut earlier).await.unwrap();
        let run = stage.backscroll.run(&["run", "--once"]).await;
        assert_eq!(run.status.code(), code, "{role}: {}", run.stderr);
        earlier.close().await.unwrap();
    }
}
