//! A primary that becomes a standby, or is made read-only, and the way to the new one.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::on_its_own_server;
use crate::support::{
    cluster::Cluster,
    postgres::{TestDatabase, rows},
    stage::Stage,
};

/// An address that can be led elsewhere. Who is connected stays connected.
struct Address {
    directory: TempDir,
    leads_to: Arc<Mutex<PathBuf>>,
    _passing: JoinSet<()>,
}

impl Address {
    fn of(cluster: &Cluster) -> Self {
        let directory = tempfile::Builder::new().prefix("bsa").tempdir_in("/var/tmp").unwrap();
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
        let leads_to = Arc::new(Mutex::new(cluster.socket()));
        let mut passing = JoinSet::new();
        let to = Arc::clone(&leads_to);
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let to = to.lock().unwrap().clone();
                connections.spawn(async move {
                    if let Ok(mut server) = UnixStream::connect(to).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { directory, leads_to, _passing: passing }
    }

    fn lead_to(&self, cluster: &Cluster) {
        *self.leads_to.lock().unwrap() = cluster.socket();
    }

    fn url(&self) -> String {
        format!(
            "postgres:///postgres?user=backscroll&dbname=postgres&host={}",
            self.directory.path().display()
        )
    }
}

async fn value(cluster: &Cluster, sql: &str) -> String {
    rows(&cluster.url(), sql).await[0][0].clone()
}

/// The address leads to the old primary for a while, which is a standby by then, and then to the new one. No session to the old
/// one is kept.
#[tokio::test]
async fn after_a_failover_no_session_to_the_old_primary_is_kept() {
    let old = Cluster::new();
    let database = TestDatabase::at(&old.url()).await;
    let new = Cluster::standby_of(&old);
    let address = Address::of(&old);
    let stage = Stage::new().await.set("database.url", &address.url());
    let stage = Stage { database, ..stage };
    let room = stage.room(25);
    let mut daemon = stage.followed(&room).await;
    for round in 0..2 {
        let (old, new) = if round == 0 { (&old, &new) } else { (&new, &old) };
        old.stop("fast");
        new.promote();
        old.follow(new);
        old.start();
        stage.say(&room, &format!("round {round}"), 3);
        let sessions = "select count(*) from pg_stat_activity where application_name like 'backscroll%'";
        daemon.until("it has come to the standby", async || value(old, sessions).await != "0").await;
        address.lead_to(new);
        let stage_there = TestDatabase::at(&new.url()).await;
        let count = format!("select count(*) from events where room_id = '{room}'");
        let expected = stage.server.visible_ids(&room).len().to_string();
        daemon.until("all is archived there", async || stage_there.value(&count).await == expected).await;
        daemon.until("the old one is left", async || value(old, sessions).await == "0").await;
    }
    daemon.stop().await;
}

/// A server that takes no writing for a while, such as before it is switched over: it is waited for.
#[tokio::test]
async fn a_server_that_is_read_only_for_a_while_is_waited_for() {
    let (cluster, stage) = on_its_own_server().await;
    let room = stage.room(15);
    let mut daemon = stage.followed(&room).await;
    let set = async |value: &str| {
        let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
        for statement in [
            format!("alter system set default_transaction_read_only = {value}"),
            "select pg_reload_conf()".into(),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
    };
    set("on").await;
    stage.say(&room, "meanwhile", 3);
    daemon.says("25006").await;
    set("off").await;
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}
