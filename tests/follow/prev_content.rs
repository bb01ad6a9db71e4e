//! What a state event replaced, where only the event itself says so, as in the old client-server API.

use crate::support::{
    archive::{mentions, updated_rows},
    homeserver::ALICE,
    stage::Stage,
};

const SECRET: &str = "hunter2";

/// A topic that says at its top level what it replaced, and names no event.
fn old_topic(stage: &Stage, room: &str, id: &str, unsigned: &str) {
    let event = format!(
        r#"{{"event_id":"{id}","type":"m.room.topic","state_key":"","sender":"{ALICE}","origin_server_ts":5,
            "content":{{"topic":"{id}"}},"prev_content":{{"topic":"{SECRET}"}},"unsigned":{unsigned}}}"#
    );
    stage.server.append_raw(room, id, event);
}

async fn before(stage: &Stage, id: &str) -> String {
    let sql = format!(
        "select coalesce(prev_content ->> 'topic', '-') || ' ' || coalesce(prev_source, '-')
         from state_history where event_id = '{id}'"
    );
    stage.database.value(&sql).await
}

#[tokio::test]
async fn what_only_the_event_says_counts_least() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    old_topic(&stage, &room, "$first", "{}");
    old_topic(&stage, &room, "$second", "{}");
    old_topic(&stage, &room, "$third", r#"{"prev_content":{"topic":"served"},"replaces_state":"$gone"}"#);
    old_topic(&stage, &room, "$fourth", r#"{"replaces_state":"$first"}"#);
    stage.once().await;
    assert_eq!(before(&stage, "$first").await, format!("{SECRET} top level"));
    assert_eq!(before(&stage, "$second").await, "$first order");
    assert_eq!(before(&stage, "$third").await, "served served");
    assert_eq!(before(&stage, "$fourth").await, "$first replaces_state");
    let updated = updated_rows(&stage.database).await;
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(updated_rows(&stage.database).await, updated, "archiving again changes nothing");
    assert_eq!(before(&stage, "$first").await, format!("{SECRET} top level"));
    stage.read_all_views().await;
}

/// Nothing says whose content it is: whatever is redacted of that key, or is not known, may be.
#[tokio::test]
async fn what_was_redacted_does_not_come_back_by_it() {
    for is_known in [true, false] {
        let stage = Stage::new().await;
        // From version 3 on servers tell of no redaction of what they do not know.
        let room = stage.server.create_room("1");
        let target = if is_known {
            stage.server.state(&room, "m.room.topic", "", &format!(r#"{{"topic":"{SECRET}"}}"#))
        } else {
            "$unknown".to_owned()
        };
        old_topic(&stage, &room, "$first", "{}");
        stage.once().await;
        assert!(mentions(&stage.database, SECRET).await.contains(&"unnamed_prev_content".to_owned()));
        stage.server.redact(&room, &target);
        stage.once().await;
        assert_eq!(mentions(&stage.database, SECRET).await, [""; 0], "{is_known}");
        old_topic(&stage, &room, "$second", "{}");
        stage.once().await;
        let again = stage.backscroll.run(&["backfill", &room]).await;
        assert!(again.status.success(), "{}", again.stderr);
        assert_eq!(mentions(&stage.database, SECRET).await, [""; 0], "{is_known}");
    }
}

#[tokio::test]
async fn an_erased_users_words_do_not_come_back_by_it() {
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    stage.server.state(&room, "m.room.topic", "", r#"{"topic":"before"}"#);
    old_topic(&stage, &room, "$first", "{}");
    stage.once().await;
    assert!(!mentions(&stage.database, SECRET).await.is_empty());
    let erased = stage.backscroll.run(&["erase", "--user", ALICE]).await;
    assert!(erased.status.success(), "{}", erased.stderr);
    stage.once().await;
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(mentions(&stage.database, SECRET).await, [""; 0]);
}
