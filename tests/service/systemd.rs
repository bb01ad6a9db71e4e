//! The unit, and the test in systemd's part.

use std::{
    os::unix::net::UnixDatagram,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{homeserver::Fault, postgres::TestDatabase, stage::Stage};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/backscroll.service");
/// In tenths, as `systemd-analyze` takes it.
const MOST_EXPOSURE: &str = "11";

fn analyze(arguments: &[&str]) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).stdin(Stdio::null()).output();
    output.expect("systemd-analyze runs: apt-get install systemd")
}

#[test]
fn the_unit_exposes_little() {
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let output = analyze(&["security", "--offline=true", "--no-pager", &threshold, UNIT]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let overall = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    eprintln!("{}", overall.trim());
    let score: f64 = overall.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(score <= 1.1, "{overall}");
}

#[test]
fn the_unit_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backscroll.service");
    let text = std::fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/backscroll run"));
    // The program need not be installed here, nor its user exist.
    let text = text.replace("/usr/bin/backscroll", env!("CARGO_BIN_EXE_backscroll"));
    let text = text.replace("=backscroll\nGroup=backscroll", "=root\nGroup=root");
    std::fs::write(&path, text).unwrap();
    let output = analyze(&["verify", "--man=no", "--recursive-errors=no", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("backscroll.service:"), "{said}");
}

/// What a service sends, line by line.
struct Manager {
    socket: UnixDatagram,
    said: Vec<String>,
}

impl Manager {
    fn listen(stage: Stage) -> (Self, Stage) {
        let path = stage.backscroll.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let backscroll =
            stage.backscroll.set("NOTIFY_SOCKET", path.to_str().unwrap()).set("WATCHDOG_USEC", "1500000");
        (Self { socket, said: Vec::new() }, Stage { backscroll, ..stage })
    }

    fn hear(&mut self) {
        let mut datagram = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let text = std::str::from_utf8(&datagram[..length]).unwrap();
            self.said.extend(text.lines().map(str::to_owned));
        }
    }

    fn count(&self, line: &str) -> usize {
        self.said.iter().filter(|said| said.starts_with(line)).count()
    }
}

#[tokio::test]
async fn systemd_is_notified_of_the_state() {
    let (mut manager, stage) = Manager::listen(Stage::new().await);
    let room = stage.room(25);
    stage.server.inject(Fault::bad_gateway().on("/whoami"));
    let mut daemon = stage.follow();
    daemon
        .until("more time is asked for", async || {
            manager.hear();
            manager.count("EXTEND_TIMEOUT_USEC=") > 1
                && manager.count("STATUS=starting: waiting for the homeserver") == 1
        })
        .await;
    assert_eq!(manager.count("READY=1") + manager.count("WATCHDOG=1"), 0, "{:?}", manager.said);
    stage.server.heal();
    stage.agrees(&mut daemon, &room).await;
    let start = Instant::now();
    daemon
        .until("the watchdog is fed", async || {
            manager.hear();
            manager.count("WATCHDOG=1") > 3 && manager.count("STATUS=following 1 room") > 0
        })
        .await;
    assert_eq!(manager.count("READY=1"), 1, "{:?}", manager.said);
    assert!(start.elapsed() < Duration::from_secs(10), "three times within each deadline");
    assert!(
        manager.said.iter().any(|said| said.contains("events of history stored in this run")),
        "{:?}",
        manager.said
    );
    assert_eq!(manager.count("STOPPING=1"), 0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().await.code(), Some(0), "{}", daemon.stderr());
    manager.hear();
    assert_eq!(manager.count("STOPPING=1"), 1, "{:?}", manager.said);
    for said in &manager.said {
        assert!(!said.contains(&room) && !said.contains("message 1"), "{said}");
    }
}

/// The first index of a migration takes until the row is gone, as it may on a big archive.
const SLOW_INDEX: &str = "
    create schema slow;
    create table slow.held as select 1;
    create function slow.wait() returns event_trigger language plpgsql as $$ begin
        while exists (select from slow.held) loop perform pg_sleep(0.02); end loop;
    end $$;
    create event trigger slow on ddl_command_start
        when tag in ('CREATE INDEX') execute function slow.wait();";

/// `TimeoutStartSec` does not end a migration: time is asked for while one statement of it runs.
#[tokio::test]
async fn a_migration_asks_for_more_time() {
    let stage = Stage::in_database(TestDatabase::new_empty().await).await;
    stage.database.run(SLOW_INDEX).await;
    let (mut manager, stage) = Manager::listen(stage);
    let room = stage.room(25);
    let mut daemon = stage.follow();
    daemon
        .until("more time is asked for while an index is made", async || {
            manager.hear();
            let status = "STATUS=starting: bringing the database up to date";
            let since = manager.said.iter().position(|said| said == status);
            since.is_some_and(|since| {
                let asked = |said: &&String| said.starts_with("EXTEND_TIMEOUT_USEC=");
                manager.said[since..].iter().filter(asked).count() > 3
            })
        })
        .await;
    let waiting = "select count(*)::text from pg_stat_activity
                   where datname = current_database() and wait_event = 'PgSleep'";
    assert_eq!(stage.database.value(waiting).await, "1", "{:?}", manager.said);
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.said);
    stage.database.run("delete from slow.held").await;
    daemon
        .until("it is ready", async || {
            manager.hear();
            manager.count("READY=1") == 1
        })
        .await;
    stage.agrees(&mut daemon, &room).await;
}
