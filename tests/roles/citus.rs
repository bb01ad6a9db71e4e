//! Readers of a distributed archive (deploy/citus.sql). A reader of all rooms reads it there, and sees little more
//! than on one server.

use super::{attempt, dropped, granted, role};
use crate::support::{
    archive::dump,
    postgres::{TestDatabase, distribute, on_citus, rows},
    stage::Stage,
};

/// Columns that no view of a reader's reads, of tables that some of them read.
const UNREAD: &[&str] = &[
    "events.raw",
    "events.stable_sha256",
    "megolm_sessions.session_key",
    "megolm_sessions.session_id",
    "quarantine.raw",
    "walks.cursor",
    "gaps.upper_token",
    "decrypted_events.raw",
];

/// Tables that no view of a reader's reads.
const SECRET: &[&str] = &[
    "originals",
    "devices",
    "olm_sessions",
    "accounts",
    "erasures",
    "reader_rooms",
    "server_keys",
    "evidence",
    "replaced_copies",
    "search_blocks",
];

#[tokio::test]
async fn a_reader_of_all_rooms_reads_what_the_owner_reads() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    let spoken = stage.say(&room, "some words", 3);
    stage.server.redact(&room, &spoken[0]);
    stage.once().await;
    let database = &stage.database;
    let reader = role(database, "reader").await;
    granted(&stage, &["grant-reader", &reader]).await;
    let mut queries: Vec<String> = database
        .column(
            "select format('select v::text from public.%I v order by 1', v)
             from unnest(archive.reader_views()) v",
        )
        .await;
    for call in [
        format!("state_at('{room}', 9223372036854775807)"),
        format!("state_at('{room}', now())"),
        format!("members_at('{room}', 9223372036854775807)"),
        format!("members_at('{room}', now())"),
        "search('words')".to_owned(),
        format!("search('words', room_id => '{room}')"),
    ] {
        queries.push(format!("select f::text from public.{call} f order by 1"));
    }
    let mut with_rows = 0;
    for query in queries {
        let as_reader = format!("set session authorization \"{reader}\"; {query}");
        let read = database.column(&as_reader).await;
        assert_eq!(read, database.column(&query).await, "{query}");
        with_rows += usize::from(!read.is_empty());
    }
    assert!(with_rows > 15, "{with_rows}");
    dropped(database, &reader).await;
}

/// Whom Citus lets read tables reads the columns that the views show, and no others.
#[tokio::test]
async fn a_reader_on_citus_reads_no_column_that_no_view_reads() {
    if !on_citus() {
        return;
    }
    let stage = Stage::new().await;
    stage.room(3);
    stage.once().await;
    let database = &stage.database;
    let reader = role(database, "reader").await;
    granted(&stage, &["grant-reader", &reader]).await;
    for column in UNREAD {
        let (table, column) = column.split_once('.').unwrap();
        let select = |column: &str| format!("select {column} from archive.{table} where room_id = '!x'");
        assert_eq!(attempt(database, &reader, &select("room_id")).await, None, "{table}");
        assert_eq!(
            attempt(database, &reader, &select(column)).await.as_deref(),
            Some("42501"),
            "{table}.{column}"
        );
    }
    for table in SECRET {
        let found = attempt(database, &reader, &format!("select count(*) from archive.{table}")).await;
        assert_eq!(found.as_deref(), Some("42501"), "{table}");
    }
    let writes = format!(
        "select privilege || ' ' || c.relname
         from pg_class c,
              unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
         where c.relnamespace = 'archive'::regnamespace and c.relkind in ('r', 'p')
           and (has_table_privilege('{reader}', c.oid, privilege)
                or privilege in ('insert', 'update', 'references')
                   and has_any_column_privilege('{reader}', c.oid, privilege))"
    );
    assert_eq!(database.column(&writes).await, [""; 0]);
    // Of the functions of schema archive, it may call none that does with its owner's rights more than read.
    let definers = format!(
        "select p.proname from pg_proc p where p.pronamespace = 'archive'::regnamespace and p.prosecdef
             and has_function_privilege('{reader}', p.oid, 'execute') order by 1"
    );
    assert_eq!(database.column(&definers).await, ["account_user_id", "was_redacted_with_another"]);

    // A right that is not a reader's is noticed, and taken away by granting again.
    let findings = async || -> String {
        let output = stage.backscroll.run(&["check"]).await;
        output.stdout
    };
    for right in [
        "select on archive.events",
        "select (session_key) on archive.megolm_sessions",
        "update (sender) on archive.events",
    ] {
        assert!(!findings().await.contains("roles"), "{right}: {}", findings().await);
        database.run(&format!("grant {right} to \"{reader}\"")).await;
        let found = findings().await;
        assert!(found.contains("roles") && found.contains(&reader), "{right}: {found}");
        granted(&stage, &["grant-reader", &reader]).await;
    }
    dropped(database, &reader).await;
}

