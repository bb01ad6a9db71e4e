//! The private PostgreSQL, on the real thing. As root, [`all_of_it_as_a_plain_user`] runs every test
//! a second time as `nobody`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use backscroll::Exit;
use backscroll::postgres::{Error, Server, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use tempfile::TempDir;

const HOLD: &str = "BACKSCROLL_TEST_HOLD";
const PLAIN: &str = "BACKSCROLL_TEST_PLAIN";

/// A data directory that the user whom root drops to can enter.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bs").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn settings(&self) -> Settings {
        Settings { data_dir: self.path(), bin_dir: None }
    }

    async fn start(&self) -> Server {
        Server::start(&self.settings()).await.unwrap()
    }

    fn cluster(&self) -> PathBuf {
        self.path().join("postgres")
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok().map(Pid::from_raw)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("postgres.log")).unwrap_or_default()
    }
}

fn psql_command(server: &Server, sql: &str) -> Command {
    let mut command = Command::new(server.bin_dir().join("psql"));
    command.args(["-XAtqc", sql, &server.url()]).env_remove("PGHOST");
    command
}

fn psql(server: &Server, sql: &str) -> String {
    let output = psql_command(server, sql).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {complaint}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn is_alive(pid: Pid) -> bool {
    // A zombie has no directory: who inherits the orphans here may be slow to reap them.
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Another process that starts the server, says how, and keeps it until killed.
struct Holder {
    process: Child,
}

impl Holder {
    fn spawn(place: &Place) -> Self {
        let module = module_path!().split_once("::").unwrap().1;
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "--ignored", "--nocapture"])
            .arg(format!("{module}::hold"))
            .env(HOLD, place.path())
            .stdout(Stdio::piped());
        let process = command.spawn().unwrap();
        Self { process }
    }

    /// Whether it adopted the server; an error would have ended it.
    fn ready(&mut self) -> bool {
        let output = self.process.stdout.take().unwrap();
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        // libtest writes `test NAME ... ` in front.
        let line = lines.find_map(|line| line.split("holding ").nth(1).map(str::to_owned));
        line.expect("the holder has a server") == "adopted"
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
#[ignore = "the other process of the tests below"]
#[expect(clippy::print_stdout, reason = "how the two processes talk")]
async fn hold() {
    let Some(data_dir) = env::var_os(HOLD) else {
        return;
    };
    let settings = Settings { data_dir: data_dir.into(), bin_dir: None };
    let server = Server::start(&settings).await.unwrap();
    let how = if server.adopted() { "adopted" } else { "own" };
    println!("holding {how}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_first_start_makes_everything_and_stop_leaves_nothing() {
    let place = Place::new();
    let begun = Instant::now();
    let server = place.start().await;
    let first = begun.elapsed();
    assert!(!server.adopted());
    for (setting, value) in [
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("jit", "off"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("cluster_name", "backscroll"),
        ("timezone", "UTC"),
        ("log_min_error_statement", "panic"),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "2GB"),
    ] {
        assert_eq!(psql(&server, &format!("show {setting}")), value, "{setting}");
    }
    let who = psql(&server, "select current_user, current_database(), usesuper from pg_user");
    assert_eq!(who, "backscroll|backscroll|t");
    let collate = psql(&server, "select datcollate from pg_database where datname = 'backscroll'");
    assert!(["C.UTF-8", "C"].contains(&&*collate), "{collate}");
    let owner = fs::metadata(place.cluster()).unwrap();
    let socket_dir = fs::metadata(server.socket_dir()).unwrap();
    assert_ne!(owner.uid(), 0);
    assert_eq!(socket_dir.mode() & 0o7777, 0o700);
    assert_eq!(socket_dir.uid(), owner.uid());
    psql(&server, "create table t as select generate_series(1, 1000) n");

    let (pid, socket) = (place.postmaster().unwrap(), server.socket_dir().to_owned());
    server.stop().await.unwrap();
    assert!(!is_alive(pid));
    assert!(place.postmaster().is_none());
    assert!(!socket.exists(), "the socket and its directory are gone");
    assert!(place.log().contains("database system is shut down"));
    assert!(!place.path().join("postgres.init").exists());

    let begun = Instant::now();
    let server = place.start().await;
    let later = begun.elapsed();
    assert_eq!(psql(&server, "select count(*) from t"), "1000");
    server.stop().await.unwrap();
    eprintln!("first start {first:?}, later start {later:?}");
}

#[tokio::test]
async fn a_live_server_is_adopted_and_taken_over() {
    let place = Place::new();
    let owner = place.start().await;
    let guest = place.start().await;
    assert!(!owner.adopted() && guest.adopted());
    assert_eq!(owner.url(), guest.url());
    place.start().await.stop().await.unwrap();
    assert_eq!(psql(&owner, "select 1"), "1", "an adopted server is left alone");

    owner.stop().await.unwrap();
    guest.ensure_running().await.unwrap();
    assert!(!guest.adopted());
    assert_eq!(psql(&guest, "select 1"), "1");
    guest.stop().await.unwrap();
}

#[tokio::test]
async fn processes_that_start_at_once_share_one_server() {
    let place = Place::new();
    let mut holders: Vec<_> = (0..4).map(|_| Holder::spawn(&place)).collect();
    let adopted = holders.iter_mut().filter_map(|h| h.ready().then_some(())).count();
    assert_eq!(adopted, 3);
    let server = place.start().await;
    assert!(server.adopted());
    assert_eq!(psql(&server, "select 1"), "1");
}

#[tokio::test]
async fn the_server_ends_with_its_parent_and_the_next_start_waits_for_that() {
    let place = Place::new();
    for round in 0..5 {
        let mut holder = Holder::spawn(&place);
        assert!(!holder.ready(), "the last one is gone");
        let pid = place.postmaster().unwrap();
        holder.kill();
        let server = place.start().await;
        assert!(!server.adopted(), "round {round}");
        assert!(!is_alive(pid));
        psql(&server, "select 1");
        server.stop().await.unwrap();
    }
    let log = place.log();
    assert!(!log.contains("lock file"), "{log}");
    assert!(!log.contains("not properly shut down"), "{log}");
}

#[tokio::test]
async fn a_killed_initialisation_leaves_nothing_half_done() {
    let place = Place::new();
    for delay in [30, 200, 500, 900, 1500] {
        let holder = Holder::spawn(&place);
        // A fast machine may have finished before the last of the kills.
        eventually("it has begun", || {
            place.path().join("postgres.init").exists() || place.cluster().exists()
        });
        std::thread::sleep(Duration::from_millis(delay));
        holder.kill();
    }
    let server = place.start().await;
    assert_eq!(psql(&server, "show data_checksums"), "on");
    assert!(!place.path().join("postgres.init").exists());
    assert!(!place.path().join("postgres.stale").exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_recovers() {
    let place = Place::new();
    let server = place.start().await;
    psql(&server, "create table t as select generate_series(1, 1000) n");
    // A backend that is busy when the server dies outlives it for a moment.
    let mut busy = psql_command(&server, "select pg_sleep(2)").spawn().unwrap();
    eventually("it sleeps", || {
        psql(&server, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1"
    });
    kill(place.postmaster().unwrap(), Signal::SIGKILL).unwrap();
    server.ensure_running().await.unwrap();
    assert!(!server.adopted());
    assert_eq!(psql(&server, "select count(*) from t"), "1000");
    busy.wait().unwrap();

    let supervised = async {
        let begun = Instant::now();
        kill(place.postmaster().unwrap(), Signal::SIGKILL).unwrap();
        let asks = || psql_command(&server, "select 1").output().unwrap();
        while !asks().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = server.supervise() => unreachable!(),
        () = supervised => {}
    }
    server.ensure_running().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_log_never_quotes_a_statement() {
    let place = Place::new();
    let server = place.start().await;
    psql(&server, "create table t (a text primary key, b jsonb)");
    for sql in [
        "insert into t values ('canary'), ('canary')",
        "select 'canary'::int",
        "select '{\"canary\": canary}'::jsonb",
        "select canary",
        "do $$ begin raise exception 'canary'; end $$",
        "do $$ begin raise warning 'canary'; end $$",
    ] {
        psql_command(&server, sql).stderr(Stdio::null()).status().unwrap();
    }
    // A crash would report what the process was at.
    let sql = "select 'canary', pg_sleep(60)";
    let mut doomed = psql_command(&server, sql).stderr(Stdio::null()).spawn().unwrap();
    let find = "select pid from pg_stat_activity where wait_event = 'PgSleep'";
    eventually("it sleeps", || !psql(&server, find).is_empty());
    kill(Pid::from_raw(psql(&server, find).parse().unwrap()), Signal::SIGKILL).unwrap();
    doomed.wait().unwrap();
    server.ensure_running().await.unwrap();
    // The postmaster may hear of the death only now.
    eventually("it answers again", || psql_command(&server, "select 1").output().unwrap().status.success());
    server.stop().await.unwrap();
    let log = place.log();
    assert!(log.contains("terminated by signal 9"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn another_major_is_refused_with_the_way_out() {
    let place = Place::new();
    fs::create_dir_all(place.cluster()).unwrap();
    fs::write(place.cluster().join("PG_VERSION"), "99\n").unwrap();
    // Root's own directory would be refused as such.
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(place.cluster(), Some(65534), None).unwrap();
    }
    let error = Server::start(&place.settings()).await.unwrap_err();
    assert!(matches!(error, Error::WrongMajor { major: 99, .. }), "{error}");
    assert_eq!(error.exit_code(), Exit::Configuration);
    assert!(error.to_string().contains("install PostgreSQL 99, or dump"), "{error}");
}

#[tokio::test]
async fn no_binaries_is_said_at_once() {
    let place = Place::new();
    let settings = Settings { bin_dir: Some(place.dir.path().to_owned()), ..place.settings() };
    let begun = Instant::now();
    let error = Server::start(&settings).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert!(matches!(error, Error::NoBinaries { .. }), "{error}");
    assert_eq!(error.exit_code(), Exit::Configuration);
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket() {
    let place = Place::new();
    let settings =
        Settings { data_dir: place.path().join("long ".repeat(20)).join("x".repeat(60)), bin_dir: None };
    let server = Server::start(&settings).await.unwrap();
    let socket = server.socket_dir().join(format!(".s.PGSQL.{}", server.port()));
    assert!(socket.as_os_str().len() <= 107);
    assert_eq!(psql(&server, "select 1"), "1");
    let again = Server::start(&settings).await.unwrap();
    assert!(again.adopted());
    let socket_dir = server.socket_dir().to_owned();
    server.stop().await.unwrap();
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_path_with_spaces_and_quotes_will_do() {
    let place = Place::new();
    let settings = Settings { data_dir: place.path().join("it's a dir"), bin_dir: None };
    let server = Server::start(&settings).await.unwrap();
    assert_eq!(psql(&server, "select 1"), "1");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_number_that_now_belongs_to_us_does_not_stop_the_start() {
    let place = Place::new();
    // As after the restart of a container: a thread of this process, and a child never reaped.
    let thread = nix::unistd::gettid().as_raw().cast_unsigned();
    let mut zombie = Command::new("true").spawn().unwrap();
    for number in [thread, zombie.id()] {
        let server = place.start().await;
        let pid_file = place.cluster().join("postmaster.pid");
        let text = fs::read_to_string(&pid_file).unwrap();
        let pid = place.postmaster().unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        drop(server);
        eventually("it is gone", || !is_alive(pid));
        let text = text.replacen(&pid.to_string(), &number.to_string(), 1);
        fs::write(&pid_file, text).unwrap();
        let server = place.start().await;
        assert!(!server.adopted());
        server.stop().await.unwrap();
    }
    zombie.wait().unwrap();
}

/// As a full disk, a power cut or a restored copy leaves them.
#[tokio::test]
async fn what_a_crash_leaves_behind_does_not_stop_the_start() {
    let place = Place::new();
    place.start().await.stop().await.unwrap();
    let cluster = place.cluster();
    let pid_file = cluster.join("postmaster.pid");
    let owner = fs::metadata(&cluster).unwrap();
    let (uid, gid) = (Some(owner.uid()), Some(owner.gid()));
    let me = std::process::id();
    let foreign = format!("{me}\n{}\n1700000000\n5432\n/nonexistent\n\n  1 2\nready   \n", cluster.display());
    let mut sleeper = Command::new("sleep").arg("600").current_dir(cluster.join("..")).spawn().unwrap();
    let other = foreign.replacen(&me.to_string(), &sleeper.id().to_string(), 1);
    let garbage = [
        &b""[..],
        b"\n\n",
        b"no number",
        b"\xff\xfe\x00\x01",
        b"0\n",
        b"-0",
        foreign.as_bytes(),
        other.as_bytes(),
    ];
    for (number, text) in garbage.into_iter().enumerate() {
        fs::write(&pid_file, text).unwrap();
        // Postgres would refuse it if it could not read it, too.
        fs::set_permissions(
            &pid_file,
            fs::Permissions::from_mode(if number % 2 == 0 { 0o600 } else { 0o000 }),
        )
        .unwrap();
        fs::write(cluster.join("postmaster.opts"), b"\xff garbage").unwrap();
        for name in ["postmaster.pid", "postmaster.opts"] {
            std::os::unix::fs::chown(cluster.join(name), uid, gid).unwrap();
        }
        let server = place.start().await;
        assert!(!server.adopted(), "{number}");
        assert_eq!(psql(&server, "select 1"), "1");
        server.stop().await.unwrap();
    }
    // A link is removed, and what it leads to stays.
    let precious = place.dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &pid_file).unwrap();
    place.start().await.stop().await.unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[tokio::test]
async fn nothing_is_written_through_a_planted_link() {
    let place = Place::new();
    place.start().await.stop().await.unwrap();
    let precious = place.dir.path().join("precious");
    // Larger than the log may be: it would be emptied.
    fs::write(&precious, vec![b'x'; 9 * 1024 * 1024]).unwrap();
    for name in ["postgres.log", "postgres.lock", "run"] {
        let path = place.path().join(name);
        // A start that has failed leaves its socket's directory.
        let _ = if name == "run" { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let started = Server::start(&place.settings()).await;
        // For the socket there are other places.
        if name != "run" {
            let error = started.as_ref().unwrap_err();
            assert!(error.to_string().contains("symbolic link, which is not followed"), "{error}");
            assert_eq!(error.exit_code(), Exit::Configuration);
        }
        if let Ok(server) = started {
            server.stop().await.unwrap();
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::metadata(&precious).unwrap().len(), 9 * 1024 * 1024, "{name}");
    }
    // Where the old log goes.
    fs::write(place.path().join("postgres.log"), vec![b'x'; 9 * 1024 * 1024]).unwrap();
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, place.path().join("postgres.log.1")).unwrap();
    place.start().await.stop().await.unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(fs::symlink_metadata(place.path().join("postgres.log.1")).unwrap().is_file());
}

#[tokio::test]
async fn a_place_that_others_may_write_in_is_refused() {
    let place = Place::new();
    let parent = place.dir.path().to_owned();
    let refused = async || {
        let error = Server::start(&place.settings()).await.unwrap_err();
        assert!(matches!(error, Error::Unsafe { .. }), "{error}");
        assert_eq!(error.exit_code(), Exit::Configuration);
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        error.to_string()
    };
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused().await.contains(&*parent.to_string_lossy()));
    assert!(!place.path().exists(), "nothing is made there");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o711)).unwrap();
    place.start().await.stop().await.unwrap();
    // A sticky bit keeps nobody from making files.
    for mode in [0o777, 0o1777, 0o713] {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        refused().await;
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711)).unwrap();
    place.start().await.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_is_out_of_reach_of_the_terminal() {
    let place = Place::new();
    let server = place.start().await;
    let pid = place.postmaster().unwrap();
    assert_eq!(nix::unistd::getpgid(Some(pid)).unwrap(), pid);
    drop(server);
    eventually("a dropped server ends", || !is_alive(pid));
}

#[tokio::test]
async fn an_abandoned_start_leaves_no_process() {
    let place = Place::new();
    for delay in [50, 400, 900, 1200, 1300, 1400, 1500] {
        let settings = place.settings();
        let start = Server::start(&settings);
        let _ = tokio::time::timeout(Duration::from_millis(delay), start).await;
    }
    // A start may adopt a server that has not yet read its signal; `ensure_running` is for that. Its processes hold the
    // lock until they end, also before one has written its `postmaster.pid`.
    let lock = fs::File::open(place.path().join("postgres.lock")).unwrap();
    eventually("what was abandoned ends", || lock.try_lock().is_ok());
    drop(lock);
    let server = place.start().await;
    assert!(!server.adopted());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn root_is_warned_of_what_the_other_user_cannot_reach() {
    if !Uid::effective().is_root() {
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = Server::start(&place.settings()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.exit_code(), Exit::Configuration);
}

#[tokio::test]
async fn root_adopts_and_runs_the_server_of_a_plain_user() {
    if !Uid::effective().is_root() {
        return;
    }
    let place = Place::new();
    let server = place.start().await;
    server.stop().await.unwrap();
    let before = fs::metadata(place.cluster()).unwrap().uid();
    let nobody = ["-R", "nobody"].map(Into::<std::ffi::OsString>::into);
    let status = Command::new("chown").args(nobody).arg(place.cluster()).status();
    assert!(status.unwrap().success());
    let server = place.start().await;
    let after = fs::metadata(place.cluster().join("postmaster.pid")).unwrap().uid();
    assert_eq!(after, 65534);
    assert_ne!(before, 0);
    assert_eq!(psql(&server, "select 1"), "1");
    server.stop().await.unwrap();
}

#[test]
fn all_of_it_as_a_plain_user() {
    if !Uid::effective().is_root() || env::var_os(PLAIN).is_some() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bs").tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    let output = Command::new(&copy)
        .arg(format!("{module}::"))
        .arg("--test-threads=2")
        .env(PLAIN, "1")
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir("/")
        .uid(Uid::from_raw(65534).as_raw())
        .gid(Gid::from_raw(65534).as_raw())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}
