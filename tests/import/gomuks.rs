//! A database of gomuks, made from a real Synapse's events.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::{archive, assert_imported, conversation, directory, imported, marks, served};
use crate::support::{
    agreement::{assert_agrees, assert_settled},
    archive::{dump, timeline},
    derived::assert_derived,
    synapse::{Served, Synapse},
};

pub(super) const KIND: &str = "gomuks";

/// The columns of the two tables. `strict`: as gomuks makes them; otherwise a column takes any value.
const TABLES: &str = "
    create table event (
        rowid integer primary key, room_id text not null, event_id text not null unique, sender text not null,
        type text not null, state_key text, timestamp integer not null, content text not null, decrypted text,
        decrypted_type text, unsigned text not null, local_content text, transaction_id text unique, redacted_by text,
        relates_to text, relation_type text, megolm_session_id text, decryption_error text, send_error text,
        reactions text, last_edit_rowid integer, unread_type integer not null default 0
    ) strict;
    create table timeline (
        rowid integer primary key, room_id text not null, event_rowid integer not null unique
    ) strict;";

/// Runs statements in the database in this folder, which is made if need be.
pub(super) async fn run(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("gomuks.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}

fn literal(value: Option<&str>) -> String {
    value.map_or_else(|| "null".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
}

/// The statements that put these events into the table `event`, numbered from `first`.
pub(super) fn rows(room: &str, events: &[Value], first: usize) -> String {
    let row = |(index, event): (usize, &Value)| {
        let text = |name: &str| literal(event[name].as_str());
        let unsigned = event.get("unsigned").cloned().unwrap_or_else(|| json!({}));
        let redacted_by = literal(unsigned["redacted_because"]["event_id"].as_str());
        format!(
            "insert into event (rowid, room_id, event_id, sender, type, state_key, timestamp, content, unsigned,
                                redacted_by)
             values ({}, '{room}', {}, {}, {}, {}, {}, {}, {}, {redacted_by});",
            first + index,
            text("event_id"),
            text("sender"),
            text("type"),
            text("state_key"),
            event["origin_server_ts"],
            literal(Some(&event["content"].to_string())),
            literal(Some(&unsigned.to_string())),
        )
    };
    events.iter().enumerate().map(row).collect()
}

/// A database with these tables and no rows.
pub(super) async fn empty(folder: &Path) -> PathBuf {
    run(folder, TABLES).await
}

/// What gomuks has of these events, oldest first: the newer half came live, the older half was fetched
/// afterwards.
async fn database(folder: &Path, room: &str, served: &[Served]) -> PathBuf {
    let events: Vec<Value> =
        served.iter().map(|event| serde_json::from_str(event.raw.get()).unwrap()).collect();
    let live = events.len() / 2;
    let place = |index: usize| {
        let place = i64::try_from(index).unwrap() - i64::try_from(live).unwrap();
        if place < 0 { place - 1 } else { place + 1 }
    };
    let placed = |place: i64, row: usize| format!("insert into timeline values ({place}, '{room}', {row});");
    let timeline: String = (0..events.len()).map(|index| placed(place(index), index + 1)).collect();
    // A message that could not be sent.
    let echo = json!({
        "event_id": "~hicli-1", "sender": "@a:hs", "type": "m.room.message", "origin_server_ts": 1, "content": {},
    });
    let unsent = rows(room, &[echo], 9_000) + &placed(9_000, 9_000);
    let sql = [TABLES, &rows(room, &events, 1), &timeline, &unsent].concat();
    run(folder, &sql).await
}

#[tokio::test]
async fn a_timeline_of_gomuks_is_what_the_homeserver_shows() {
    let synapse = Synapse::start().await;
    for version in ["10", "11"] {
        let (alice, room) = conversation(&synapse, version).await;
        let served = served(&synapse, &alice, &room).await;
        let folder = directory();
        let file = database(folder.path(), &room, &served).await;
        let (database, backscroll) = archive(&synapse, &alice).await;
        imported(&backscroll, KIND, &file).await;
        assert_imported(&database, &room, version, &served).await;
        // Its directory is as good.
        let said = imported(&backscroll, KIND, folder.path()).await;
        assert!(said.contains("0 stored"), "{said}");
        backscroll.once().await;
        assert_eq!(marks(&database).await, "0");
        assert_agrees(database.url(), &synapse, &alice, &room).await;
        assert_settled(database.url()).await;
        let (fresh, backscroll) = archive(&synapse, &alice).await;
        backscroll.once().await;
        assert_eq!(dump(database.url()).await, dump(fresh.url()).await);
    }
}

/// gomuks keeps the content of a redacted message. The archive does not.
#[tokio::test]
async fn what_was_redacted_is_pruned_and_what_has_no_place_gets_none() {
    let (_server, database, backscroll) = super::offline().await;
    let folder = directory();
    empty(folder.path()).await;
    let create = json!({
        "event_id": "$create", "sender": "@a:hs", "type": "m.room.create", "state_key": "", "origin_server_ts": 1,
        "content": { "room_version": "10" },
    });
    let secret = json!({
        "event_id": "$secret", "sender": "@a:hs", "type": "m.room.message", "origin_server_ts": 2,
        "content": { "msgtype": "m.text", "body": "secret" }, "unsigned": { "redacted_because": { "event_id": "$r" } },
    });
    let sql = rows("!r:hs", &[create, secret], 1) + "insert into timeline values (5, '!r:hs', 2);";
    let file = run(folder.path(), &sql).await;
    imported(&backscroll, KIND, &file).await;
    let stored = "select event_id, position is null, redacted_by, content from archive.events order by 1";
    let expected = [["$create", "t", "∅", r#"{"room_version": "10"}"#], ["$secret", "f", "$r", "{}"]];
    assert_eq!(database.rows(stored).await, expected);
    // A later timeline shows the place, and is a file's word as well.
    run(folder.path(), "insert into timeline values (4, '!r:hs', 1)").await;
    let said = imported(&backscroll, KIND, &file).await;
    assert!(said.contains("0 stored, 2 known already"), "{said}");
    assert_eq!(timeline(&database, "!r:hs").await, ["$create", "$secret"]);
    assert_eq!(marks(&database).await, "2");
    assert_derived(database.url()).await;
}
