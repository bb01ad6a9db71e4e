//! Least privilege: what each role may do, tried out verb by verb on everything that there is.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::support::{postgres::TestDatabase, stage::Stage};

const RELATIONS: &str = "select format('%I.%I', n.nspname, c.relname)
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('archive', 'public', 'room_reader') and c.relkind in ('r', 'v') order by 1";

/// Roles are the whole server's, so their names are this database's.
async fn role(database: &TestDatabase, kind: &str) -> String {
    format!("{kind}_{}", database.value("select current_database()").await)
}

/// Runs a statement as `role`, settings of the role applied, and takes it back. Returns the SQLSTATE, if it failed.
async fn attempt(database: &TestDatabase, role: &str, statement: &str) -> Option<String> {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let script = format!("set session authorization \"{role}\"; begin; {statement}");
    let done = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await;
    done.err().map(|error| error.as_database_error().unwrap().code().unwrap().into_owned())
}

/// Whether a statement failed for want of a right; what no role could do (a view over a join) counts as that.
fn denied(code: Option<&str>) -> bool {
    matches!(code, Some("42501" | "55000" | "42809"))
}

/// Everything that `role` may do, as `verb relation`.
async fn powers(database: &TestDatabase, role: &str) -> Vec<String> {
    let mut powers = Vec::new();
    for relation in database.column(RELATIONS).await {
        let column = format!(
            "select quote_ident(attname) from pg_attribute where attrelid = '{relation}'::regclass and attnum = 1"
        );
        let column = database.value(&column).await;
        for (verb, statement) in [
            ("select", format!("select * from {relation} limit 1")),
            ("insert", format!("insert into {relation} default values")),
            ("update", format!("update {relation} set {column} = default where false")),
            ("delete", format!("delete from {relation} where false")),
            ("truncate", format!("truncate {relation}")),
            ("alter", format!("alter table {relation} rename to other")),
            ("drop", format!("drop table {relation} cascade")),
            ("lock", format!("lock table {relation} in access exclusive mode")),
        ] {
            if !denied(attempt(database, role, &statement).await.as_deref()) {
                powers.push(format!("{verb} {relation}"));
            }
        }
    }
    powers
}

fn cross(verbs: &[&str], relations: &[String]) -> Vec<String> {
    relations.iter().flat_map(|relation| verbs.iter().map(move |verb| format!("{verb} {relation}"))).collect()
}

async fn granted(stage: &Stage, arguments: &[&str]) {
    let outcome = stage.backscroll.run(arguments).await;
    assert!(outcome.status.success(), "{arguments:?}: {}", outcome.stderr);
}

/// Whether `backscroll check` finds that the role may write.
fn may_write(stage: &Stage, role: &str) -> bool {
    let url = stage.database.url_as(role);
    let mut command = stage.backscroll.command(&["check"]);
    let output = command.env("BACKSCROLL_DATABASE__URL", url).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(told.contains(stage.server.url()), "it has checked: {told}");
    !told.contains("owns the archive")
}

async fn dropped(database: &TestDatabase, role: &str) {
    database.run(&format!("drop owned by \"{role}\"; drop role \"{role}\"")).await;
}

#[tokio::test]
async fn each_role_may_do_exactly_what_it_needs() {
    let stage = Stage::new().await.set("redactions.policy", "retain");
    let room = stage.room(3);
    stage.once().await;
    let database = &stage.database;
    let [reader, guest, writer] =
        [role(database, "reader").await, role(database, "guest").await, role(database, "writer").await];
    granted(&stage, &["grant-reader", &reader]).await;
    granted(&stage, &["grant-reader", &guest, "--room", &room]).await;
    granted(&stage, &["grant-writer", &writer]).await;

    let relations = database.column(RELATIONS).await;
    let of = |schema: &str| -> Vec<String> {
        relations.iter().filter(|relation| relation.starts_with(schema)).cloned().collect()
    };
    assert!(of("archive.").contains(&"archive.originals".to_owned()));
    assert_eq!(powers(database, &reader).await, cross(&["select"], &of("public.")));
    assert_eq!(powers(database, &guest).await, cross(&["select"], &of("room_reader.")));

    let own =
        |relation: &String| relation != "archive._sqlx_migrations" && relation != "archive.reader_rooms";
    let rows: Vec<_> = of("archive.").into_iter().filter(own).collect();
    let mut expected = cross(&["select", "insert", "update", "delete", "lock"], &rows);
    let looks = ["archive._sqlx_migrations", "public.current_state", "public.rooms"].map(str::to_owned);
    expected.extend(cross(&["select"], &looks));
    expected.sort();
    let mut found = powers(database, &writer).await;
    found.sort();
    assert_eq!(found, expected);

    assert!(may_write(&stage, &writer));
    assert!(!may_write(&stage, &reader));

    for role in [&reader, &guest, &writer] {
        for statement in [
            "create table archive.t ()",
            "create table public.t ()",
            "create view room_reader.t as select 1",
            "create schema s",
            "select archive.grant_reader(current_user)",
            "select archive.grant_writer(current_user)",
            "insert into archive.reader_rooms values (current_user, '!x')",
            "select pg_read_file('/etc/passwd')",
            "copy (select 1) to program 'cat'",
        ] {
            assert_eq!(
                attempt(database, role, statement).await.as_deref(),
                Some("42501"),
                "{role}: {statement}"
            );
        }
        dropped(database, role).await;
    }
}