/// Citus would have to let it read the tables of all rooms.
#[tokio::test]
async fn a_reader_of_some_rooms_is_refused_on_citus() {
    if !on_citus() {
        return;
    }
    let stage = Stage::new().await;
    let room = stage.room(3);
    stage.once().await;
    let database = &stage.database;
    let guest = role(database, "guest").await;
    let is_there = format!("select count(*) from pg_roles where rolname = '{guest}'");
    let outcome = stage.backscroll.run(&["grant-reader", &guest, "--room", &room]).await;
    assert_eq!(outcome.status.code(), Some(77), "{}", outcome.stderr);
    for says in ["Citus", "a reader of some rooms", "a reader of all rooms"] {
        assert!(outcome.stderr.contains(says), "{says}: {}", outcome.stderr);
    }
    assert_eq!(database.value(&is_there).await, "0");
    // Nor does it take from a reader of all rooms what that has.
    granted(&stage, &["grant-reader", &guest]).await;
    let outcome = stage.backscroll.run(&["grant-reader", &guest, "--room", &room]).await;
    assert_eq!(outcome.status.code(), Some(77), "{}", outcome.stderr);
    let count = format!("set session authorization \"{guest}\"; select count(*) > 0 from public.events");
    assert_eq!(database.value(&count).await, "t");
    dropped(database, &guest).await;
}

/// Rooms that were archived, and roles that were made, before Citus was there.
#[tokio::test]
async fn an_archive_that_has_rooms_and_readers_is_distributed() {
    if !on_citus() {
        return;
    }
    let stage = Stage::in_database(TestDatabase::new_empty().await).await;
    let rooms = [stage.room(3), stage.room(20)];
    stage.once().await;
    let database = &stage.database;
    let [reader, guest, writer] =
        [role(database, "reader").await, role(database, "guest").await, role(database, "writer").await];
    granted(&stage, &["grant-reader", &reader]).await;
    granted(&stage, &["grant-writer", &writer]).await;
    granted(&stage, &["grant-reader", &guest, "--room", "!some:room"]).await;
    let before = dump(database.url()).await;
    database.run("create extension citus").await;
    let error = distribute(database.url()).await.unwrap_err().to_string();
    assert!(error.contains(&guest) && error.contains("readers of some rooms"), "{error}");
    dropped(database, &guest).await;
    distribute(database.url()).await.unwrap();
    assert_eq!(dump(database.url()).await, before);
    // Behind the parts of the tables, no row is left that no query sees and no erasure removes.
    let left = "set citus.override_table_visibility = off;
                select c.relname from pg_dist_partition p join pg_class c on c.oid = p.logicalrelid
                where pg_relation_size(c.oid) > 0";
    assert_eq!(database.column(left).await, [""; 0]);
    stage.server.append_many(&rooms[0], 2);
    let as_writer = database.url_as(&writer);
    let stage = stage.set("database.url", &as_writer);
    stage.once().await;
    assert_eq!(stage.timeline(&rooms[0]).await, stage.server.visible_ids(&rooms[0]));
    let as_reader =
        format!("set session authorization \"{reader}\"; select room_id from public.rooms order by 1");
    let mut sorted = rooms.to_vec();
    sorted.sort();
    assert_eq!(rows(stage.database.url(), &as_reader).await.concat(), sorted);
    for role in [&reader, &writer] {
        dropped(&stage.database, role).await;
    }
}
