//! `backscroll erase`: nowhere in the database, and never back.

use crate::support::{
    archive::mentions,
    homeserver::{ALICE, BOB, Event},
    stage::Stage,
};

/// In every text that must vanish.
const SECRET: &str = "canary-of-erasure";

async fn erase(stage: &Stage, arguments: &[&str]) -> String {
    let outcome = stage.backscroll.run(&[&["erase"], arguments].concat()).await;
    assert!(outcome.status.success(), "{}", outcome.stderr);
    outcome.stdout
}

/// Whatever asks the server again.
async fn read_again(stage: &Stage, room: &str) {
    stage.once().await;
    let walked = stage.backscroll.run(&["backfill", room]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
}

/// Every event that can be one is there, if without its content.
async fn has_every_event(stage: &Stage, room: &str) {
    let mut visible = stage.server.visible_ids(room);
    visible.retain(|event_id| event_id != "$malformed");
    assert_eq!(stage.timeline(room).await, visible);
}

/// What Bob can leave behind, and what of it others carry on.
fn bob_speaks(stage: &Stage, room: &str) {
    let name = format!(r#"{{"membership":"join","displayname":"{SECRET}"}}"#);
    let topic = format!(r#"{{"topic":"{SECRET}"}}"#);
    stage.server.append(room, Event::state("m.room.member", BOB, name).from(BOB));
    let invite = format!(r#"{{"membership":"invite","displayname":"{SECRET}"}}"#);
    stage.server.append(room, Event::state("m.room.member", "@invited:model.test", invite).from(BOB));
    stage.server.append(room, Event::message(SECRET).from(BOB));
    stage.server.append(room, Event::message(&format!("{SECRET}\0")).from(BOB));
    stage.server.append(room, Event::state("m.room.topic", "", topic).from(BOB));
    stage.server.state(room, "m.room.topic", "", r#"{"topic":"harmless"}"#);
    let kick = format!(r#"{{"membership":"leave","reason":"{SECRET}"}}"#);
    stage.server.state(room, "m.room.member", BOB, &kick);
    let malformed = format!(r#"{{"type":7,"sender":"{BOB}","content":{{"body":"{SECRET}"}}}}"#);
    stage.server.append_raw(room, "$malformed", malformed);
    stage.server.message(room, ALICE, "stays");
}

#[tokio::test]
async fn an_erased_user_has_said_nothing() {
    for policy in ["honour", "retain"] {
        let stage = Stage::new().await.set("redactions.policy", policy);
        let room = stage.room(15);
        bob_speaks(&stage, &room);
        let redacted = stage.server.message(&room, BOB, SECRET);
        stage.once().await;
        stage.server.redact(&room, &redacted);
        stage.once().await;
        let before = mentions(&stage.database, SECRET).await;
        assert!(
            before.contains(&"events".to_owned()) && before.contains(&"quarantine".to_owned()),
            "{before:?}"
        );

        let planned = erase(&stage, &["--user", BOB, "--dry-run"]).await;
        assert_eq!(mentions(&stage.database, SECRET).await, before, "a dry run erases nothing");
        assert!(planned.contains("events") && planned.contains("quarantine"), "{planned}");
        let done = stage.backscroll.run(&["erase", "--user", BOB]).await;
        assert!(done.status.success() && done.stderr.contains("vacuum full"), "{}", done.stderr);
        let done = done.stdout;
        let counts =
            |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        assert_eq!(counts(&planned), counts(&done));
        assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);

        stage.server.message(&room, BOB, SECRET);
        bob_speaks(&stage, &room);
        read_again(&stage, &room).await;
        assert_eq!(mentions(&stage.database, SECRET).await, [""; 0], "nothing comes back");
        has_every_event(&stage, &room).await;
        let said = "select count(*) from messages where body = 'stays'";
        assert_eq!(stage.database.value(said).await, "2", "what others said stays");
        stage.read_all_views().await;
    }
}

/// What was an edit is no message of its own afterwards, whether it was archived before or after.
#[tokio::test]
async fn an_erased_edit_is_no_message() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let message = stage.server.append(&room, Event::message("one").from(BOB));
    let edit = || {
        let content = format!(
            r#"{{"msgtype":"m.text","body":"* {SECRET}","m.new_content":{{"msgtype":"m.text","body":"{SECRET}"}},
                "m.relates_to":{{"rel_type":"m.replace","event_id":"{message}"}}}}"#
        );
        stage.server.append(&room, Event::new("m.room.message", content).from(BOB));
    };
    edit();
    stage.once().await;
    let listed =
        format!("select event_id || coalesce(body, '') || edit_count from messages where sender = '{BOB}'");
    assert_eq!(stage.database.column(&listed).await, [format!("{message}{SECRET}1")]);
    erase(&stage, &["--user", BOB]).await;
    assert_eq!(stage.database.column(&listed).await, [format!("{message}0")]);
    edit();
    read_again(&stage, &room).await;
    assert_eq!(stage.database.column(&listed).await, [format!("{message}0")]);
    let counted = format!("select sum(messages) || ' ' || sum(edits) from activity where sender = '{BOB}'");
    assert_eq!(stage.database.column(&counted).await, ["1 2"]);
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
    let verified = stage.backscroll.run(&["verify", "--offline"]).await;
    assert!(verified.status.success(), "{}{}", verified.stdout, verified.stderr);
}

/// Bob's words were never archived: the tombstone is there before them.
#[tokio::test]
async fn a_user_may_be_erased_before_they_are_met() {
    let stage = Stage::new().await;
    let other = stage.room(3);
    stage.once().await;
    erase(&stage, &["--user", BOB]).await;
    bob_speaks(&stage, &other);
    let room = stage.room(15);
    bob_speaks(&stage, &room);
    stage.say(&room, "above", 15);
    read_again(&stage, &room).await;
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
    has_every_event(&stage, &room).await;
}

#[tokio::test]
async fn an_erased_room_is_gone() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(15), stage.room(15));
    bob_speaks(&stage, &room);
    stage.once().await;
    let before = stage.stored(&other).await.len();
    erase(&stage, &["--room", &room, "--dry-run"]).await;
    assert_ne!(mentions(&stage.database, SECRET).await, [""; 0], "a dry run erases nothing");
    let done = erase(&stage, &["--room", &room]).await;
    assert!(done.contains("walks") && done.contains("current_state"), "{done}");
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);

    bob_speaks(&stage, &room);
    stage.once().await;
    let refused = stage.backscroll.run(&["backfill", &room]).await;
    assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    assert!(refused.stderr.contains("was erased"), "{}", refused.stderr);
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
    assert_eq!(stage.database.column("select room_id from rooms").await, std::slice::from_ref(&other));
    assert_eq!(stage.stored(&other).await.len(), before);
    erase(&stage, &["--room", &room]).await;
}

