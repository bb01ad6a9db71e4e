//! A database that refuses a write for a moment, just while the homeserver is in trouble too.

use std::path::PathBuf;

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{
    homeserver::{ARCHIVER, Fault},
    stage::Stage,
};

/// `cannot_connect_now`: it passes.
const AWAY: &str = "57P03";
/// `data_exception`: no retry helps.
const WRONG: &str = "22000";
/// What becomes of a walk whose request has failed.
const FAILURE: &str = "new.last_error is not null or new.restarted";

/// The database refuses the first so many updates of a table for which `when` holds.
async fn refuse(stage: &Stage, table: &str, when: &str, code: &str, count: u32) {
    let name = format!("refusal_{code}").to_lowercase();
    let trigger = format!(
        // Citus allows no trigger by default, and reads it by itself.
        "set citus.enable_unsafe_triggers = on;
         create sequence archive.{name};
         create function archive.{name}() returns trigger language plpgsql as $$ begin
             if nextval('archive.{name}') <= {count} then
                 raise exception 'refused' using errcode = '{code}';
             end if;
             return new;
         end $$;
         do $$ begin
             create trigger {name} before update on archive.{table}
                 for each row when ({when}) execute function archive.{name}();
         end $$"
    );
    stage.database.run(&trigger).await;
}

/// The database has refused as often as it was to.
async fn has_refused(stage: &Stage, code: &str, count: u32) {
    let name = format!("refusal_{code}").to_lowercase();
    let enough = format!("select is_called and last_value >= {count} from archive.{name}");
    assert_eq!(stage.database.value(&enough).await, "t", "{code}");
}

#[tokio::test]
async fn a_walk_outlives_a_homeserver_and_a_database_that_fail_together() {
    let dead = Fault::error(400, "M_UNKNOWN", "'from' parameter is invalid");
    let unknown = Fault::error(404, "M_NOT_FOUND", "No such room");
    for (fault, times) in [(Fault::bad_gateway(), 2), (dead, 2), (unknown, 2)] {
        let stage = Stage::new().await;
        let room = stage.room(45);
        stage.server.inject(fault.on("/messages").after(2).times(times));
        refuse(&stage, "walks", FAILURE, AWAY, 2).await;
        stage.once().await;
        stage.is_archived(&room).await;
        has_refused(&stage, AWAY, 2).await;
    }
}

#[tokio::test]
async fn a_room_that_is_refused_is_given_up_once_the_database_takes_it() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    stage.once_for_pages(2).await;
    stage.server.ban(&room, ARCHIVER);
    refuse(&stage, "walks", FAILURE, AWAY, 2).await;
    stage.once().await;
    assert_eq!(stage.history(&room).await, "truncated");
    assert!(stage.reason(&room).await.contains("M_FORBIDDEN"), "{}", stage.reason(&room).await);
    has_refused(&stage, AWAY, 2).await;
}

/// The page is refused for good, and that its walk has stalled for a moment: it is then asked for again.
#[tokio::test]
async fn a_walk_that_cannot_even_be_stalled_is_taken_up_again() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    refuse(&stage, "walks", "new.pages > old.pages", WRONG, 1).await;
    refuse(&stage, "walks", FAILURE, AWAY, 1).await;
    stage.once().await;
    stage.is_archived(&room).await;
    has_refused(&stage, WRONG, 1).await;
    has_refused(&stage, AWAY, 1).await;
}

#[tokio::test]
async fn a_dead_sync_token_is_given_up_once_the_database_takes_it() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    stage.say(&room, "missed", 5);
    let since = stage.database.value("select since from archive.accounts").await;
    stage.server.inject(Fault::dead_token(&since).on("/sync"));
    refuse(&stage, "accounts", "new.since is null", AWAY, 2).await;
    stage.once().await;
    stage.is_archived(&room).await;
    has_refused(&stage, AWAY, 2).await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "1");
}

/// A way to a database that can forget its connections: who has come by it is cut off, and the database does not notice.
struct Firewall {
    directory: TempDir,
    forgotten: watch::Sender<()>,
    _passing: JoinSet<()>,
}

impl Firewall {
    fn before(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        let directory = tempfile::Builder::new().prefix("bsf").tempdir_in("/var/tmp").unwrap();
        let socket = |directory: PathBuf| directory.join(format!(".s.PGSQL.{}", options.get_port()));
        let listener = UnixListener::bind(socket(directory.path().to_owned())).unwrap();
        let server = options.get_socket().cloned().map(socket);
        let host = format!("{}:{}", options.get_host(), options.get_port());
        let (forgotten, forget) = watch::channel(());
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut forget = forget.clone();
                forget.mark_unchanged();
                match &server {
                    Some(socket) => {
                        connections.spawn(pass(client, UnixStream::connect(socket).await.unwrap(), forget));
                    }
                    None => {
                        connections.spawn(pass(client, TcpStream::connect(&host).await.unwrap(), forget));
                    }
                }
            }
        });
        Self { directory, forgotten, _passing: passing }
    }

    /// The way to `url`.
    fn url(&self, url: &str) -> String {
        format!("{url}&host={}", self.directory.path().display())
    }

    fn forget(&self) {
        self.forgotten.send(()).unwrap();
    }
}

async fn pass(
    mut client: UnixStream,
    mut server: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    mut forget: watch::Receiver<()>,
) {
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = forget.changed() => {
            drop(client);
            std::future::pending::<()>().await;
        }
    }
}

/// The database's side of the session that holds the writer's lease lives on, and nobody else is a writer.
#[tokio::test]
async fn a_lock_that_was_cut_off_is_taken_back() {
    let stage = Stage::new().await;
    let firewall = Firewall::before(stage.database.url());
    let url = firewall.url(stage.database.url());
    let stage = stage.set("database.url", &url);
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    firewall.forget();
    stage.say(&room, "live", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert!(daemon.stderr().contains("was cut off"), "{}", daemon.stderr());
    daemon.stop().await;
}