#[tokio::test]
async fn a_reader_of_some_rooms_sees_nothing_of_the_others() {
    let stage = Stage::new().await;
    let (shown, hidden) = (stage.room(12), stage.room(12));
    stage.say(&hidden, "behind the barrier", 3);
    stage.once().await;
    let database = &stage.database;
    let guest = role(database, "guest").await;
    granted(&stage, &["grant-reader", &guest, "--room", &shown]).await;

    let settings = format!(
        "select array_to_string(setconfig, ' ') from pg_db_role_setting where setrole = '{guest}'::regrole"
    );
    let settings = database.value(&settings).await;
    for setting in
        ["search_path=room_reader, public", "default_transaction_read_only=on", "statement_timeout=60s"]
    {
        assert!(settings.contains(setting), "{settings}");
    }
    let as_guest = |sql: String| {
        let guest = guest.clone();
        async move {
            let mut connection = PgConnection::connect(database.url()).await.unwrap();
            let script = format!(
                "set session authorization \"{guest}\"; set search_path = room_reader, public;
                 create function pg_temp.spy(value jsonb) returns bool language plpgsql cost 0.0000001 as $$
                 begin raise notice '%', value; perform set_config('spy.seen', current_setting('spy.seen', true) || value::text, false); return true; end $$;"
            );
            sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.unwrap();
            let mut first = async |sql: String| -> String {
                let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
                row.try_get_unchecked::<Option<String>, _>(0).unwrap().unwrap_or_default()
            };
            let value = first(sql).await;
            (value, first("select current_setting('spy.seen', true)".to_owned()).await)
        }
    };
    for view in ["events", "messages", "members", "current_state", "state_history", "rooms", "backfill"] {
        let (rooms, _) = as_guest(format!("select string_agg(distinct room_id, ' ') from {view}")).await;
        assert_eq!(rooms, shown, "{view}");
    }
    // A function of the reader's own, cheap enough to be asked first, must not see what the reader may not.
    let sql = "select count(*)::text from events where pg_temp.spy(content)";
    let (count, seen) = as_guest(format!("with x as (select set_config('spy.seen', '', false)) {sql}")).await;
    assert_eq!(
        count,
        database.value(&format!("select count(*) from events where room_id = '{shown}'")).await
    );
    assert!(seen.contains("message 0") && !seen.contains("behind the barrier"), "{seen}");

    // Granting again replaces, in both directions.
    granted(&stage, &["grant-reader", &guest]).await;
    let all = attempt(
        database,
        &guest,
        &format!("select 1 / count(*) from public.events where room_id = '{hidden}'"),
    )
    .await;
    assert_eq!(all, None);
    assert!(denied(attempt(database, &guest, "select 1 from room_reader.events").await.as_deref()));
    dropped(database, &guest).await;
}

#[tokio::test]
async fn both_kinds_of_reader_read_a_room_by_the_index() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    stage.once().await;
    let database = &stage.database;
    database
        .run(
            "insert into archive.events (room_key, event_id, position, type, sender, content, stable_sha256)
             select 1, '$filler' || n, -1e9::bigint * n, 'm.room.message', '@a:model.test', '{}', ''
             from generate_series(1, 20000) n;
             analyze archive.events; analyze archive.rooms",
        )
        .await;
    let guest = role(database, "guest").await;
    for arguments in [&["grant-reader", &guest] as &[&str], &["grant-reader", &guest, "--room", &room]] {
        granted(&stage, arguments).await;
        let path = if arguments.len() == 2 { "public" } else { "room_reader" };
        let sql = format!(
            "set session authorization \"{guest}\"; set search_path = {path};
             explain (analyze, costs off, timing off, summary off)
             select * from events where room_key = room_key('{room}') order by position desc limit 50"
        );
        let plan = database.column(&sql).await.join("\n");
        // Behind a security barrier the limit is not known where the scan is chosen: any scan of the index will do.
        assert!(plan.contains("events_position") && !plan.contains("Seq Scan on events"), "{plan}");
        if path == "public" {
            assert!(plan.contains("using events_position"), "{plan}");
            assert!(plan.contains("Backward") && !plan.contains("Sort"), "{plan}");
            assert!(!plan.contains("rows=20"), "reads just those: {plan}");
        }
    }
    dropped(database, &guest).await;
}

#[tokio::test]
async fn the_daemon_runs_as_the_writer_alone() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    let database = &stage.database;
    let writer = role(database, "writer").await;
    granted(&stage, &["grant-writer", &writer]).await;
    let url = database.url_as(&writer);
    let stage = stage.set("database.url", &url);
    let mut daemon = stage.followed(&room).await;
    let spoken = stage.say(&room, "live", 5);
    stage.server.redact(&room, &spoken[0]);
    stage.agrees_in_order(&mut daemon, &room).await;
    let outcome = stage.backscroll.run(&["rooms", "pause", &room]).await;
    assert!(outcome.status.success(), "{}", outcome.stderr);
    daemon.stop().await;
    dropped(&stage.database, &writer).await;
}

