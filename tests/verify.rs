//! `backscroll verify`: what is whole is proved, and each damage is named.

mod damage;
mod liar;

use serde_json::{Value, json};

use crate::support::{
    daemon::{Backscroll, Outcome},
    homeserver::{Event, Fault},
    postgres::TestDatabase,
    stage::Stage,
    synapse::{Synapse, User},
};

/// A command's answer with `--json`, and its exit code.
async fn verify(backscroll: &Backscroll, arguments: &[&str]) -> (Option<i32>, Value, Outcome) {
    let arguments: Vec<&str> = ["verify", "--json"].iter().chain(arguments).copied().collect();
    let outcome = backscroll.run(&arguments).await;
    let answer = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    (outcome.status.code(), answer, outcome)
}

/// The verdict about the only room.
async fn verdict(backscroll: &Backscroll, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, answer, outcome) = verify(backscroll, arguments).await;
    let verdict = answer["rooms"][0]["verdict"].as_str().map(str::to_owned);
    (code, verdict.unwrap_or_else(|| format!("{answer} {}", outcome.stderr)))
}

fn good(verdict: &str) -> (Option<i32>, String) {
    (Some(0), verdict.to_owned())
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// A room of Synapse with some of everything, archived in two runs with a gap in between.
pub(crate) async fn archived(synapse: &Synapse, version: &str) -> (User, String, TestDatabase, Backscroll) {
    let [alice, archiver] = [
        synapse.register(&format!("alice{version}")).await,
        synapse.register(&format!("archiver{version}")).await,
    ];
    let room =
        synapse.create_room(&alice, version, json!({ "preset": "public_chat", "name": "Proof" })).await;
    synapse.join(&archiver, &room).await;
    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url()))
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms")
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "50");
    backscroll.once().await;
    let mut said = Vec::new();
    // So many that /sync leaves some out.
    for number in 0..130 {
        said.push(synapse.send(&alice, &room, "m.room.message", text(&format!("word {number}"))).await);
    }
    let edit = json!({
        "msgtype": "m.text", "body": "* edited", "m.new_content": text("edited"),
        "m.relates_to": { "rel_type": "m.replace", "event_id": said[3] },
    });
    synapse.send(&alice, &room, "m.room.message", edit).await;
    let thread = json!({
        "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": said[4] },
    });
    synapse.send(&alice, &room, "m.room.message", thread).await;
    for topic in ["first", "second", "third"] {
        synapse.send_state(&alice, &room, "m.room.topic", "", json!({ "topic": topic })).await;
    }
    synapse.redact(&alice, &room, &said[5], json!({ "reason": "why not" })).await;
    backscroll.once().await;
    (alice, room, database, backscroll)
}

/// Ids, content hashes and the graph, for each way in which room versions name and hash events.
#[tokio::test]
async fn rooms_of_synapse_are_proved() {
    let synapse = Synapse::start().await;
    for version in ["1", "3", "6", "9", "11", "12"] {
        let (_alice, _room, _database, backscroll) = archived(&synapse, version).await;
        assert_eq!(verdict(&backscroll, &["--offline"]).await, good("consistent"), "{version}");
        assert_eq!(verdict(&backscroll, &["--signatures"]).await, good("proved"), "{version}");
    }
}

/// With `evidence.keep`, the signed events and their keys are stored, for the time after the homeserver.
#[tokio::test]
async fn signed_events_are_kept() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "10").await;
    let kept = "select (select count(*) from archive.events where position is not null)
                       = (select count(*) from archive.evidence), (select count(*) > 0 from archive.server_keys)";
    assert_eq!(verdict(&backscroll, &["--repair", "--signatures"]).await, good("proved"));
    assert_eq!(database.rows(kept).await, [["f", "f"]]);
    let backscroll = backscroll.set("BACKSCROLL_EVIDENCE__KEEP", "true");
    assert_eq!(verdict(&backscroll, &["--repair", "--signatures"]).await, good("proved"));
    assert_eq!(database.rows(kept).await, [["t", "t"]]);
    assert_eq!(verdict(&backscroll, &["--offline"]).await, good("consistent"));
    database.run("create table saved as table archive.evidence").await;
    for damage in [
        "signed = decode(replace(encode(signed, 'hex'), encode('word 7', 'hex'), encode('word 8', 'hex')), 'hex')",
        "signed = (select signed from saved where event_id <> ONE limit 1)",
        "signed = substr(signed, 2)",
        "sender = '@mallory:localhost'",
    ] {
        let one = "(select event_id from events where content ->> 'body' = 'word 7')";
        let damage = damage.replace("ONE", one);
        database.run(&format!("update archive.evidence set {damage} where event_id = {one}")).await;
        let (code, answer, _) = verify(&backscroll, &["--offline"]).await;
        let finding = &answer["rooms"][0]["findings"][0];
        assert_eq!(
            (code, finding["kind"].as_str()),
            (Some(1), Some("evidence does not fit the event")),
            "{answer}"
        );
        assert_eq!(finding["event_id"], json!(database.value(&format!("select {one}")).await), "{damage}");
        database.run("truncate archive.evidence; insert into archive.evidence table saved").await;
    }
}

