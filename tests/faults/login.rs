//! Tokens that die, and secrets that stay secret.

use std::fs;

use crate::support::{
    archive::mentions,
    daemon::Backscroll,
    homeserver::{ALICE, Event, Fault, PASSWORD},
    port::free_port,
    stage::Stage,
};

/// 401 for the old token alone, so that the new one can be in place before.
fn revoke(stage: &Stage, token: &str) {
    let header = format!("Bearer {token}");
    let refused = Fault::error(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.");
    stage.server.inject(refused.when(move |request| request.header("authorization") == Some(&header)));
}

/// With the account's password.
fn with_password(stage: Stage) -> Stage {
    let password = stage.backscroll.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    stage.set("homeserver.user", "archive").set("homeserver.password_file", &password.display().to_string())
}

/// What passes.
fn troubles() -> [Fault; 3] {
    [Fault::bad_gateway(), Fault::too_many(&[], "100"), Fault::close()]
}

#[tokio::test]
async fn a_token_replaced_on_disk_is_taken_up() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    let mut daemon = stage.followed(&room).await;
    for round in 0..2 {
        let old = stage.server.access_token();
        stage.backscroll.write_token(&stage.server.new_access_token());
        revoke(&stage, &old);
        stage.say(&room, &format!("round {round}"), 3);
        stage.agrees_in_order(&mut daemon, &room).await;
    }
    daemon.stop().await;
}

