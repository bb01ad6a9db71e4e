//! `backscroll export` and `import`: what was taken out is put in again, row for row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    lossless::awful::events,
    support::{
        archive::{mentions, timeline},
        daemon::{Backscroll, Outcome},
        derived::assert_derived,
        homeserver::{ALICE, BOB, Event},
        postgres::{TestDatabase, rows},
        stage::Stage,
        synapse::Synapse,
    },
    verify::archived,
};

/// Tables whose rows are not exported, because they follow from others, or are of a work under way.
const NOT_EXPORTED: [&str; 17] = [
    "activity",
    // Decrypted anew where the keys are imported, which an export must not carry.
    "decrypted_events",
    "decryption_queue",
    "erasures",
    // Secrets.
    "megolm_sessions",
    "members",
    "reader_rooms",
    "resequenced_events",
    "resequences",
    "room_choices",
    "running_verifications",
    "search_blocks",
    "search_locks",
    "search_queue",
    "verified_ancestors",
    "verified_events",
    // Of the archive's own device.
    "withheld_sessions",
];

/// All rows of rooms, of every table that holds any, but those of the search, which is filled behind the writer.
async fn dump(url: &str) -> BTreeMap<String, Vec<String>> {
    let tables = "select distinct c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
                  where c.relnamespace = 'archive'::regnamespace and c.relkind = 'r' and a.attname = 'room_id'
                    and c.relname not like 'search%' order by 1";
    let mut dump = BTreeMap::new();
    for table in rows(url, tables).await.into_iter().flatten() {
        let all = rows(url, &format!("select to_jsonb(t)::text from archive.{table} t order by 1")).await;
        dump.insert(table, all.into_iter().flatten().collect());
    }
    dump
}

/// The files below a directory, by their paths in it.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(next) = directories.pop() {
        for path in fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn export(
        &self,
        backscroll: &Backscroll,
        name: &str,
        arguments: &[&str],
    ) -> BTreeMap<String, Vec<u8>> {
        let path = self.path(name);
        let arguments: Vec<&str> =
            ["export", "--output", path.to_str().unwrap()].iter().chain(arguments).copied().collect();
        let exported = backscroll.run(&arguments).await;
        assert!(exported.status.success(), "{}", exported.stderr);
        files(&path)
    }

    async fn import(&self, backscroll: &Backscroll, name: &str) -> Outcome {
        backscroll.run(&["import", self.path(name).to_str().unwrap()]).await
    }
}

/// The program with another database and a homeserver that is not there.
fn elsewhere(database: &TestDatabase) -> Backscroll {
    Backscroll::new("http://127.0.0.1:1", "none", Some(database.url()))
}

fn same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    // What describes the others comes last.
    for is_description in [false, true] {
        for (name, bytes) in one.iter().filter(|(name, _)| name.ends_with("files.json") == is_description) {
            let [one, other] = [bytes, &other[name]].map(|bytes| String::from_utf8_lossy(bytes));
            assert!(one == other, "{name}\n{one}\n{other}");
        }
    }
}

/// Exports, imports elsewhere, compares all rows, and exports again.
async fn goes_round(backscroll: &Backscroll, url: &str) -> TestDatabase {
    let (place, other) = (Place::new(), TestDatabase::new().await);
    let first = place.export(backscroll, "first", &[]).await;
    let imported = place.import(&elsewhere(&other), "first").await;
    assert!(imported.status.success(), "{}", imported.stderr);
    let (before, after) = (dump(url).await, dump(other.url()).await);
    for (table, rows) in &before {
        let changed: Vec<_> = rows.iter().zip(&after[table]).filter(|(one, other)| one != other).collect();
        assert!(changed.is_empty() && rows.len() == after[table].len(), "{table}: {changed:#?}");
        let file = format!("/{table}.jsonl");
        let is_there = first.keys().any(|name| name.ends_with(&file));
        assert!(
            is_there || rows.is_empty() || NOT_EXPORTED.contains(&table.as_str()),
            "{table} is not exported"
        );
    }
    same(&first, &place.export(&elsewhere(&other), "second", &[]).await);
    let again = place.import(&elsewhere(&other), "second").await;
    assert!(again.status.success() && again.stderr.contains("0 rooms imported"), "{}", again.stderr);
    assert_eq!(after, dump(other.url()).await);
    assert_derived(other.url()).await;
    other
}

