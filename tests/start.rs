//! What is asked before anything is archived, and that only looking makes nothing.

mod pooler;

use std::fs;

use self::pooler::Pooler;
use crate::support::{
    daemon::{Backscroll, Embedded, Outcome},
    homeserver::Homeserver,
    postgres::{TestDatabase, rows},
    stage::Stage,
};

/// `run` and `check` say the same, with the same exit code, and nothing was made.
async fn both_refuse(backscroll: &Backscroll, code: i32, words: &str) {
    let checked = backscroll.run(&["check"]).await;
    let ran = backscroll.run(&["run", "--once"]).await;
    for outcome in [&checked, &ran] {
        assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
        // `check` folds its lines.
        let said = said(outcome);
        assert!(said.contains(words), "{words:?} in {said}");
    }
}

fn said(outcome: &Outcome) -> String {
    let all = format!("{} {}", outcome.stdout, outcome.stderr);
    all.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn on(url: &str) -> (Homeserver, Backscroll) {
    let server = Homeserver::start().await;
    let backscroll = Backscroll::new(server.url(), &server.access_token(), Some(url));
    (server, backscroll)
}

async fn has_schema(database: &TestDatabase) -> String {
    database
        .value("select exists(select from pg_namespace where nspname in ('archive', 'room_reader'))::text")
        .await
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let database = TestDatabase::new_empty().await;
    let name = database.value("select current_database()").await;
    database
        .run(&format!(
            "create database {name}_l encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'"
        ))
        .await;
    let (_server, backscroll) = on(&format!("{}&dbname={name}_l", database.url())).await;
    both_refuse(&backscroll, 78, "its encoding is LATIN1, which cannot hold every message").await;
    database.run(&format!("drop database {name}_l")).await;
}

#[tokio::test]
async fn names_that_are_taken_are_found_before_anything_is_made() {
    for (make, taken) in [
        ("create table public.events (a int)", "table public.events"),
        ("create view public.backfill as select 1", "view public.backfill"),
        ("create type public.members as enum ('a')", "type public.members"),
        ("create schema room_reader", "schema room_reader"),
    ] {
        let database = TestDatabase::new_empty().await;
        database.run(make).await;
        let (_server, backscroll) = on(database.url()).await;
        both_refuse(&backscroll, 78, &format!("names that Backscroll needs are taken: {taken}")).await;
        let schema = "select exists(select from pg_namespace where nspname = 'archive')::text";
        assert_eq!(database.value(schema).await, "false", "{make}");
    }
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused() {
    let stage = Stage::new().await;
    let pooler = Pooler::before(stage.database.url());
    let url = pooler.url(stage.database.url());
    let stage = stage.set("database.url", &url);
    both_refuse(&stage.backscroll, 78, "the server is a connection pooler").await;
}

#[tokio::test]
async fn a_server_with_few_connections_is_refused_or_got_along_with() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    server.append_many(&room, 45);
    let backscroll = Backscroll::new(server.url(), &server.access_token(), None)
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10");
    let allow = async |connections: u32| {
        let embedded = Embedded::open(&backscroll).await;
        rows(&embedded.url(), &format!("alter system set max_connections = {connections}")).await;
        embedded.close().await;
    };
    allow(4).await;
    both_refuse(&backscroll, 78, "the server may have 4 connections at once: Backscroll needs 5").await;
    allow(5).await;
    let outcome = backscroll.once().await;
    assert!(outcome.stderr.contains("the database allows few connections"), "{}", outcome.stderr);
    // The server is stopped at the end, which is no loss of a session to warn of.
    assert!(!outcome.stderr.contains("lease"), "{}", outcome.stderr);
    allow(20).await;
    let embedded = Embedded::open(&backscroll).await;
    let complete = rows(&embedded.url(), "select history_state from rooms").await;
    assert_eq!(complete, [["complete"]]);
    embedded.close().await;
}

#[tokio::test]
async fn what_only_looks_makes_no_archive() {
    let backscroll = Backscroll::new("http://127.0.0.1:1", "token", None);
    let home = backscroll.path().join("home");
    // As if another user's default place held one.
    let other = home.join(".local/share/backscroll");
    fs::create_dir_all(other.join("postgres/base")).unwrap();
    let backscroll = backscroll.set("HOME", home.to_str().unwrap());
    let data_dir = backscroll.path().join("data");
    for arguments in [
        &["psql", "--", "-c", "select 1"][..],
        &["rooms", "list"],
        &["rooms", "pause", "!a:hs"],
        &["grant-reader", "somebody"],
        &["grant-writer", "somebody"],
        &["erase", "--user", "@u:hs", "--yes"],
        &["erase", "--room", "!a:hs", "--dry-run"],
        &["resequence", "!a:hs"],
        &["migrate"],
    ] {
        let outcome = backscroll.run(arguments).await;
        assert_eq!(outcome.status.code(), Some(78), "{arguments:?}: {outcome:?}");
        let said = said(&outcome);
        assert!(said.contains(&format!("there is no archive in {}", data_dir.display())), "{said}");
        assert!(said.contains("environment variable BACKSCROLL_DATA_DIR"), "{said}");
        assert!(said.contains(&format!("there is one in {}", other.display())), "{said}");
        assert!(!data_dir.exists(), "{arguments:?}");
    }
    let status = backscroll.run(&["status"]).await;
    assert!(status.status.success(), "{status:?}");
    assert!(said(&status).contains(&format!("there is no archive in {}", data_dir.display())), "{status:?}");
    let json = backscroll.run(&["status", "--json"]).await;
    assert!(json.status.success() && json.stdout.starts_with('{'), "{json:?}");
    assert!(!data_dir.exists());
}

/// Nobody could tell it from an archive that was lost.
#[test]
fn no_archive_is_made_where_the_homeserver_or_the_account_is_not_set() {
    let backscroll = Backscroll::new("http://127.0.0.1:1", "token", None);
    let settings = ["BACKSCROLL_HOMESERVER__URL", "BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE"];
    for (setting, key) in settings.into_iter().zip(["homeserver.url", "homeserver.access_token_file"]) {
        for arguments in [&["run"][..], &["run", "--once"], &["backfill", "!a:hs", "--from", "t"]] {
            let output = backscroll.command(arguments).env_remove(setting).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
            assert!(said.contains(&format!("`{key}` is not set")), "{arguments:?}: {said}");
            assert!(!backscroll.path().join("data").exists(), "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn a_database_without_an_archive_is_said_to_be_one() {
    let database = TestDatabase::new_empty().await;
    let (_server, backscroll) = on(database.url()).await;
    for arguments in [
        &["rooms", "list"][..],
        &["grant-reader", "somebody"],
        &["grant-writer", "somebody"],
        &["erase", "--user", "@u:hs", "--yes"],
        &["resequence", "!a:hs"],
    ] {
        let outcome = backscroll.run(arguments).await;
        assert_eq!(outcome.status.code(), Some(78), "{arguments:?}: {outcome:?}");
        assert!(said(&outcome).contains("there is no archive in the database postgres://"), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
    }
    let status = backscroll.run(&["status"]).await;
    assert!(
        status.stdout.starts_with("Nothing is archived yet: there is no archive in the database"),
        "{status:?}"
    );
    assert_eq!(has_schema(&database).await, "false");
    let migrated = backscroll.run(&["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    assert_eq!(has_schema(&database).await, "true");
}