/// The walk meets the refusal, not /sync.
#[tokio::test]
async fn a_token_replaced_during_a_walk_is_taken_up() {
    let stage = Stage::new().await;
    let room = stage.room(45);
    let old = stage.server.access_token();
    let header = format!("Bearer {old}");
    stage.backscroll.write_token(&old);
    let refused =
        Fault::error(401, "M_UNKNOWN_TOKEN", "Invalid access token passed.").on("/messages").after(2);
    stage.server.inject(refused.when(move |request| request.header("authorization") == Some(&header)));
    stage.server.inject(Fault::delay(std::time::Duration::from_millis(300)).on("/messages"));
    let mut daemon = stage.backscroll.start(&["run", "--once"]);
    stage.server.has_been_asked("/messages", 1).await;
    stage.backscroll.write_token(&stage.server.new_access_token());
    revoke(&stage, &old);
    assert!(daemon.wait().await.success(), "{}", daemon.stderr());
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_password_logs_in_again_with_the_same_device() {
    for soft in [true, false] {
        let stage = with_password(Stage::new().await).set("homeserver.access_token_file", "");
        let room = stage.room(25);
        let mut daemon = stage.followed(&room).await;
        stage.server.log_out(soft);
        stage.say(&room, "after the logout", 3);
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
        let logins = stage.server.requests("/login");
        assert_eq!(logins.len(), 2);
        assert!(logins[1].body.contains(r#""device_id":"MODEL""#), "the same device");
    }
}

#[tokio::test]
async fn a_login_that_fails_for_a_moment_is_tried_again() {
    for trouble in troubles() {
        let stage = with_password(Stage::new().await).set("homeserver.access_token_file", "");
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        stage.server.inject(trouble.on("/login").times(2));
        stage.server.log_out(true);
        stage.say(&room, "after the logout", 3);
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// A server in trouble may refuse a token that works.
#[tokio::test]
async fn a_server_that_cannot_say_whether_the_token_works_is_asked_again() {
    for trouble in troubles() {
        let stage = Stage::new().await;
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        let asked = stage.server.requests("/whoami").len();
        stage.server.inject(trouble.on("/whoami").times(2));
        stage.server.inject(Fault::error(401, "M_UNKNOWN_TOKEN", "Token is not active").on("/sync").times(3));
        stage.say(&room, "ends the request that waits", 1);
        let asks = async || stage.server.requests("/whoami").len() >= asked + 3;
        daemon.until("it has asked again", asks).await;
        stage.say(&room, "after", 3);
        stage.agrees_in_order(&mut daemon, &room).await;
        daemon.stop().await;
    }
}

/// What a person reads when no token works any more.
fn is_a_remedy(stderr: &str, token: &str) {
    let last = stderr.lines().rfind(|line| line.starts_with("backscroll:")).unwrap_or_default();
    assert!(last.contains("token"), "{stderr}");
    assert!(stderr.contains("backscroll login"), "the remedy is named: {stderr}");
    assert!(!stderr.contains(token), "{stderr}");
}

#[tokio::test]
async fn a_token_that_works_no_more_ends_with_77() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let token = stage.server.access_token();
    let mut daemon = stage.followed(&room).await;
    stage.server.log_out(false);
    assert_eq!(daemon.wait().await.code(), Some(77), "{}", daemon.stderr());
    is_a_remedy(&daemon.stderr(), &token);
    for arguments in [&["run"][..], &["run", "--once"], &["backfill", &room]] {
        let refused = stage.backscroll.run(arguments).await;
        assert_eq!(refused.status.code(), Some(77), "{}", refused.stderr);
        is_a_remedy(&refused.stderr, &token);
    }

    stage.backscroll.write_token(&stage.server.new_access_token());
    stage.once().await;
    stage.is_archived(&room).await;
}

/// About a minute: the only test of this length.
#[tokio::test]
async fn a_homeserver_that_is_away_ends_a_single_run_with_69() {
    let stage = Stage::new().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let backscroll = Backscroll::new(&nowhere, "token", Some(stage.database.url()));
    let outcome = backscroll.run(&["run", "--once"]).await;
    assert_eq!(outcome.status.code(), Some(69), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("reach the homeserver"), "{}", outcome.stderr);
    let tries = outcome.stderr.matches("trying again").count();
    assert!((2..8).contains(&tries), "{tries} lines: {}", outcome.stderr);
}

#[tokio::test]
async fn no_secret_leaves_by_log_arguments_or_database() {
    no_secret_leaves("json").await;
}

#[tokio::test]
async fn no_secret_leaves_by_a_log_for_people() {
    no_secret_leaves("pretty").await;
}

async fn no_secret_leaves(format: &str) {
    const BODY: &str = "canary-in-a-body";
    // The libraries too, which are quiet unless they are named.
    const LEVEL: &str =
        "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,sqlx=trace,tokio=trace";
    let stage = Stage::new().await;
    let room = stage.server.create_room("10");
    let stage = with_password(stage).set("log.level", LEVEL).set("log.format", format);
    for number in 0..25 {
        stage.server.message(&room, ALICE, &format!("{BODY} {number}"));
    }
    stage.server.append(&room, Event::state("m.room.topic", "", format!(r#"{{"topic":"{BODY}"}}"#)));
    stage.server.append_raw(
        &room,
        "quarantine",
        format!(r#"{{"event_id":7,"content":{{"body":"{BODY}"}}}}"#),
    );
    stage.server.append_raw(
        &room,
        "nul",
        format!(r#"{{"event_id":"$nul","type":"m","sender":"{ALICE}","content":{{"b":"{BODY}\u0000"}}}}"#),
    );
    // Every error that could quote what it failed on.
    for fault in [Fault::json_prefix(900), Fault::cut_body(), Fault::change(|reply| reply.body.push(b'}'))] {
        stage.server.inject(fault.on("/messages").after(1).times(1));
    }
    let first = stage.server.access_token();
    let mut daemon = stage.follow();
    let last = "select count(*) from archive.walks where state = 'done'";
    daemon.until("the history is there", async || stage.database.value(last).await == "1").await;
    stage.server.log_out(true);
    let live = stage.server.message(&room, ALICE, BODY);
    let sql = format!("select count(*) from events where event_id = '{live}'");
    daemon.until("it has logged in again", async || stage.database.value(&sql).await == "1").await;

    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    let second = stage.server.access_token();
    assert_ne!(first, second);
    let log = daemon.stderr();
    daemon.stop().await;
    assert!(log.contains("TRACE"), "at trace level");
    for secret in [first.as_str(), second.as_str(), PASSWORD] {
        assert!(!arguments.contains(secret), "in the arguments");
        assert_eq!(log.lines().find(|line| line.contains(secret)), None, "in the log");
        assert_eq!(mentions(&stage.database, secret).await, [""; 0], "in the database");
    }
    assert_eq!(log.lines().find(|line| line.contains(BODY)), None, "event content is never logged");
    assert!(!mentions(&stage.database, BODY).await.is_empty(), "it is in the archive");
}
