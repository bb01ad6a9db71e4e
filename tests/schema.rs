//! The schema explains itself, and migrates.

use std::collections::BTreeSet;

use backscroll::{
    Exit,
    archive::{Archive, Cause, GapState, HistoryState, WalkKind, WalkState},
    matrix::Membership,
};

use crate::support::postgres::TestDatabase;

#[tokio::test]
async fn everything_has_a_comment() {
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