/// `verify.every`: the daemon verifies, and says so where something is wrong.
#[tokio::test]
async fn the_daemon_verifies_at_intervals() {
    let stage = Stage::new().await.set("verify.every", "1s");
    let room = stage.room(20);
    let mut daemon = stage.followed(&room).await;
    let agreeing =
        "select count(*) > 0 from verifications where verdict = 'agrees' and listed_count = event_count";
    daemon.until("it is verified", async || stage.database.value(agreeing).await == "t").await;
    let alter = "update archive.events set content = '{}'
                 where position = (select max(position) from archive.events)";
    stage.database.run(alter).await;
    daemon.says("the verification has found that something is wrong").await;
    let found = "select findings #>> '{0,kind}' from verifications where verdict = 'findings' limit 1";
    assert_eq!(stage.database.value(found).await, "hash does not fit the event");
    daemon.stop().await;
}

/// What was hidden from the account is no finding, and there is no proof either.
#[tokio::test]
async fn a_beginning_that_may_not_be_seen_is_said() {
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let visible =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let body = json!({ "preset": "public_chat", "initial_state": [visible] });
    let room = synapse.create_room(&alice, "11", body).await;
    for number in 0..10 {
        synapse.send(&alice, &room, "m.room.message", text(&format!("hidden {number}"))).await;
    }
    synapse.join(&archiver, &room).await;
    for number in 0..10 {
        synapse.send(&alice, &room, "m.room.message", text(&format!("seen {number}"))).await;
    }
    let database = TestDatabase::new().await;
    let backscroll = Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url()))
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms");
    backscroll.once().await;
    let (code, answer, outcome) = verify(&backscroll, &[]).await;
    let report = &answer["rooms"][0];
    assert_eq!((code, report["verdict"].as_str()), (Some(0), Some("agrees")), "{answer} {}", outcome.stderr);
    assert!(report["notes"].to_string().contains("may not see"), "{answer}");
}

/// A homeserver that gives no graph: its list is compared, and nothing is said to be proved.
#[tokio::test]
async fn without_a_graph_the_list_is_compared() {
    let stage = Stage::new().await;
    let room = stage.room(60);
    stage.once().await;
    assert_eq!(verdict(&stage.backscroll, &[&room]).await, good("agrees"));

    // New events may come at any time.
    stage.say(&room, "new", 3);
    let (code, answer, _) = verify(&stage.backscroll, &[&room]).await;
    assert_eq!(code, Some(1));
    assert_eq!(answer["rooms"][0]["finding_count"], 3, "{answer}");
    // What is missing is put in, in its place.
    assert_eq!(verdict(&stage.backscroll, &["--repair", &room]).await, good("agrees"));
    stage.database.run("delete from archive.events where position % 7 = 0 and state_key is null").await;
    let (code, answer, _) = verify(&stage.backscroll, &[&room]).await;
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!(verdict(&stage.backscroll, &["--repair", &room]).await, good("agrees"));
    stage.is_archived(&room).await;
    let recorded = "select string_agg(verdict || ' ' || finding_count, ',' order by verification_id) from archive.verifications";
    assert_eq!(stage.database.value(recorded).await, "agrees 0,agrees 0");
    assert_eq!(
        stage.database.value("select count(*) from archive.rooms where verified_at is not null").await,
        "1"
    );
}

/// What the homeserver has no more is listed, with the reason, and counted by `status`.
#[tokio::test]
async fn what_is_only_here_is_listed() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    stage.server.state(&room, "m.room.retention", "", r#"{"max_lifetime":86400000}"#);
    let old: Vec<String> = (0..6)
        .map(|number| stage.server.append(&room, Event::message(&format!("old {number}")).at(1_000 + number)))
        .collect();
    // Not before 2096.
    let new: Vec<String> = (0..20)
        .map(|number| stage.server.append(&room, Event::message("new").at(4_000_000_000_000 + number)))
        .collect();
    stage.server.redact(&room, &old[1]);
    stage.once().await;
    assert_eq!(stage.database.value("select count(*) from only_here").await, "0");
    stage.server.purge(&room, &new[3]);
    let reasons = "select reason || ' ' || count(*) from only_here o join events e using (room_id, event_id)
                   where e.type = 'm.room.message' group by reason order by 1";
    assert_eq!(verdict(&stage.backscroll, &[&room]).await, good("agrees"));
    assert_eq!(stage.database.column(reasons).await, Vec::<String>::new(), "verify writes nothing");
    assert_eq!(verdict(&stage.backscroll, &["--repair", &room]).await, good("agrees"));
    assert_eq!(stage.database.column(reasons).await, ["expired 5", "purged 3", "redacted 1"]);
    let status = stage.backscroll.run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let listed = stage.database.value("select count(*) from only_here").await;
    assert_eq!(status["only_here"].to_string(), listed);
}