/// A room of Synapse: everything is the same, the seals too, the homeserver proves it, and it is followed further.
#[tokio::test]
async fn a_room_of_synapse_goes_round() {
    let synapse = Synapse::start().await;
    for version in ["1", "11"] {
        let (alice, room, database, backscroll) = archived(&synapse, version).await;
        let kept = backscroll.run(&["verify", "--repair"]).await;
        assert!(kept.status.success(), "{}{}", kept.stdout, kept.stderr);
        assert!(backscroll.run(&["seal"]).await.status.success());
        let other = goes_round(&backscroll, database.url()).await;
        let moved = Backscroll::new(synapse.url(), &backscroll_token(&backscroll), Some(other.url()))
            .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms");
        let verified = moved.run(&["verify", "--json"]).await;
        assert!(verified.stdout.contains(r#""verdict": "proved""#), "{}{}", verified.stdout, verified.stderr);
        let body = serde_json::json!({ "msgtype": "m.text", "body": "after the move" });
        synapse.send(&alice, &room, "m.room.message", body).await;
        moved.once().await;
        assert_eq!(other.value("select count(*) from search('\"after the move\"')").await, "1");
        let verified = moved.run(&["verify", "--json"]).await;
        assert!(verified.stdout.contains(r#""verdict": "proved""#), "{}{}", verified.stdout, verified.stderr);
    }
}

fn backscroll_token(backscroll: &Backscroll) -> String {
    fs::read_to_string(backscroll.token_file()).unwrap().trim().to_owned()
}

/// Events that `jsonb` cannot hold, quarantine, gaps, erased users, originals.
#[tokio::test]
async fn awful_rooms_go_round() {
    let stage = Stage::new().await.set("redactions.policy", "retain");
    let room = stage.server.create_room("1");
    for awful in events(&room) {
        stage.server.append_raw(&room, &awful.id, awful.json.as_bytes());
    }
    stage.once().await;
    let said = stage.say(&room, "word", 30);
    stage.server.redact(&room, &said[4]);
    for number in 0..60 {
        stage.server.append(&room, Event::message(&format!("unseen {number}")).from(BOB));
    }
    stage.server.create_room("10");
    stage.once().await;
    goes_round(&stage.backscroll, stage.database.url()).await;
    let erased = stage.backscroll.run(&["erase", "--user", BOB, "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    goes_round(&stage.backscroll, stage.database.url()).await;
}

/// Each table with a room is exported, or is known not to be.
#[tokio::test]
async fn every_table_is_thought_of() {
    let database = TestDatabase::new().await;
    assert!(elsewhere(&database).run(&["migrate"]).await.status.success());
    let (place, stage) = (Place::new(), Stage::new().await);
    stage.room(3);
    stage.once().await;
    place.export(&stage.backscroll, "all", &[]).await;
    let source = include_str!("../src/archive/transfer/mod.rs");
    let known: BTreeSet<&str> =
        source.split("table(\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    let unknown: Vec<String> = dump(database.url())
        .await
        .into_keys()
        .filter(|table| {
            let is_known = known.contains(table.as_str()) || NOT_EXPORTED.contains(&table.as_str());
            !is_known && table != "events"
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// A part of a room: its messages of a time, and all of its state.
#[tokio::test]
async fn a_period_is_imported_as_such() {
    const DAY: i64 = 86_400_000;
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let mut said = Vec::new();
    for number in 0..20 {
        let message = Event::message(&format!("word {number}")).from(ALICE);
        said.push(stage.server.append(&room, message.at(1_704_067_200_000 + number * DAY)));
    }
    let edit = format!(
        r#"{{"body":"*","msgtype":"m.text","m.new_content":{{"body":"new","msgtype":"m.text"}},
            "m.relates_to":{{"rel_type":"m.replace","event_id":"{}"}}}}"#,
        said[1]
    );
    stage
        .server
        .append(&room, Event::new("m.room.message", edit).from(ALICE).at(1_704_067_200_000 + 6 * DAY));
    stage.server.redact(&room, &said[2]);
    stage.once().await;
    let (place, other) = (Place::new(), TestDatabase::new().await);
    let period = ["--since", "2024-01-06", "--until", "2024-01-11 00:00Z", &room];
    let first = place.export(&stage.backscroll, "first", &period).await;
    let imported = place.import(&elsewhere(&other), "first").await;
    assert!(imported.status.success(), "{}", imported.stderr);
    let messages = other.column("select event_id from events where type = 'm.room.message' and rel_type is null order by position").await;
    assert_eq!(messages, said[5..10]);
    let current = "select event_id from current_state order by 1";
    assert_eq!(other.column(current).await, stage.database.column(current).await);
    assert_eq!(other.value("select history_state from rooms").await, "truncated");
    assert_eq!(other.value("select count(*) from archive.waiting_edits").await, "1");
    let verified = elsewhere(&other).run(&["verify", "--offline"]).await;
    assert!(verified.status.success(), "{}", verified.stdout);
    same(&first, &place.export(&elsewhere(&other), "second", &period).await);
    let mixed = [
        "export",
        "--output",
        place.path("first").to_str().unwrap().to_owned().leak(),
        "--since",
        "2024-01-07",
    ];
    let mixed = stage.backscroll.run(&mixed).await;
    assert!(mixed.stderr.contains("another version or period"), "{}", mixed.stderr);
}

/// A room that is half written is written anew, and what is whole is not.
#[tokio::test]
async fn an_interrupted_export_goes_on() {
    let stage = Stage::new().await;
    for count in [3, 200, 5] {
        stage.room(count);
    }
    stage.once().await;
    let place = Place::new();
    let whole = place.export(&stage.backscroll, "whole", &[]).await;
    let rooms = place.path("whole").join("rooms");
    let one = fs::read_dir(&rooms).unwrap().next().unwrap().unwrap().path();
    fs::rename(&one, format!("{}.part", one.display())).unwrap();
    fs::remove_file(PathBuf::from(format!("{}.part", one.display())).join("rooms.jsonl")).unwrap();
    let other = TestDatabase::new().await;
    let torn = place.import(&elsewhere(&other), "whole").await;
    assert!(torn.stderr.contains("the export was interrupted"), "{}", torn.stderr);
    same(&whole, &place.export(&stage.backscroll, "whole", &[]).await);
    assert!(place.import(&elsewhere(&other), "whole").await.status.success());
}

/// Whatever is wrong with a file, its name and line are said, and nothing is imported.
#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let stage = Stage::new().await;
    let rooms = [stage.room(10), stage.room(10)];
    stage.say(&rooms[1], "word", 5);
    stage.once().await;
    let (place, other) = (Place::new(), TestDatabase::new().await);
    let good = place.export(&stage.backscroll, "good", &[]).await;
    assert!(elsewhere(&other).run(&["migrate"]).await.status.success());
    let last = place.path("good").join("rooms").join(
        good.keys()
            .rev()
            .find_map(|name| name.strip_prefix("rooms/")?.split('/').next().map(str::to_owned))
            .unwrap(),
    );
    for (file, alter, said) in [
        (
            "events.jsonl",
            (|text| text.replacen("message", "massage", 1)) as fn(&str) -> String,
            "events.jsonl, line",
        ),
        (
            "events.jsonl",
            |text| text.replacen("\"content\":{", "\"content\":[", 1),
            "events.jsonl, line 1: it is no event",
        ),
        ("events.jsonl", |text| text[..text.len() - 20].to_owned(), "the file ends in the middle of it"),
        ("events.jsonl", |text| text.lines().skip(1).collect::<Vec<_>>().join("\n") + "\n", "SHA-256"),
        ("events.jsonl", |text| text.replacen("received_at\":", "received_at\":1", 1), "SHA-256"),
        (
            "events.jsonl",
            |text| text.replacen("\"content\"", "\"content\\u0000\"", 1),
            "events.jsonl, line 1",
        ),
        (
            "current_state.jsonl",
            |text| text.replacen("m.room.", "m.other.", 1),
            "current_state.jsonl is no file",
        ),
        ("manifest.jsonl", |text| text.replacen("before", "behind", 1), "manifest.jsonl"),
        ("files.json", |text| text.replacen("events", "evants", 1), "knows no \"evants\""),
        ("files.json", |_| String::new(), "files.json is no file of an export"),
        ("rooms.jsonl", |text| text.replacen('!', "!other", 1), "names another room"),
        ("rooms.jsonl", |_| "[]\n".to_owned(), "rooms.jsonl, line 1"),
        ("../../export.json", |text| text.replacen('1', "2", 1), "version 2"),
        ("../../export.json", |_| "{".to_owned(), "export.json is no file"),
    ] {
        let path = last.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let altered = alter(&text);
        assert_ne!(text, altered, "{file} {said}");
        fs::write(&path, altered).unwrap();
        let refused = place.import(&elsewhere(&other), "good").await;
        assert!(!refused.status.success(), "{file} {said}");
        assert!(refused.stderr.contains(said), "{file} {said}\n{}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
        assert_eq!(other.value("select count(*) from archive.rooms").await, "0", "{file} {said}");
        fs::write(&path, text).unwrap();
    }
    for missing in ["events.jsonl", "files.json", "rooms.jsonl"] {
        let (path, away) = (last.join(missing), place.path("away"));
        fs::rename(&path, &away).unwrap();
        let refused = place.import(&elsewhere(&other), "good").await;
        assert!(refused.stderr.contains(missing), "{missing}\n{}", refused.stderr);
        fs::rename(&away, &path).unwrap();
    }
    let nowhere = place.import(&elsewhere(&other), "nowhere").await;
    assert!(nowhere.stderr.contains("nowhere/export.json"), "{}", nowhere.stderr);
    assert!(place.import(&elsewhere(&other), "good").await.status.success());
}

/// Rows that contradict each other are refused also where all hashes were made anew.
#[tokio::test]
async fn a_consistent_forgery_of_the_files_is_refused() {
    let stage = Stage::new().await;
    stage.room(10);
    stage.once().await;
    // The archive itself is damaged, and exported as it is.
    stage
        .database
        .run("update archive.current_state set event_id = '$nowhere' where type = 'm.room.create'")
        .await;
    let (place, other) = (Place::new(), TestDatabase::new().await);
    place.export(&stage.backscroll, "damaged", &[]).await;
    let refused = place.import(&elsewhere(&other), "damaged").await;
    assert!(
        refused.stderr.contains("its rows contradict each other: state without event $nowhere"),
        "{}",
        refused.stderr
    );
    assert_eq!(other.value("select count(*) from archive.events").await, "0");
}

/// What the archive has, and what it has erased, is not changed by an import.
#[tokio::test]
async fn what_is_there_stays() {
    let stage = Stage::new().await;
    let rooms = [stage.room(10), stage.room(10)];
    stage.server.append(&rooms[0], Event::message("of bob").from(BOB));
    // Without a type it is no event.
    let bad = format!(r#"{{"event_id":"$bad:model.test","sender":"{BOB}","content":{{"body":"of bob"}}}}"#);
    stage.server.append_raw(&rooms[0], "$bad:model.test", bad.into_bytes());
    stage.once().await;
    assert_eq!(stage.database.value("select count(*) from archive.quarantine").await, "1");
    let (place, other) = (Place::new(), TestDatabase::new().await);
    place.export(&stage.backscroll, "all", &[]).await;
    let target = elsewhere(&other);
    assert!(target.run(&["migrate"]).await.status.success());
    other.run(&format!("insert into archive.erasures (user_id) values ('{BOB}')")).await;
    assert!(place.import(&target, "all").await.status.success());
    assert_eq!(other.value("select count(*) from events where content::text like '%of bob%'").await, "0");
    assert_eq!(mentions(&other, "of bob").await, Vec::<String>::new());
    let verified = target.run(&["verify", "--offline"]).await;
    assert!(verified.status.success(), "{}", verified.stdout);

    assert!(target.run(&["erase", "--room", &rooms[1], "--yes"]).await.status.success());
    let erased = place.import(&target, "all").await;
    assert!(erased.stderr.contains("it was erased"), "{}", erased.stderr);
}

/// An archive that was begun later, and misses the old part, gets it from the export of another one: in its place, marked, and
/// the homeserver's copies stay as they are.
#[tokio::test]
async fn what_an_archive_lacks_is_added() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("1");
    for awful in events(&room).into_iter().take(30) {
        stage.server.append_raw(&room, &awful.id, awful.json.as_bytes());
    }
    let said = stage.say(&room, "word", 60);
    stage.server.redact(&room, &said[2]);
    stage.once().await;
    let mut order = stage.timeline(&room).await;
    let place = Place::new();
    place.export(&stage.backscroll, "all", &[]).await;
    // The homeserver has purged it meanwhile.
    stage.server.purge(&room, &said[30]);
    stage.server.message(&room, ALICE, "newer than the export");
    let later = TestDatabase::new().await;
    let backscroll = Backscroll::new(stage.server.url(), &stage.server.access_token(), Some(later.url()));
    backscroll.once().await;
    let added = place.import(&backscroll, "all").await;
    assert!(added.status.success() && added.stderr.contains("They were added"), "{}", added.stderr);
    let mut both = timeline(&later, &room).await;
    assert_eq!(both.pop().map(|_| ()), Some(()), "the newest");
    // Of some, the homeserver has given the state, and not the place.
    assert_eq!(order.len() - both.len(), 4);
    order.retain(|event_id| both.contains(event_id));
    assert_eq!(both, order);
    let same = "select event_id, stable_sha256::text, redacted_by, raw::text from archive.events where state_key is null
                and content::text not like '%newer than%' order by 1";
    assert_eq!(later.rows(same).await, stage.database.rows(same).await);
    let marked = "select count(*) > 50, min(source), max(source) from imported_events";
    assert_eq!(later.rows(marked).await, [["t", "backscroll-export", "backscroll-export"]]);
    assert_derived(later.url()).await;
    let again = place.import(&backscroll, "all").await;
    assert!(again.stderr.contains("1 room had been archived before"), "{}", again.stderr);
}

/// Killed at any moment, the import leaves rooms whole or not at all, and goes on.
#[tokio::test]
async fn a_killed_import_goes_on() {
    let stage = Stage::new().await;
    for count in [300, 200, 100, 50] {
        stage.room(count);
    }
    stage.once().await;
    let (place, other) = (Place::new(), TestDatabase::new().await);
    place.export(&stage.backscroll, "all", &[]).await;
    let target = elsewhere(&other);
    assert!(target.run(&["migrate"]).await.status.success());
    for delay in [100, 200, 300, 400, 500, 700] {
        let mut import = target.start(&["import", place.path("all").to_str().unwrap()]);
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        if import.ended().is_none() {
            import.kill().await;
        }
        let torn =
            "select count(*) from archive.rooms r where event_count <> (select count(*) from archive.events e
                    where e.room_id = r.room_id) or event_count = 0";
        assert_eq!(other.value(torn).await, "0", "after {delay} ms");
    }
    // The killed one's session may be a moment from its end.
    let mut imported = place.import(&target, "all").await;
    for _ in 0..50 {
        if imported.status.code() != Some(75) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        imported = place.import(&target, "all").await;
    }
    assert!(imported.status.success(), "{}", imported.stderr);
    assert_eq!(dump(stage.database.url()).await, dump(other.url()).await);
}
