//! `backscroll seal` and `backscroll verify --manifest`: what has changed since is named, unless its record explains it.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::support::{
    daemon::Outcome,
    homeserver::{ALICE, BOB, Event, Fault},
    postgres::TestDatabase,
    stage::Stage,
};

/// A day of 2024, in milliseconds.
const DAY: i64 = 86_400_000;
const FIRST: i64 = 1_704_067_200_000 + 3_600_000;

/// A room whose messages were sent on five days, archived an hour ago.
async fn sealed_room() -> (Stage, String, Vec<String>) {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let mut said = Vec::new();
    for number in 0..40 {
        let sender = if number % 4 == 0 { BOB } else { ALICE };
        let message =
            Event::message(&format!("word {number}")).from(sender).at(FIRST + number / 8 * DAY + number);
        said.push(stage.server.append(&room, message));
    }
    stage.once().await;
    age(&stage.database).await;
    (stage, room, said)
}

async fn age(database: &TestDatabase) {
    // Not `received_at - interval '1 hour'`, which depends on the time zone's changes: Citus takes only what is immutable.
    let earlier = "to_timestamp((extract(epoch from received_at - timestamptz 'epoch') - 3600)::float8)";
    database.run(&format!("update archive.events set received_at = {earlier}")).await;
}

async fn seal(stage: &Stage, arguments: &[&str]) -> Outcome {
    let arguments: Vec<&str> = ["seal"].iter().chain(arguments).copied().collect();
    stage.backscroll.run(&arguments).await
}

/// The kinds and events that a verification finds, and its exit code.
async fn found(stage: &Stage, arguments: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
    let arguments: Vec<&str> = ["verify", "--json"].iter().chain(arguments).copied().collect();
    let outcome = stage.backscroll.run(&arguments).await;
    let answer: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.stderr));
    let findings = answer["rooms"][0]["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = findings.map(|it| (text(&it["kind"]), text(&it["event_id"]) + &text(&it["detail"])));
    (outcome.status.code(), found.collect())
}

fn manifest(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("manifest.jsonl")
}

