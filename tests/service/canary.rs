//! A secret and people's words, planted, and looked for wherever they have no business.

use std::{fs, path::PathBuf, process::Command};

use super::{get, listening, until_ready};
use crate::support::{
    homeserver::{ALICE, Event, Fault},
    stage::Stage,
};

/// What libraries say, too.
const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,sqlx=trace,tokio=trace";
/// In everything that people write.
const WORDS: &str = "canary-of-people";

fn pg_dump(stage: &Stage) -> String {
    let given = std::env::var_os("BACKSCROLL_POSTGRES_BIN").map(|bin| PathBuf::from(bin).join("pg_dump"));
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.map(|entry| entry.path().join("bin/pg_dump")).filter(|path| path.exists()).max();
    let program = given.or(debian).unwrap_or_else(|| "pg_dump".into());
    let output = Command::new(program).arg(stage.database.url()).output().expect("pg_dump runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn plant(stage: &Stage, room: &str, when: &str) {
    stage.server.message(room, ALICE, &format!("{WORDS} {when}"));
    stage.server.state(room, "m.room.topic", "", &format!(r#"{{"topic":"{WORDS} {when}"}}"#));
    stage.server.state(room, "m.room.name", "", &format!(r#"{{"name":"{WORDS} {when}"}}"#));
    stage.server.append(room, Event::message(&format!("{WORDS} \\u0000 {when}")));
    // An event that cannot be read as one.
    stage.server.append_raw(
        room,
        &format!("$bad-{when}"),
        format!(r#"{{"type":7,"content":{{"body":"{WORDS}"}}}}"#),
    );
}

#[tokio::test]
async fn neither_secrets_nor_words_are_where_they_have_no_business() {
    let (stage, address) = listening().await;
    let stage = stage.set("log.level", EVERYTHING);
    let token = stage.server.access_token();
    assert!(token.len() > 8, "{token}: too short to be looked for");
    let room = stage.room(25);
    plant(&stage, &room, "in history");
    let mut daemon = stage.follow();
    until_ready(&mut daemon, address).await;
    let arguments = fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    stage.server.inject(Fault::json_prefix(2000).on("/sync").times(1));
    plant(&stage, &room, "live");
    stage.server.inject(Fault::error(400, "M_UNKNOWN", "no").on("/messages").times(1));
    plant(&stage, &room, "after errors");
    // The walk as well, whose lines name the room.
    let seen = format!(
        "select count(*) from events, archive.walks
         where content ->> 'body' = '{WORDS} after errors' and kind = 'history' and state = 'done'"
    );
    daemon.until("all is stored", async || stage.database.value(&seen).await == "1").await;
    let (_, metrics) = get(address, "/metrics").unwrap();
    let (_, ready) = get(address, "/readyz").unwrap();
    stage.server.log_out(false);
    stage.server.message(&room, ALICE, "wakes the sync");
    assert_eq!(daemon.wait().await.code(), Some(77), "{}", daemon.stderr());
    let log = daemon.stderr();
    let checked = stage.backscroll.run(&["check"]).await;
    let shown = stage.backscroll.run(&["config", "show"]).await;
    let dump = pg_dump(&stage);

    assert!(log.contains(r#""level":"TRACE""#) && log.contains(&room), "the log is that of this run");
    assert!(dump.contains(WORDS) && dump.contains(&room), "the dump is that of this archive");
    let everywhere = [
        ("the log", log.as_str()),
        ("/metrics", &metrics),
        ("/readyz", &ready),
        ("the arguments", &String::from_utf8_lossy(&arguments)),
        ("check", &(checked.stdout + &checked.stderr)),
        ("config show", &(shown.stdout + &shown.stderr)),
    ];
    for (place, text) in everywhere {
        for (what, canary) in [("the token", token.as_str()), ("people's words", WORDS)] {
            let line = text.lines().find(|line| line.contains(canary));
            assert_eq!(line, None, "{what} in {place}");
        }
    }
    let line = dump.lines().find(|line| line.contains(&token));
    assert_eq!(line, None, "the token in the database");
}
