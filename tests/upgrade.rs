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

/// The first version of the schema had the migrations up to this one.
const FIRST: i64 = 5;
/// From this one on, the first walk through a gap without a token below has a kind of its own.
const GAP_WHOLE: i64 = 21;

/// Rows that the tables of the first version can hold, as the version with this migration wrote them.
fn rows_of(version: i64) -> String {
    let first_pass = if version < GAP_WHOLE { "gap_known" } else { "gap_whole" };
    let walks = format!(
        "insert into archive.walks (room_key, gap_id, kind, cursor, state)
         values (1, null, 'history', null, 'done'), (1, 1, 'gap_known', 't1', 'open'),
                (1, 2, '{first_pass}', 't3', 'stalled'), (1, 3, 'gap_known', null, 'done')"
    );
    format!("{};\n{walks}", include_str!("upgrade/rows.sql"))
}

/// What readers and the daemon find in it.
async fn contents(url: &str) -> Vec<String> {
    let mut contents = dump(url).await;
    for query in [
        "select 'walk', gap_id, kind, cursor, state, round, stalls from archive.walks order by walk_id",
        "select 'gap', upper_token, lower_token, state from archive.gaps order by gap_id",
        "select 'message', event_id, sender, body from messages order by position",
        "select 'member', user_id, membership, display_name from members order by user_id",
        "select 'room', room_id, display_name, history_state from rooms",
    ] {
        contents.extend(postgres::rows(url, query).await.into_iter().map(|row| row.join("|")));
    }
    contents
}

/// An archive as each version so far has left it, with rows from the first on, opened by this one.
#[tokio::test]
async fn a_database_of_each_earlier_migration_opens() {
    let migrations = sqlx::migrate!();
    let mut upgraded = Vec::new();
    for version in migrations.iter().map(|migration| migration.version) {
        let database = TestDatabase::new_empty().await;
        let earlier =
            migrations.iter().filter(|migration| migration.version <= version).cloned().collect::<Vec<_>>();
        let mut migrator = Migrator { migrations: earlier.into(), ..Migrator::DEFAULT };
        migrator.create_schema("archive");
        migrator.dangerous_set_table_name("archive._sqlx_migrations");
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        migrator.run_direct(None, &mut connection, false).await.unwrap();
        if version >= FIRST {
            database.run(&rows_of(version)).await;
        }
        let archive = Archive::connect(database.url(), 2).await.unwrap();
        archive.migrate().await.unwrap();
        let status = archive.status().await.unwrap();
        assert_eq!(status.rooms.len(), usize::from(version >= FIRST), "after {version}");
        archive.close().await;
        if version >= FIRST {
            upgraded.push((version, contents(database.url()).await));
        }
    }
    let (_, newest) = upgraded.pop().unwrap();
    assert!(newest.iter().any(|row| row.starts_with("walk|2|gap_whole|")), "{newest:#?}");
    for (version, contents) in upgraded {
        assert_eq!(contents, newest, "after {version}");
    }
}

/// Rows that 0001 to 0005 hold survive what came after them.
#[tokio::test]
async fn an_archive_of_the_first_version_goes_on() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    stage.once().await;
    let before = dump(stage.database.url()).await;
    // What the later migrations made is taken away again, which leaves the schema of the first.
    let undo = "drop schema room_reader, room_reader_tables, room_reader_views cascade;
         do $$
         declare thing text;
         begin
             foreach thing in array array(
                 select format('view if exists %I.%I', schemaname, viewname) from pg_views
                 where schemaname = 'public'
                 union all
                 select 'function if exists ' || oid::regprocedure from pg_proc
                 where pronamespace in ('archive'::regnamespace, 'public'::regnamespace)) loop
                 execute format('drop %s cascade', thing);
             end loop;
         end
         $$;
         drop table archive.room_choices, archive.reader_rooms, archive.anchors, archive.writer_lease,
                    archive.unnamed_prev_content;
         drop view archive.writer_lock;
         drop index archive.redactions_waiting, archive.events_repeating, archive.events_member_name;
         alter table archive.quarantine drop column event_ids;
         alter table archive.walks drop column stalls;
         alter table archive.accounts drop column homeserver_error, drop column homeserver_failing_since;
         delete from archive._sqlx_migrations where version >= 10;";
    stage.database.run(&format!("{undo}{}", include_str!("../migrations/0005_reader_views.sql"))).await;
    stage.once().await;
    assert_eq!(dump(stage.database.url()).await, before);
    stage.say(&room, "after the upgrade", 5);
    stage.once().await;
    stage.is_archived(&room).await;
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
