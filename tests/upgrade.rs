//! Years of service: a database of any earlier version opens, and a backup taken at any moment goes on.

use std::process::{Command, Stdio};

use backscroll::archive::Archive;
use sqlx::{Connection as _, PgConnection, migrate::Migrator};

use crate::support::{
    archive::dump,
    cluster::program,
    postgres::{self, TestDatabase},
    stage::Stage,
};

/// An archive as each version so far has left it, opened by this one.
#[tokio::test]
async fn a_database_of_each_earlier_migration_opens() {
    let migrations = sqlx::migrate!();
    for version in migrations.iter().map(|migration| migration.version) {
        let database = TestDatabase::new_empty().await;
        let earlier =
            migrations.iter().filter(|migration| migration.version <= version).cloned().collect::<Vec<_>>();
        let mut migrator = Migrator { migrations: earlier.into(), ..Migrator::DEFAULT };
        migrator.create_schema("archive");
        migrator.dangerous_set_table_name("archive._sqlx_migrations");
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        migrator.run_direct(None, &mut connection, false).await.unwrap();
        let archive = Archive::connect(database.url(), 2).await.unwrap();
        archive.migrate().await.unwrap();
        assert_eq!(archive.status().await.unwrap().rooms.len(), 0, "after {version}");
        archive.close().await;
    }
}

/// Before the first release, the first migration was another one. Such a database is refused, and nothing in it is changed.
#[tokio::test]
async fn a_database_from_before_the_first_release_is_refused() {
    let database = TestDatabase::new_empty().await;
    database
        .run(
            "create schema archive;
             create table archive.rooms (room_key int primary key, room_id text not null unique);
             insert into archive.rooms values (1, '!kept:hs');
             create table archive._sqlx_migrations (
                 version bigint primary key, description text not null, installed_on timestamptz not null default now(),
                 success boolean not null, checksum bytea not null, execution_time bigint not null);
             insert into archive._sqlx_migrations values (1, 'accounts and rooms', now(), true, 'x', 1),
                                                         (40, 'unread and unnamed', now(), true, 'x', 1);
             create view public.rooms as select room_id from archive.rooms;",
        )
        .await;
    let stage = Stage::in_database(database).await;
    for command in [&["run", "--once"][..], &["migrate"], &["check"], &["status"]] {
        let refused = stage.backscroll.run(command).await;
        assert_eq!(refused.status.code(), Some(78), "{command:?}: {}", refused.stderr);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("from before the first release"), "{command:?}: {said}");
    }
    assert_eq!(postgres::rows(stage.database.url(), "select * from rooms").await, [["!kept:hs"]]);
}

/// `pg_dump` in the middle of a walk, restored elsewhere, gone on with: as if nothing had happened.
#[tokio::test]
async fn a_backup_taken_during_a_walk_goes_on_to_the_same_archive() {
    let stage = Stage::new().await;
    let rooms = [stage.room(95), stage.room(45)];
    stage.once_for_pages(5).await;
    let backup =
        Command::new(program("pg_dump")).arg("--format=custom").arg(stage.database.url()).output().unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));

    stage.once().await;
    let uninterrupted = dump(stage.database.url()).await;

    let restored = TestDatabase::new_empty().await;
    let file = stage.backscroll.path().join("backup");
    std::fs::write(&file, backup.stdout).unwrap();
    let restore = Command::new(program("pg_restore"))
        .args(["--no-owner", "--exit-on-error", "--dbname", restored.url()])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
    let events = postgres::rows(restored.url(), "select count(*) from events").await;
    let stage = Stage {
        backscroll: stage.backscroll.set("BACKSCROLL_DATABASE__URL", restored.url()),
        database: restored,
        ..stage
    };
    stage.once().await;
    assert_eq!(dump(stage.database.url()).await, uninterrupted);
    let after = postgres::rows(stage.database.url(), "select count(*) from events").await;
    assert_ne!(after, events, "the backup was taken before the end");
    for room in &rooms {
        stage.is_archived(room).await;
    }
}
