//! The schema explains itself, and migrates.

mod shards;

use std::collections::BTreeSet;

use backscroll::{
    Exit,
    archive::{Archive, Cause, GapState, HistoryState, ImportSource, WalkKind, WalkState},
    matrix::Membership,
};

use crate::support::postgres::{TestDatabase, on_citus};

#[tokio::test]
async fn everything_has_a_comment() {
    // Citus puts views of its own into the schema public.
    if on_citus() {
        return;
    }
    let database = TestDatabase::new().await;
    let bare = database
        .column(
            "select format('%s %s.%s', c.relkind, n.nspname, c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('archive', 'public', 'room_reader') and c.relkind in ('r', 'v', 'm', 'p')
               and c.relname <> '_sqlx_migrations' and obj_description(c.oid, 'pg_class') is null
             union all
             select format('column %s.%s.%s', n.nspname, c.relname, a.attname)
             from pg_attribute a
             join pg_class c on c.oid = a.attrelid
             join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('archive', 'public', 'room_reader') and c.relkind in ('r', 'v', 'm', 'p')
               and a.attnum > 0 and not a.attisdropped and c.relname <> '_sqlx_migrations'
               and col_description(c.oid, a.attnum) is null
             union all
             select format('function %s.%s', n.nspname, p.proname)
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where n.nspname in ('archive', 'public', 'room_reader')
               and obj_description(p.oid, 'pg_proc') is null
             union all
             select format('index %s', c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'archive' and c.relkind = 'i' and obj_description(c.oid, 'pg_class') is null
               and not exists (select from pg_constraint k where k.conindid = c.oid)",
        )
        .await;
    assert!(bare.is_empty(), "{bare:#?}");
}

/// With the collation C, `ilike` and `lower` know the letters of English alone. A column gets it from an id in its expression.
#[tokio::test]
async fn what_people_wrote_has_the_collation_of_the_database() {
    // Citus puts views of its own into the schema public.
    if on_citus() {
        return;
    }
    let database = TestDatabase::new().await;
    let columns = database
        .column(
            "select format('%s.%s', c.relname, a.attname)
               from pg_attribute a
               join pg_class c on c.oid = a.attrelid
               join pg_collation l on l.oid = a.attcollation
               where c.relnamespace in ('public'::regnamespace, 'room_reader'::regnamespace) and c.relkind in ('v', 'c')
                 and l.collname = 'C'
                 -- Ids, and words of Matrix and of Backscroll.
                 and a.attname !~ '(_|^)id$|^creators?$|^(prede|suc)cessor$|_event$|_by(_sender)?$|^participants$'
                 and a.attname not in ('type', 'state_key', 'sender', 'relates_to', 'rel_type', 'thread_root', 'in_reply_to',
                                       'redacts', 'replaces_state', 'decrypted_type', 'decryption', 'trust', 'voters',
                                       'source', 'root_sender')
                 and (c.relname, a.attname) <> ('undecryptable', 'reason')",
        )
        .await;
    assert!(columns.is_empty(), "{columns:#?}");
}

/// Each event pays for every index of its table.
#[tokio::test]
async fn every_index_of_the_events_says_what_it_costs() {
    // Citus makes the indexes anew, without their comments.
    if on_citus() {
        return;
    }
    let database = TestDatabase::new().await;
    let silent = database
        .column(
            "select i.indexrelid::regclass from pg_index i
             where i.indrelid = 'archive.events'::regclass
               and obj_description(i.indexrelid, 'pg_class') ~ '\\m(bytes an (encrypted )?|a byte an )event\\M' is not true",
        )
        .await;
    assert!(silent.is_empty(), "{silent:#?}");
}

#[tokio::test]
async fn migrating_twice_is_migrating_once() {
    let database = TestDatabase::new().await;
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    archive.migrate().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = TestDatabase::new().await;
    database
        .run(
            "insert into archive._sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'from the future', true, '', 0)",
        )
        .await;
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    let error = archive.migrate().await.unwrap_err();
    assert!(error.to_string().contains("version 9999"), "{error}");
    assert_eq!(error.exit_code(), Exit::Configuration);
}

/// The words that the `check` of a text column admits.
async fn admitted(database: &TestDatabase, table: &str, column: &str) -> BTreeSet<String> {
    let words = database
        .column(&format!(
            "select word[1]
             from pg_constraint k
             join pg_attribute a on a.attrelid = k.conrelid and k.conkey = array[a.attnum]
             cross join regexp_matches(pg_get_constraintdef(k.oid), '''([^'']*)''', 'g') as word
             where k.contype = 'c' and k.conrelid = 'archive.{table}'::regclass and a.attname = '{column}'"
        ))
        .await;
    words.into_iter().collect()
}

fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> BTreeSet<String> {
    all.iter().map(|value| word(*value).to_owned()).collect()
}

#[tokio::test]
async fn the_columns_admit_the_words_of_their_enums_and_no_other() {
    let database = TestDatabase::new().await;
    let columns = [
        ("rooms", "membership", words(Membership::ALL, Membership::as_str)),
        ("rooms", "history_state", words(HistoryState::ALL, HistoryState::as_str)),
        ("gaps", "state", words(GapState::ALL, GapState::as_str)),
        ("walks", "kind", words(WalkKind::ALL, WalkKind::as_str)),
        ("walks", "state", words(WalkState::ALL, WalkState::as_str)),
        ("state_changes", "cause", words(Cause::ALL, Cause::as_str)),
        ("imported_events", "source", words(ImportSource::ALL, ImportSource::as_str)),
    ];
    for (table, column, words) in columns {
        assert_eq!(admitted(&database, table, column).await, words, "{table}.{column}");
    }
}

#[tokio::test]
async fn a_word_that_its_enum_lacks_is_an_error() {
    let database = TestDatabase::new().await;
    let archive = Archive::connect(database.url(), 2).await.unwrap();
    database.run("insert into archive.rooms (room_id, membership) values ('!r:hs', 'join')").await;
    let room = archive.room_status().await.unwrap().remove(0);
    assert_eq!((room.membership, room.history_state), (Membership::Join, HistoryState::None));
    for (column, word) in [("membership", "join"), ("history_state", "none")] {
        database
            .run(&format!(
                "alter table archive.rooms drop constraint rooms_{column}_check;
                 update archive.rooms set {column} = 'elsewhere'"
            ))
            .await;
        let error = archive.room_status().await.unwrap_err();
        assert!(format!("{error:?}").contains("elsewhere"), "{error:?}");
        database.run(&format!("update archive.rooms set {column} = '{word}'")).await;
    }
}

/// Tables that belong to the whole archive: on a distributed database each server has a copy.
const OF_THE_WHOLE: &[&str] = &[
    "accounts",
    "devices",
    "encryption_settings",
    "erasures",
    "index_builds",
    "olm_sessions",
    "reader_rooms",
    "room_choices",
    "server_keys",
    "writer_lease",
    "_sqlx_migrations",
];

/// So that an archive can be distributed by room (deploy/citus.sql).
#[tokio::test]
async fn every_key_of_a_room_begins_with_the_room() {
    let database = TestDatabase::new().await;
    let tables =
        "select c.relname from pg_class c where c.relnamespace = 'archive'::regnamespace and c.relkind = 'r'";
    let of_rooms: Vec<String> = database
        .column(&format!("{tables} order by 1"))
        .await
        .into_iter()
        .filter(|table| !OF_THE_WHOLE.contains(&table.as_str()))
        .collect();
    assert!(of_rooms.len() > 15, "{of_rooms:?}");
    let keys = database
        .rows(
            "select c.relname, i.indexrelid::regclass::text, a.attname
             from pg_index i
             join pg_class c on c.oid = i.indrelid
             left join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
             where c.relnamespace = 'archive'::regnamespace and i.indisunique",
        )
        .await;
    for row in &keys {
        if of_rooms.contains(&row[0]) {
            assert_eq!(row[2], "room_id", "{row:?}");
        }
    }
    for table in &of_rooms {
        assert!(keys.iter().any(|row| row[0] == *table), "{table} has no key");
    }
    let foreign = "select conname from pg_constraint
                   where contype = 'f' and connamespace = 'archive'::regnamespace";
    assert!(database.column(foreign).await.is_empty());
    let triggers = "select tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
                    where c.relnamespace = 'archive'::regnamespace and not t.tgisinternal";
    assert!(database.column(triggers).await.is_empty());
    // Citus numbers rows in bigint alone.
    let numbers = "select format('%s.%s', attrelid::regclass, attname) from pg_attribute
                   where attidentity <> '' and atttypid <> 'bigint'::regtype";
    assert_eq!(database.column(numbers).await, [""; 0]);
    // deploy/citus.sql names every one of them, in its place.
    let citus = include_str!("../deploy/citus.sql");
    for table in of_rooms {
        assert!(citus.contains(&format!("create_distributed_table('archive.{table}', 'room_id'")), "{table}");
    }
    for table in OF_THE_WHOLE.iter().filter(|table| !["writer_lease", "_sqlx_migrations"].contains(table)) {
        assert!(citus.contains(&format!("create_reference_table('archive.{table}')")), "{table}");
    }
}
