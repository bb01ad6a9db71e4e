//! Refusals: a single one proves nothing, and what is refused for long costs no more than it must.

use std::{collections::BTreeSet, fs};

use crate::support::{
    daemon::Daemon,
    homeserver::{ALICE, Fault},
    stage::Stage,
};

/// Longer than any test takes: nothing that is refused meanwhile is believed.
const FOR_LONG: &str = "1h";

/// What a server or a proxy before it may say for a moment.
fn passing() -> Vec<(&'static str, Fault)> {
    let html = |status| Fault::reply(status, &[("Content-Type", "text/html")], "<html>no</html>");
    vec![
        ("403", Fault::forbidden()),
        ("403 by another code", Fault::error(403, "M_CONSENT_NOT_GIVEN", "Consent first")),
        ("404", Fault::error(404, "M_NOT_FOUND", "No such thing")),
        ("404, as by a wrong route", Fault::error(404, "M_UNRECOGNIZED", "Unrecognized request")),
        ("405", Fault::error(405, "M_UNRECOGNIZED", "Unrecognized request")),
        ("413", Fault::error(413, "M_TOO_LARGE", "Request too large")),
        ("400", Fault::error(400, "M_UNKNOWN", "Bad request")),
        ("401 by another code", Fault::error(401, "M_UNAUTHORIZED", "Unauthorized")),
        ("a token's code with another status", Fault::error(500, "M_UNKNOWN_TOKEN", "Oops")),
        ("409", Fault::error(409, "M_UNKNOWN", "Conflict")),
        ("431", html(431)),
        ("403 by a proxy", html(403)),
        ("a redirect", Fault::reply(307, &[("Location", "https://login.example.org/")], "")),
        ("an empty object", Fault::reply(200, &[], "{}")),
    ]
}

#[tokio::test]
async fn a_passing_refusal_of_sync_costs_nothing() {
    let stage = Stage::new().await.set("homeserver.patience", FOR_LONG);
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    for (what, fault) in passing() {
        let before = stage.server.requests("/sync").len();
        stage.server.inject(fault.on("/sync").times(2));
        stage.server.message(&room, ALICE, "ends the request that waits");
        let asked = || stage.server.requests("/sync").split_off(before);
        daemon.until(what, async || asked().len() >= 3).await;
        let since: BTreeSet<_> =
            asked()[..3].iter().map(|asked| asked.query("since").map(str::to_owned)).collect();
        assert_eq!(since.len(), 1, "{what}: the same again");
        let said = stage.server.message(&room, ALICE, what);
        let sql = format!("select count(*) from events where event_id = '{said}'");
        daemon.until(what, async || stage.database.value(&sql).await == "1").await;
        assert_eq!(stage.database.value("select count(*) from gaps").await, "0", "{what}");
    }
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_passing_refusal_at_the_start_ends_no_run() {
    let stage = Stage::new().await.set("homeserver.patience", FOR_LONG);
    let room = stage.room(5);
    let mut faults = passing().into_iter();
    while let Some((what, fault)) = faults.next() {
        stage.server.inject(fault.on("/whoami").times(1));
        if let Some((_, other)) = faults.next() {
            stage.server.inject(other.on("/whoami").times(1));
        }
        let asked = stage.server.requests("/whoami").len();
        stage.once().await;
        assert!(stage.server.requests("/whoami").len() > asked + 1, "{what}");
    }
    stage.is_archived(&room).await;
}

#[tokio::test]
async fn a_passing_refusal_of_a_page_is_asked_again() {
    let stage = Stage::new().await.set("homeserver.patience", FOR_LONG).set("backfill.concurrency", "32");
    let mut rooms = Vec::new();
    for (what, fault) in passing() {
        let room = stage.room(25);
        stage.server.inject(fault.on("/messages").in_room(&room).after(1).times(1));
        rooms.push((room, what));
    }
    stage.once().await;
    for (room, what) in rooms {
        assert_eq!(stage.difference(&room).await, None, "{what}");
        let walk = format!(
            "select restarted, stalls from archive.walks join archive.rooms using (room_id)
             where room_id = '{room}' and kind = 'history'"
        );
        assert_eq!(stage.database.rows(&walk).await, [["f", "0"]], "{what}");
    }
}

/// `homeserver_error` of `backscroll status --json`.
async fn shown(stage: &Stage) -> serde_json::Value {
    let status = stage.backscroll.run(&["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    status["homeserver_error"].clone()
}

async fn is_refused_for_long(daemon: &mut Daemon, stage: &Stage) {
    daemon
        .until("it says so", async || {
            shown(stage).await.as_str().is_some_and(|error| error.contains("M_FORBIDDEN"))
        })
        .await;
    let asked = stage.server.requests("/sync").len();
    daemon.until("it goes on", async || stage.server.requests("/sync").len() >= asked + 3).await;
    assert!(daemon.stderr().contains("trying again"), "{}", daemon.stderr());
}

#[tokio::test]
async fn a_sync_that_is_refused_for_long_is_asked_on_and_said() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    stage.server.inject(Fault::forbidden().on("/sync"));
    stage.say(&room, "meanwhile", 3);
    is_refused_for_long(&mut daemon, &stage).await;
    let page = stage.backscroll.run(&["status"]).await;
    assert!(page.stdout.contains("No answer from the homeserver, first "), "{}", page.stdout);
    stage.server.heal();
    let sql = "select count(*) from messages where body like 'meanwhile %'";
    daemon.until("it follows", async || stage.database.value(sql).await == "3").await;
    let sql = "select homeserver_error is null from archive.accounts";
    daemon.until("it is well again", async || stage.database.value(sql).await == "t").await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
    daemon.stop().await;
}

/// Not the token is refused but everything: without it nothing would be better.
#[tokio::test]
async fn since_is_kept_where_every_sync_is_refused() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    let since = || stage.database.value("select since from archive.accounts");
    stage.server.inject(Fault::error(400, "M_UNKNOWN", "Bad request").on("/sync"));
    stage.say(&room, "meanwhile", 3);
    let without =
        || stage.server.requests("/sync").iter().filter(|asked| asked.query("since").is_none()).count();
    let before = without();
    daemon.until("it has asked whether it is the token", async || without() > before).await;
    let kept = since().await;
    daemon.until("it has asked again", async || without() >= before + 2).await;
    assert_eq!(since().await, kept);
    stage.server.heal();
    let sql = "select count(*) from messages where body like 'meanwhile %'";
    daemon.until("it follows", async || stage.database.value(sql).await == "3").await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
    daemon.stop().await;
}

#[tokio::test]
async fn once_ends_where_every_sync_is_refused() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.once().await;
    for (fault, code) in [
        (Fault::forbidden(), 77),
        (Fault::error(404, "M_UNRECOGNIZED", "Unrecognized request"), 69),
        (Fault::error(400, "M_UNKNOWN", "Bad request"), 69),
    ] {
        stage.server.inject(fault.on("/sync"));
        let outcome = stage.backscroll.run(&["run", "--once"]).await;
        assert_eq!(outcome.status.code(), Some(code), "{}", outcome.stderr);
        stage.server.heal();
    }
    stage.once().await;
    stage.is_archived(&room).await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
}

