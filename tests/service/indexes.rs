//! Indexes that inserting has left half empty are rebuilt.

use sqlx::{Connection as _, PgConnection};

use crate::support::{
    daemon::Backscroll,
    postgres::{TestDatabase, on_citus},
    stage::Stage,
};

/// What says which indexes were built since the archive was made.
const BUILT: &str =
    "select string_agg(index_name, ' ' order by index_name) from archive.index_builds where event_count > 0";
const UNFINISHED: &str = "select count(*) from pg_index where not indisvalid";

/// A room with more events than an index must lack to be rebuilt, stored from the newest to the oldest.
async fn room_of_many(stage: &Stage) -> String {
    let room = stage.room(3);
    stage.once().await;
    let insert = format!(
        "insert into archive.events
             (room_id, event_id, type, sender, position, origin_server_ts, stable_sha256, content)
         select '{room}', '$' || md5(n::text), 'm.room.message', '@alice:localhost',
                (select min(position) from archive.events) - n * 65536, 1700000000000 - n * 1000, '\\x00', '{{}}'
         from generate_series(1, 120000::bigint) n order by n;
         update archive.rooms set event_count = event_count + 120000 where room_id = '{room}'"
    );
    stage.database.run(&insert).await;
    room
}

async fn bytes_of(database: &TestDatabase, index: &str) -> i64 {
    let size = format!("select pg_relation_size('archive.{index}')");
    database.value(&size).await.parse().unwrap()
}

/// Also after a kill in the middle, and only once.
#[tokio::test]
async fn half_empty_indexes_are_rebuilt() {
    let stage = Stage::new().await;
    let database = &stage.database;
    let room = room_of_many(&stage).await;
    let indexes = database
        .value(
            "select string_agg(c.relname, ' ' order by c.relname collate \"C\")
             from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
             where i.indrelid in ('archive.events'::regclass, 'archive.activity'::regclass) and m.amname = 'btree'",
        )
        .await;
    let before = [bytes_of(database, "events_position").await, bytes_of(database, "events_time").await];

    // While an older transaction may need the index as it was, the rebuilding waits.
    let mut reader = PgConnection::connect(database.url()).await.unwrap();
    let begin = "begin isolation level repeatable read; select count(*) from archive.rooms";
    sqlx::raw_sql(begin).execute(&mut reader).await.unwrap();
    let mut daemon = stage.follow();
    daemon.until("it rebuilds an index", async || database.value(UNFINISHED).await == "1").await;
    // It holds up no new event.
    stage.say(&room, "meanwhile", 1);
    let stored = "select count(*) from messages where body = 'meanwhile 0'";
    daemon.until("the message is stored", async || database.value(stored).await == "1").await;
    daemon.kill().await;
    reader.close().await.unwrap();

    let mut daemon = stage.follow();
    daemon.until("all are rebuilt", async || database.value(BUILT).await == indexes).await;
    daemon.stop().await;
    assert_eq!(database.value(UNFINISHED).await, "0");
    if !on_citus() {
        let after = [bytes_of(database, "events_position").await, bytes_of(database, "events_time").await];
        for (before, after) in before.into_iter().zip(after) {
            assert!(after * 3 < before * 2, "{before} bytes became {after}");
        }
    }

    // Somebody else builds one: that is noticed, and it is not built again.
    database.run("update archive.index_builds set event_count = 0 where index_name = 'events_time'").await;
    database.run("reindex index archive.events_time").await;
    let file = "select file_node = pg_relation_filenode('archive.events_time') and event_count > 0
                from archive.index_builds where index_name = 'events_time'";
    assert_eq!(database.value(file).await, "f");
    let mut daemon = stage.follow();
    daemon.until("it is noticed", async || database.value(file).await == "t").await;
    // It has looked for an index to rebuild as soon as it follows the room.
    stage.say(&room, "later", 1);
    let stored = "select count(*) from messages where body = 'later 0'";
    daemon.until("it follows the room", async || database.value(stored).await == "1").await;
    assert!(!daemon.stderr().contains("rebuilt an index"), "{}", daemon.stderr());
    daemon.stop().await;
}

/// A writer that does not own the tables says what the owner can do.
#[tokio::test]
async fn an_index_is_rebuilt_by_its_owner_alone() {
    let stage = Stage::new().await;
    room_of_many(&stage).await;
    let database = &stage.database;
    let role = format!("writer_{}", database.value("select current_database()").await);
    let granted = stage.backscroll.run(&["grant-writer", &role]).await;
    assert!(granted.status.success(), "{}", granted.stderr);
    let url = database.url_as(&role);
    let writer = Backscroll::new(stage.server.url(), &stage.server.access_token(), Some(&url));
    let mut daemon = writer.start(&["run"]);
    daemon.says("only its owner may rebuild it").await;
    daemon.stop().await;
    assert_eq!(database.value(BUILT).await, "∅");
    database.run(&format!("drop owned by \"{role}\"; drop role \"{role}\"")).await;
}