/// The way of deploy/roles.sql, with roles of this test's own.
#[tokio::test]
async fn the_script_sets_up_owner_writer_and_reader() {
    let stage = Stage::new().await;
    let database = TestDatabase::new_empty().await;
    let [owner, writer, reader] =
        [role(&database, "owner").await, role(&database, "writer").await, role(&database, "reader").await];
    let script = include_str!("../deploy/roles.sql").replace(r"\set ON_ERROR_STOP 1", "");
    let script = [("owner", &owner), ("writer", &writer), ("reader", &reader)]
        .iter()
        .fold(script, |script, (kind, role)| script.replace(&format!("backscroll_{kind}"), role));
    database.run(&script).await;

    let stage = stage.set("database.url", &database.url_as(&owner));
    let migrated = stage.backscroll.run(&["migrate"]).await;
    assert!(migrated.status.success(), "{}", migrated.stderr);
    let grant = format!(
        "select archive.grant_reader('{reader}');
         set role {owner}; select archive.grant_writer('{writer}')"
    );
    database.run(&grant).await;
    database.run(&format!("set role {owner}; create table archive.later ()")).await;
    assert_eq!(attempt(&database, &writer, "select * from archive.later").await, None);

    let stage = stage.set("database.url", &database.url_as(&writer));
    let room = stage.room(25);
    stage.once().await;
    let stored = format!("select count(*) from events where room_id = '{room}'");
    assert_eq!(database.value(&stored).await, stage.server.visible_ids(&room).len().to_string());
    assert_eq!(attempt(&database, &reader, "select * from messages").await, None);
    for (role, statement) in [
        (&reader, "insert into archive.walks default values"),
        (&reader, "create table mine ()"),
        (&reader, "create temporary table mine ()"),
        (&writer, "create table mine ()"),
        (&writer, "drop table archive.events"),
    ] {
        assert_eq!(
            attempt(&database, role, statement).await.as_deref(),
            Some("42501"),
            "{role}: {statement}"
        );
    }
    for role in [&writer, &reader] {
        dropped(&database, role).await;
    }
}

#[tokio::test]
async fn the_owner_is_no_reader() {
    let stage = Stage::new().await;
    let owner = stage.database.value("select current_user").await;
    let outcome = stage.backscroll.run(&["grant-reader", &owner]).await;
    assert_eq!(outcome.status.code(), Some(77), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&owner), "{}", outcome.stderr);
}

#[tokio::test]
async fn every_view_is_there_for_readers_of_some_rooms() {
    let database = TestDatabase::new().await;
    let differing = "select table_name || '.' || column_name from (
            select table_schema, table_name, column_name from information_schema.columns
            where table_schema in ('public', 'room_reader')) c
        group by table_name, column_name having count(*) <> 2";
    assert_eq!(database.column(differing).await, [""; 0]);
}

/// One migration behind, or made by a newer Backscroll: the writer may do nothing about either, and is told who may.
#[tokio::test]
async fn the_writer_says_what_is_wrong_with_the_schema() {
    let stage = Stage::new().await;
    let database = &stage.database;
    let writer = role(database, "writer").await;
    granted(&stage, &["grant-writer", &writer]).await;
    let url = database.url_as(&writer);
    let owner = database.value("select current_user").await;
    let newest = database.value("select max(version) from archive._sqlx_migrations").await;
    let stage = stage.set("database.url", &url);
    for (change, code, says) in [
        (
            format!("delete from archive._sqlx_migrations where version = {newest}"),
            77,
            format!(
                "needs {newest}, and the role \"{writer}\" may not change it; run `backscroll migrate` as the owner, \"{owner}\""
            ),
        ),
        (
            "insert into archive._sqlx_migrations (version, description, success, checksum, execution_time)
             values (9999, 'from the future', true, '', 0)"
                .to_owned(),
            78,
            "its schema is of version 9999".to_owned(),
        ),
    ] {
        stage.database.run(&change).await;
        for command in [&["run", "--once"] as &[&str], &["migrate"], &["erase", "--room", "!a:b", "--yes"]] {
            let outcome = stage.backscroll.run(command).await;
            assert_eq!(outcome.status.code(), Some(code), "{command:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(&says), "{command:?}: {}", outcome.stderr);
            assert!(!outcome.stderr.contains("permission denied"), "{command:?}: {}", outcome.stderr);
        }
    }
    dropped(&stage.database, &writer).await;
}

#[tokio::test]
async fn a_word_of_sql_is_refused_as_a_role() {
    let stage = Stage::new().await;
    for command in ["grant-reader", "grant-writer"] {
        for name in ["public", "PUBLIC", "none", "current_user", "session_user", "pg_monitor"] {
            let outcome = stage.backscroll.run(&[command, name]).await;
            assert_eq!(outcome.status.code(), Some(64), "{command} {name}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("is no role"), "{command} {name}: {}", outcome.stderr);
        }
    }
}