#[tokio::test]
async fn a_deactivated_account_ends_with_77() {
    for status in [401, 403] {
        let stage = Stage::new().await;
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        stage.server.inject(Fault::error(status, "M_USER_DEACTIVATED", "This account has been deactivated"));
        stage.server.message(&room, ALICE, "ends the request that waits");
        assert_eq!(daemon.wait().await.code(), Some(77), "{}", daemon.stderr());
        assert!(daemon.stderr().contains("deactivated"), "{}", daemon.stderr());
    }
}

/// A refused password is believed as late as any other refusal, and then the daemon has nothing to ask with.
#[tokio::test]
async fn a_password_that_is_refused_again_and_again_ends_with_77() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let password = stage.backscroll.path().join("password");
    fs::write(&password, "wrong").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let stage = stage
        .set("homeserver.user", "archive")
        .set("homeserver.password_file", &password.display().to_string())
        .set("homeserver.access_token_file", "");
    let outcome = stage.backscroll.run(&["run"]).await;
    assert_eq!(outcome.status.code(), Some(77), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("user or password"), "{}", outcome.stderr);
    assert!(stage.server.requests("/login").len() >= 4, "not at the first refusal");

    fs::write(&password, crate::support::homeserver::PASSWORD).unwrap();
    stage.server.inject(Fault::forbidden().on("/login").times(2));
    stage.once().await;
    stage.is_archived(&room).await;
}

/// The token file may be away for a moment while another is put in its place.
#[tokio::test]
async fn a_token_file_that_is_away_for_a_moment_ends_nothing() {
    let stage = Stage::new().await.set("homeserver.patience", FOR_LONG);
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    fs::remove_file(stage.backscroll.token_file()).unwrap();
    stage.server.log_out(false);
    stage.say(&room, "ends the request that waits", 1);
    let asked = stage.server.requests("/whoami").len();
    let looks = async || stage.server.requests("/whoami").len() >= asked + 2;
    daemon.until("it has looked for the file", looks).await;
    stage.backscroll.write_token(&stage.server.new_access_token());
    stage.say(&room, "after", 3);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_stalled_walk_is_tried_again_by_the_running_daemon() {
    for refusal in [
        Fault::error(405, "M_UNRECOGNIZED", "Unrecognized request"),
        Fault::error(401, "M_UNAUTHORIZED", "Unauthorized"),
        Fault::error(413, "M_TOO_LARGE", "Request too large"),
    ] {
        let stage = Stage::new().await;
        let (room, other) = (stage.room(25), stage.room(5));
        stage.server.inject(refusal.on("/messages").in_room(&room).after(1));
        let mut daemon = stage.followed(&other).await;
        let stalls = "select coalesce(max(stalls), 0) from archive.walks";
        daemon
            .until("it has stalled twice", async || {
                stage.database.value(stalls).await.parse::<u32>().unwrap() >= 2
            })
            .await;
        assert_eq!(stage.history(&room).await, "stalled");
        assert!(stage.reason(&room).await.contains("M_"), "{}", stage.reason(&room).await);
        stage.server.heal();
        stage.agrees_in_order(&mut daemon, &room).await;
        assert_eq!(stage.database.value(stalls).await, "0", "it has found something new");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn when_a_stalled_walk_is_due_outlives_the_daemon() {
    let stage = Stage::new().await;
    let room = stage.room(25);
    stage.server.inject(Fault::error(405, "M_UNRECOGNIZED", "no").on("/messages"));
    for expected in 1..=3 {
        stage.once_with_stalled_rooms().await;
        let walk = "select stalls, round(extract(epoch from not_before - updated_at)) from archive.walks";
        let pause = 1 << (expected - 1);
        assert_eq!(stage.database.rows(walk).await, [[expected.to_string(), pause.to_string()]]);
        assert_eq!(stage.history(&room).await, "stalled");
    }
}
