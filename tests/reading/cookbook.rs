//! Every query of the cookbook runs, and its index lists it.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::json;

use super::{edit, send, text};
use crate::support::{
    homeserver::{ALICE, BOB},
    postgres::try_rows,
    stage::Stage,
};

fn queries() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cookbook");
    let mut queries: Vec<(String, String)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    queries.sort();
    queries
}

#[tokio::test]
async fn every_query_of_the_cookbook_runs() {
    let stage = Stage::new().await;
    let room = stage.room(30);
    let say = |sender: &str, body: &str| send(&stage, &room, sender, "m.room.message", &text(body));
    let first = say(ALICE, "hello, see https://matrix.org");
    for sender in [BOB, ALICE] {
        let mut reply = text("in the thread");
        reply["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": first });
        send(&stage, &room, sender, "m.room.message", &reply);
        let mut answer = text("an answer");
        answer["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": first } });
        send(&stage, &room, sender, "m.room.message", &answer);
        let reaction =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": first, "key": "👍" } });
        send(&stage, &room, sender, "m.reaction", &reaction);
    }
    send(&stage, &room, ALICE, "m.room.message", &edit(&first, "hello again"));
    let file = json!({ "msgtype": "m.image", "body": "a.png", "url": "mxc://hs/a", "info": { "size": 12, "mimetype": "image/png" } });
    send(&stage, &room, BOB, "m.room.message", &file);
    stage.server.state(&room, "m.room.pinned_events", "", &json!({ "pinned": [first] }).to_string());
    let gone = say(BOB, "gone");
    stage.server.redact(&room, &gone);
    stage.once().await;

    // The owner asks, and a reader.
    let reader = format!("reader_{}", stage.database.value("select current_database()").await);
    let granted = stage.backscroll.run(&["grant-reader", &reader]).await;
    assert!(granted.status.success(), "{}", granted.stderr);
    let queries = queries();
    assert!(queries.len() >= 30, "{}", queries.len());
    let (mut failed, mut empty) = (Vec::new(), 0);
    for (file, query) in &queries {
        assert!(query.starts_with("-- "), "{file} begins with what it answers");
        match try_rows(stage.database.url(), query).await {
            Ok(rows) => empty += usize::from(rows.is_empty()),
            Err(error) => failed.push(format!("{file}: {error}")),
        }
        let as_reader = format!("set session authorization \"{reader}\"; {query}");
        if let Err(error) = try_rows(stage.database.url(), &as_reader).await {
            failed.push(format!("{file}, as a reader: {error}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(empty * 2 < queries.len(), "{empty} of {} found nothing", queries.len());
    stage.database.run(&format!("drop owned by \"{reader}\"; drop role \"{reader}\"")).await;
}

#[test]
fn the_index_of_the_cookbook_lists_every_query() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/cookbook/README.md");
    let index = fs::read_to_string(index).unwrap();
    let listed: BTreeSet<&str> =
        index.lines().filter_map(|line| Some(line.strip_prefix("| [`")?.split_once('`')?.0)).collect();
    let queries = queries();
    let there: BTreeSet<&str> = queries.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(listed, there);
}
