//! The schema explains itself, and migrates.

use backscroll::archive::Archive;

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
    assert_eq!(error.exit_code(), 78);
}