#[tokio::test]
async fn erasing_waits_for_no_daemon_and_guesses_no_room() {
    let stage = Stage::new().await;
    let room = stage.room(3);
    let mut daemon = stage.followed(&room).await;
    let refused = stage.backscroll.run(&["erase", "--user", BOB]).await;
    assert_eq!(refused.status.code(), Some(75), "{}", refused.stderr);
    assert!(daemon.ended().is_none());
    daemon.stop().await;
    for arguments in [&["erase"][..], &["erase", "--room", "!nowhere:hs"], &["erase", "--user", "bob"]] {
        let refused = stage.backscroll.run(arguments).await;
        assert_eq!(refused.status.code(), Some(64), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!(stage.database.value("select count(*) from archive.erasures").await, "0");
}

/// User ids of the form that the specification had once, and senders that never were user ids (specification, appendices,
/// "Historical User IDs").
#[tokio::test]
async fn a_sender_of_any_form_can_be_erased() {
    let senders = [
        "@UPPER:model.test",
        "@:model.test",
        "@a b!*?#:model.test",
        "@ü梅😀:model.test",
        "@\u{1b}[31m:model.test",
        "@tab\t:model.test",
        "@model.test",
        "model.test",
        "@a:hs:extra:8448",
        "@",
        " ",
        "",
    ];
    let stage = Stage::new().await;
    let room = stage.room(3);
    for sender in senders {
        stage.server.append(&room, Event::message(SECRET).from(sender));
        let name = format!(r#"{{"membership":"join","displayname":"{SECRET}"}}"#);
        stage.server.append(&room, Event::state("m.room.member", sender, name).from(sender));
    }
    stage.once().await;
    let said = format!("select count(*) from events where content::text like '%{SECRET}%'");
    for (left, sender) in (0..senders.len()).rev().zip(senders) {
        let table = erase(&stage, &["--user", sender]).await;
        assert!(table.contains("events"), "{sender:?}: {table}");
        assert_eq!(stage.database.value(&said).await, (2 * left).to_string(), "{sender:?}");
        stage.server.append(&room, Event::message(SECRET).from(sender));
    }
    read_again(&stage, &room).await;
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0], "nothing comes back");
    // Who is not a sender may be erased beforehand only if it can become one.
    for (user, code) in [("@Later Ü:model.test", 0), ("nobody", 64), ("@nobody", 64)] {
        let outcome = stage.backscroll.run(&["erase", "--user", user]).await;
        assert_eq!(outcome.status.code(), Some(code), "{user}: {}", outcome.stderr);
    }
}

/// PostgreSQL keeps samples of what it counts, until it counts again.
#[tokio::test]
async fn no_statistic_repeats_what_was_said() {
    let stage = Stage::new().await.set("redactions.policy", "retain");
    let room = stage.room(15);
    for _ in 0..3 {
        let redacted: Vec<_> = (0..20).map(|_| stage.server.message(&room, BOB, SECRET)).collect();
        bob_speaks(&stage, &room);
        for event_id in &redacted {
            stage.server.redact(&room, event_id);
        }
        stage.once().await;
    }
    stage.database.run("analyze").await;
    let samples = "select count(*) from pg_stats where schemaname in ('archive', 'public')
                   and concat(most_common_vals::text, histogram_bounds::text, most_common_elems::text)
                         like '%canary%'";
    assert_eq!(stage.database.value(samples).await, "0");
    let counted = "select count(*) > 10 from pg_stats where schemaname = 'archive'";
    assert_eq!(stage.database.value(counted).await, "t", "the rest is counted");
}