/// Only the newest part of a room is compared.
#[tokio::test]
async fn since_a_time() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let day = |number: i64| 1_704_067_200_000 + number * 86_400_000;
    let said: Vec<String> = (0..100)
        .map(|number| stage.server.append(&room, Event::message(&format!("word {number}")).at(day(number))))
        .collect();
    stage.once().await;
    let lose = async |number: usize| {
        stage.database.run(&format!("delete from archive.events where event_id = '{}'", said[number])).await;
        stage.database.run("update archive.rooms set event_count = event_count - 1").await;
        let recount = "do $$ declare who record; begin
                           for who in select distinct room_id, sender from archive.events loop
                               perform archive.recount_activity(who.room_id, who.sender);
                           end loop;
                       end $$";
        stage.database.run(recount).await;
    };
    lose(10).await;
    // 2024-03-01 is the sixtieth day.
    let (code, answer, _) = verify(&stage.backscroll, &["--since", "2024-03-01", &room]).await;
    assert_eq!((code, &answer["rooms"][0]["verdict"]), (Some(0), &json!("agrees")), "{answer:#}");
    assert!(answer["rooms"][0]["notes"].to_string().contains("since the given time"), "{answer:#}");
    let asked = stage.server.requests("/messages").len();
    let (code, ..) = verify(&stage.backscroll, &[&room]).await;
    assert_eq!(code, Some(1));
    assert!(stage.server.requests("/messages").len() - asked > 8, "all of it");
    lose(90).await;
    let (code, answer, _) = verify(&stage.backscroll, &["--since", "2024-03-01", &room]).await;
    assert_eq!(code, Some(1));
    let findings = &answer["rooms"][0]["findings"];
    assert_eq!(findings[0]["event_id"], said[90], "{answer:#}");
    assert_eq!(findings.as_array().unwrap().len(), 1, "{answer:#}");
    let (code, _, outcome) = verify(&stage.backscroll, &["--since", "yesterday noon", &room]).await;
    assert!(code != Some(0) && !outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

/// What only arrived late has another place than on the homeserver. That is said with the remedy, which helps.
#[tokio::test]
async fn a_late_event_has_another_place() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    stage.once().await;
    let ids = stage.server.visible_ids(&room);
    let late = stage.server.insert_after(&room, &ids[10], Event::message("late"));
    stage.once().await;
    let (code, answer, _) = verify(&stage.backscroll, &[&room]).await;
    let finding = &answer["rooms"][0]["findings"][0];
    assert_eq!(code, Some(1), "{answer}");
    assert_eq!((&finding["kind"], &finding["event_id"]), (&json!("event in the wrong place"), &json!(late)));
    assert_eq!(answer["rooms"][0]["finding_count"], 1, "{answer}");
    let resequenced = stage.backscroll.run(&["resequence", &room]).await;
    assert!(resequenced.status.success(), "{}", resequenced.stderr);
    assert_eq!(verdict(&stage.backscroll, &[&room]).await, good("agrees"));
}

/// A homeserver that does not answer is no finding.
#[tokio::test]
async fn a_homeserver_that_fails_is_no_finding() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    stage.once().await;
    stage.server.inject(Fault::error(403, "M_FORBIDDEN", "not in the room").on("/messages"));
    let (code, answer, _) = verify(&stage.backscroll, &[&room]).await;
    assert_eq!((code, &answer["rooms"][0]["verdict"]), (Some(2), &json!("unclear")), "{answer}");
    stage.server.heal();
    stage.server.inject(Fault::error(401, "M_UNKNOWN_TOKEN", "who are you").on("/messages"));
    let (code, _, outcome) = verify(&stage.backscroll, &[&room]).await;
    assert_eq!(code, Some(77), "{}", outcome.stderr);
    stage.server.heal();
    let (code, _, outcome) = verify(&stage.backscroll, &["!nowhere:hs"]).await;
    assert_eq!(code, Some(64), "{}", outcome.stderr);
    let left = "select count(*) from archive.running_verifications";
    assert_eq!(stage.database.value(left).await, "0");
}