/// What a room goes through leaves its seals whole.
#[tokio::test]
async fn what_has_a_record_is_no_finding() {
    let (stage, room, said) = sealed_room().await;
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(&directory);
    let outcome = seal(&stage, &["--output", file.to_str().unwrap()]).await;
    assert!(outcome.status.success() && outcome.stdout.contains("Sealed: 6 days."), "{}", outcome.stdout);
    let unchanged = seal(&stage, &[]).await;
    assert!(unchanged.stdout.contains("none of which has changed"), "{}", unchanged.stdout);

    stage.server.redact(&room, &said[3]);
    stage.server.insert_after(&room, &said[10], Event::message("late").at(FIRST + DAY));
    stage.server.message(&room, ALICE, "today");
    stage.once().await;
    let erased = stage.backscroll.run(&["erase", "--user", BOB, "--yes"]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    assert_eq!(found(&stage, &["--offline"]).await, (Some(0), vec![]));
    let (code, findings) = found(&stage, &["--manifest", file.to_str().unwrap()]).await;
    assert_eq!((code, findings), (Some(0), vec![]));

    let again = seal(&stage, &[]).await;
    assert!(again.status.success() && again.stdout.contains("new or changed since"), "{}", again.stdout);
    assert_eq!(found(&stage, &["--offline"]).await, (Some(0), vec![]));
    // The old rows are there, and the chain goes through all.
    let rows = "select count(*) > count(distinct day), count(distinct chain) = count(*) from seals";
    assert_eq!(stage.database.rows(rows).await, [["t", "t"]]);
}

/// A copy in full replaces one that was served without its content, and one that came from a file.
#[tokio::test]
async fn a_better_copy_has_a_record() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    stage.say(&room, "full", 15);
    stage.server.inject(Fault::emptied_messages().on("/messages"));
    stage.once().await;
    stage.server.heal();
    let imported = "insert into archive.imported_events (room_id, event_id, source)
                    select room_id, event_id, 'element-json' from archive.events where type = 'm.room.power_levels';
                    update archive.events set content = '{}', stable_sha256 = sha256('a file') where type = 'm.room.power_levels'";
    stage.database.run(imported).await;
    age(&stage.database).await;
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(&directory);
    assert!(seal(&stage, &["--output", file.to_str().unwrap()]).await.status.success());

    let walked = stage.backscroll.run(&["backfill", &room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    assert_eq!(stage.database.value("select count(*) from messages where body like 'full %'").await, "15");
    // One message came in full, through `/sync`.
    assert_eq!(stage.database.value("select count(*) from archive.replaced_copies").await, "15");
    for arguments in [&["--offline"][..], &["--manifest", file.to_str().unwrap()]] {
        assert_eq!(found(&stage, arguments).await, (Some(0), vec![]));
    }
    // Without its record, the same is an alteration.
    stage.database.run("delete from archive.replaced_copies").await;
    for arguments in [&["--offline"][..], &["--manifest", file.to_str().unwrap()]] {
        assert_eq!(found(&stage, arguments).await.0, Some(1));
    }
}

/// An alteration: the statement, whose `{N}` are messages, and what is found with the seals, and with a manifest.
struct Alteration {
    sql: &'static str,
    seals: &'static [(&'static str, &'static str)],
    manifest: &'static [(&'static str, &'static str)],
}

const ALTERATIONS: [Alteration; 9] = [
    // Content and hash are altered.
    Alteration {
        sql: "update archive.events e set content = other.content, stable_sha256 = other.stable_sha256
              from archive.events other
              where other.room_id = e.room_id and other.event_id = '{6}' and e.event_id = '{5}'",
        seals: &[("differs from the seal", "{5}2024-01-01")],
        manifest: &[("content differs from the manifest", "{5}2024-01-01")],
    },
    Alteration {
        sql: "delete from archive.events where event_id = '{10}'; update archive.rooms set event_count = event_count - 1",
        seals: &[("differs from the seal", "{11}2024-01-02"), ("missing since the seal", "1 event of 2024-01-02")],
        manifest: &[("missing", "{10}2024-01-02"), ("order differs from the manifest", "{11}2024-01-02")],
    },
    Alteration {
        sql: "update archive.events e set position = o.position + case e.event_id when '{9}' then 1 else 2 end
              from archive.events o where o.room_id = e.room_id and (e.event_id, o.event_id) in (('{9}', '{10}'), ('{10}', '{9}'))",
        seals: &[("differs from the seal", "{10}2024-01-02")],
        manifest: &[("order differs from the manifest", "{10}2024-01-02")],
    },
    // Across days.
    Alteration {
        sql: "update archive.events e set position = o.position + case e.event_id when '{9}' then 1 else 2 end
              from archive.events o where o.room_id = e.room_id and (e.event_id, o.event_id) in (('{9}', '{30}'), ('{30}', '{9}'))",
        seals: &[("differs from the seal", "{30}2024-01-04")],
        manifest: &[("order differs from the manifest", "{30}2024-01-04")],
    },
    Alteration {
        sql: "update archive.events set origin_server_ts = origin_server_ts + 86400000 where event_id = '{5}'",
        seals: &[("missing since the seal", "1 event of 2024-01-01"), ("differs from the seal", "{5}2024-01-02")],
        manifest: &[("time differs from the manifest", "{5}2024-01-01")],
    },
    Alteration {
        sql: "insert into archive.events (room_id, event_id, position, type, sender, origin_server_ts, content, stable_sha256, received_at)
              select room_id, '$forged', position + 1, type, sender, origin_server_ts, content, stable_sha256, received_at
              from archive.events where event_id = '{5}'",
        seals: &[("differs from the seal", "$forged2024-01-01")],
        manifest: &[],
    },
    Alteration {
        sql: "update archive.seals set event_count = event_count - 1 where day = '2024-01-02'",
        seals: &[("seal does not continue the chain", "2024-01-02")],
        manifest: &[],
    },
    Alteration {
        sql: "delete from archive.seals where day = '2024-01-02'",
        seals: &[("seal does not continue the chain", "2024-01-03")],
        manifest: &[],
    },
    Alteration {
        sql: "update archive.seals set root = sha256('x'), leaves = '' where day = '2024-01-02'",
        seals: &[("seal does not continue the chain", "2024-01-02"), ("differs from the seal", "{8}2024-01-02")],
        manifest: &[],
    },
];

#[tokio::test]
async fn what_has_no_record_is_named() {
    let (stage, _room, said) = sealed_room().await;
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(&directory);
    assert!(seal(&stage, &["--output", file.to_str().unwrap()]).await.status.success());
    let save = "create schema saved; create table saved.events as table archive.events;
                create table saved.seals as table archive.seals; create table saved.rooms as table archive.rooms";
    stage.database.run(save).await;
    let with_ids = |text: &str| {
        let all = said.iter().enumerate().rev();
        all.fold(text.to_owned(), |text, (number, event_id)| text.replace(&format!("{{{number}}}"), event_id))
    };
    for Alteration { sql, seals, manifest } in ALTERATIONS {
        stage.database.run(&with_ids(sql)).await;
        let offline = found(&stage, &["--offline"]).await.1;
        for (kind, event) in seals {
            // A year follows the number of the message.
            let place = event.find("2024").filter(|_| event.starts_with(['{', '$'])).unwrap_or(0);
            let named = ((*kind).to_owned(), with_ids(&event[..place]) + &event[place..]);
            assert!(offline.contains(&named), "{sql}\n{named:?}\n{offline:#?}");
        }
        let compared = found(&stage, &["--manifest", file.to_str().unwrap()]).await.1;
        let wanted: Vec<_> = manifest
            .iter()
            .map(|(kind, event)| {
                let place = event.find("2024").unwrap();
                ((*kind).to_owned(), with_ids(&event[..place]) + &event[place..])
            })
            .collect();
        for named in &wanted {
            assert!(compared.contains(named), "{sql}\n{named:?}\n{compared:#?}");
        }
        assert!(!wanted.is_empty() || compared.is_empty(), "{sql}\n{compared:#?}");
        // A seal over it needs a word of its own.
        let again = seal(&stage, &[]).await;
        assert_eq!(again.status.code(), Some(1), "{sql}\n{}", again.stdout);
        restore(&stage.database).await;
    }
    assert_eq!(found(&stage, &["--offline"]).await, (Some(0), vec![]));
}

async fn restore(database: &TestDatabase) {
    let columns = "select string_agg(quote_ident(attname), ', ') from pg_attribute
                   where attrelid = 'archive.events'::regclass and attnum > 0 and attgenerated = ''";
    let columns = database.value(columns).await;
    let restore = format!(
        "truncate archive.events, archive.seals; update archive.rooms r set event_count = s.event_count
         from saved.rooms s where s.room_id = r.room_id;
         insert into archive.events ({columns}) select {columns} from saved.events;
         insert into archive.seals overriding system value table saved.seals"
    );
    database.run(&restore).await;
}

/// A change of order by the homeserver's word has no record, and can be accepted.
#[tokio::test]
async fn what_is_accepted_is_sealed() {
    let (stage, _room, _said) = sealed_room().await;
    assert!(seal(&stage, &[]).await.status.success());
    let swap = "update archive.events e set position = -e.position where e.type = 'm.room.message'";
    stage.database.run(swap).await;
    assert_eq!(seal(&stage, &[]).await.status.code(), Some(1));
    assert_eq!(seal(&stage, &["--accept"]).await.status.code(), Some(1));
    assert!(seal(&stage, &[]).await.status.success());
}

/// Another archive of the same room, by another account and in other pages, has the same manifest.
#[tokio::test]
async fn two_archives_of_a_room_are_compared() {
    let (stage, _room, said) = sealed_room().await;
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(&directory);
    assert!(seal(&stage, &["--output", file.to_str().unwrap()]).await.status.success());
    let other = TestDatabase::new().await;
    let token = stage.server.access_token();
    let backscroll = crate::support::daemon::Backscroll::new(stage.server.url(), &token, Some(other.url()))
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "7");
    backscroll.once().await;
    let compare = ["verify", "--json", "--manifest", file.to_str().unwrap()];
    let same = backscroll.run(&compare).await;
    assert_eq!(same.status.code(), Some(0), "{}", same.stdout);
    let lose = format!("delete from archive.events where event_id = '{}'", said[20]);
    other.run(&lose).await;
    let differs = backscroll.run(&compare).await;
    assert_eq!(differs.status.code(), Some(1));
    assert!(differs.stdout.contains(&said[20]), "{}", differs.stdout);
}

/// A file that was edited or cut is no manifest, and the line is named.
#[tokio::test]
async fn a_bad_manifest_is_refused() {
    let (stage, _room, said) = sealed_room().await;
    let directory = tempfile::tempdir().unwrap();
    let file = manifest(&directory);
    assert!(seal(&stage, &["--output", file.to_str().unwrap()]).await.status.success());
    let good = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let day = lines.iter().position(|line| line.contains(r#""day":"2024-01-03""#)).unwrap();
    let without = |line: usize| {
        let left = lines.iter().enumerate().filter(|(number, _)| *number != line).map(|(_, line)| *line);
        left.collect::<Vec<_>>().join("\n") + "\n"
    };
    for (bad, said) in [
        (good.replace(&said[20], "$another"), format!("line {} does not fit", day + 1)),
        (
            good.replace(r#""day":"2024-01-03""#, r#""day":"2024-01-09""#),
            format!("line {} does not fit", day + 1),
        ),
        (without(day - 1), format!("line {day} does not fit")),
        (without(day), "does not fit".to_owned()),
        (good[..good.len() - 9].to_owned(), "ends in the middle".to_owned()),
        (lines[..day].join("\n") + "\n", "ends in the middle".to_owned()),
        (
            good.replacen("manifest\":1", "manifest\":2", 1),
            "line 1 is no line of a manifest: version 2".to_owned(),
        ),
        (String::new(), "begins with its version".to_owned()),
        ("{}\n".to_owned(), "begins with its version".to_owned()),
        (good.replacen("stable_sha256\":\"", "stable_sha256\":\"x", 1), "is not hexadecimal".to_owned()),
    ] {
        fs::write(&file, bad).unwrap();
        let outcome = stage.backscroll.run(&["verify", "--manifest", file.to_str().unwrap()]).await;
        assert!(outcome.stderr.contains(&said), "{said}\n{}{}", outcome.stderr, outcome.stdout);
        assert!(!outcome.status.success());
    }
}

/// `verify.seal`: the daemon seals what it has verified.
#[tokio::test]
async fn the_daemon_seals_what_it_verifies() {
    let stage = Stage::new().await.set("verify.every", "1s").set("verify.seal", "true");
    let room = stage.room(20);
    let mut daemon = stage.followed(&room).await;
    let sealed = "select coalesce(sum(event_count), 0) >= 20 from seals";
    daemon.until("it is sealed", async || stage.database.value(sealed).await == "t").await;
    let has_chain = "select count(*) > 0 from verifications v where v.root in (select chain from seals) and duration > '0'";
    daemon.until("a verification has the root", async || stage.database.value(has_chain).await == "t").await;
    daemon.stop().await;
    assert_eq!(found(&stage, &["--offline"]).await, (Some(0), vec![]));
}
