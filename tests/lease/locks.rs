//! Locks need a right, and a long wait for one is reported.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::on_its_own_server;
use crate::service::{get, listening, until_ready};

/// Every advisory lock with a number that Backscroll has ever used, and every lock on what it uses: the first mean nothing, the
/// others are refused. Notifications are heard, and mean nothing either.
#[tokio::test]
async fn a_reader_can_hold_up_neither_the_daemon_nor_its_start() {
    let (cluster, stage) = on_its_own_server().await;
    let room = stage.room(15);
    stage.once().await;
    let granted = stage.backscroll.run(&["grant-reader", "reader"]).await;
    assert!(granted.status.success(), "{}", granted.stderr);
    let mut connection = PgConnection::connect(&cluster.url_of("reader")).await.unwrap();
    sqlx::raw_sql("set default_transaction_read_only = off").execute(&mut connection).await.unwrap();
    let advisory = format!(
        "select pg_advisory_lock(x'6261636b7363726f'::bit(64)::bigint);
         select pg_advisory_lock(x'6261636b'::int, key) from generate_series(0, 50) as key;
         select pg_advisory_lock(hashtextextended('{room}', 0))"
    );
    // Refused where the right was taken from everybody.
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(advisory)).execute(&mut connection).await {
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{error}");
    }
    let relations = stage
        .database
        .column(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c
             join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'archive' and c.relkind in ('r', 'v')",
        )
        .await;
    assert!(relations.len() > 15, "{relations:?}");
    for relation in relations {
        for mode in ["access share", "row exclusive", "share update exclusive", "access exclusive"] {
            let lock = format!("begin; lock table {relation} in {mode} mode");
            let refused = sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{relation} {mode}");
            sqlx::raw_sql("rollback").execute(&mut connection).await.unwrap();
        }
    }
    let mut daemon = stage.followed(&room).await;
    for _ in 0..50 {
        sqlx::raw_sql("notify backscroll_rooms").execute(&mut connection).await.unwrap();
    }
    stage.say(&room, "meanwhile", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    assert!(stage.backscroll.run(&["rooms", "pause", &room]).await.status.success());
    assert!(stage.backscroll.run(&["rooms", "resume", &room]).await.status.success());
    daemon.stop().await;
    connection.close().await.unwrap();
}

/// Only who may write can hold one up. It is reported who that is, in all three places.
#[tokio::test]
async fn a_long_wait_for_a_lock_is_reported_with_its_holder() {
    let (stage, address) = listening().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    until_ready(&mut daemon, address).await;
    let mut lock = PgConnection::connect(stage.database.url()).await.unwrap();
    let sql = "set application_name = 'the culprit'; begin; lock table archive.events in share mode";
    sqlx::raw_sql(sql).execute(&mut lock).await.unwrap();
    let row = sqlx::raw_sql("select pg_backend_pid()").fetch_one(&mut lock).await.unwrap();
    let pid: i32 = row.get_unchecked(0);
    stage.say(&room, "waits", 1);
    let holder = format!("server process {pid} (role ");
    daemon
        .until("it is not ready any more", async || {
            let (status, text) = get(address, "/readyz").unwrap();
            status == 503 && text.contains(&holder) && text.contains("the culprit")
        })
        .await;
    daemon.says("that another session holds").await;
    let status = stage.backscroll.run(&["status"]).await.stdout;
    assert!(status.contains("A transaction has waited") && status.contains("the culprit"), "{status}");
    let json = stage.backscroll.run(&["status", "--json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["waits"][0]["pid"], pid);
    assert!(json["waits"][0]["waited_s"].as_f64().unwrap() >= 5.0, "{json}");
    lock.close().await.unwrap();
    stage.agrees_in_order(&mut daemon, &room).await;
    until_ready(&mut daemon, address).await;
    let said = daemon.stderr();
    assert_eq!(said.matches("that another session holds").count(), 1, "{said}");
    daemon.stop().await;
}
