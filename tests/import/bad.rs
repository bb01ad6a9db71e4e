//! Bad files: each is named with the line or row, and changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{directory, element_file, gomuks, import, messages, offline};

/// A file of a kind that is bad: the path to import, what the error must say, and the exit code.
struct Bad {
    kind: &'static str,
    path: PathBuf,
    says: &'static [&'static str],
    code: i32,
}

fn bad(kind: &'static str, path: PathBuf, says: &'static [&'static str]) -> Bad {
    Bad { kind, path, says, code: 65 }
}

/// An export of Synapse with a good room, and one whose file has this text.
fn export(folder: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = folder.join(name);
    for (room, text) in
        [("!a:hs", b"{\"event_id\":\"$1\",\"type\":\"t\",\"sender\":\"s\"}".as_slice()), ("!b:hs", text)]
    {
        let folder = path.join("rooms").join(room);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("events"), text).unwrap();
    }
    path
}

fn file(folder: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn exports(folder: &Path) -> Vec<Bad> {
    let synapse = |path, says| bad("synapse-export", path, says);
    let nameless = folder.join("nameless");
    fs::create_dir_all(nameless.join("rooms/no-room")).unwrap();
    let empty = folder.join("empty");
    fs::create_dir(&empty).unwrap();
    vec![
        synapse(
            export(folder, "cut", b"{\"a\":1}{\"b\":[1,"),
            &["!b:hs/events", "line 1 (byte 8)", "ends in the middle"],
        ),
        synapse(
            export(folder, "garbage", b"{}\n{}\n\x00\x01"),
            &["!b:hs/events", "line 3", "here should be an event"],
        ),
        synapse(export(folder, "list", b"{}\n[1]"), &["line 2", "here should be an event"]),
        synapse(export(folder, "json", b"{}{\"a\"\n:\n1 2}"), &["line 3", "not JSON"]),
        synapse(export(folder, "text", b"{\"a\":\"\xff\"}"), &["line 1", "not UTF-8"]),
        synapse(nameless, &["no-room", "no room id"]),
        synapse(empty, &["no folder `rooms`"]),
        Bad { code: 74, ..synapse(folder.join("nowhere"), &["No such file"]) },
    ]
}

fn chats(folder: &Path) -> Vec<Bad> {
    let element = |path, says| bad("element-json", path, says);
    let whole = fs::read(element_file(folder, &messages("!r:hs", 0..3))).unwrap();
    let mut mixed = messages("!r:hs", 0..3);
    mixed[2]["room_id"] = json!("!other:hs");
    let mixed = fs::read(element_file(folder, &mixed)).unwrap();
    vec![
        element(file(folder, "e-cut", &whole[..whole.len() / 2]), &["line ", "the file ends"]),
        element(file(folder, "e-empty", b""), &["line 1", "Export chat"]),
        element(file(folder, "e-garbage", b"\x7fELF"), &["line 1", "Export chat"]),
        element(
            file(folder, "e-number", b"{\"messages\":\n[{}, 7]}"),
            &["line 2", "here should be an event"],
        ),
        element(file(folder, "e-object", b"{\"messages\":\n{}}"), &["line 2", "`messages` is no list"]),
        element(file(folder, "e-other", b"{\"a\":1}"), &["no list `messages`"]),
        element(file(folder, "e-more", b"{\"messages\":[]}\nx"), &["line 2", "follows the object"]),
        element(file(folder, "e-mixed", &mixed), &["line 27", "another room"]),
        Bad { code: 74, ..element(folder.join("nowhere.json"), &["No such file"]) },
    ]
}

async fn databases(folder: &Path) -> Vec<Bad> {
    let gomuks = |path, says| bad(gomuks::KIND, path, says);
    let place = |name: &str| {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let event =
        json!({ "event_id": "$1", "sender": "@a:hs", "type": "t", "origin_server_ts": 1, "content": {} });
    let row = gomuks::rows("!r:hs", &[event], 7);
    let mut all = vec![
        gomuks(file(folder, "g-empty", b""), &["lacks the tables"]),
        gomuks(file(folder, "g-garbage", &[b'x'; 5_000]), &["not a database"]),
        Bad { code: 74, ..gomuks(folder.join("nowhere.db"), &["No such file"]) },
    ];
    let other = place("g-other");
    gomuks::run(&other, "create table event (rowid integer primary key)").await;
    all.push(gomuks(other, &["lacks the tables"]));
    let json = place("g-json");
    gomuks::empty(&json).await;
    gomuks::run(&json, &(row.clone() + "update event set content = '{\"a\":'")).await;
    all.push(gomuks(json, &["table event, row 7", "content is not JSON"]));
    let typed = place("g-typed");
    let loose = "create table event (rowid integer primary key, room_id, event_id, sender, type, state_key,
                                     timestamp, content, unsigned, redacted_by);
                 create table timeline (rowid integer primary key, room_id, event_rowid);";
    gomuks::run(&typed, &(loose.to_owned() + &row + "update event set sender = x'00ff'")).await;
    all.push(gomuks(typed, &["table event, row 7", "column sender has another type"]));
    let cut = place("g-cut");
    gomuks::empty(&cut).await;
    let many: Vec<_> = (0..500)
        .map(|number| {
            json!({ "event_id": format!("${number}"), "sender": "@a:hs", "type": "t", "origin_server_ts": 1,
                              "content": { "body": "x".repeat(100) } })
        })
        .collect();
    let path = gomuks::run(&cut, &gomuks::rows("!r:hs", &many, 1)).await;
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    all.push(gomuks(path, &["SQLite cannot read it", "malformed"]));
    all
}

#[tokio::test]
async fn a_bad_file_is_named_with_its_line_and_changes_nothing() {
    let (_server, database, backscroll) = offline().await;
    let folder = directory();
    let mut all = exports(folder.path());
    all.extend(chats(folder.path()));
    all.extend(databases(folder.path()).await);
    for Bad { kind, path, says, code } in all {
        let outcome = import(&backscroll, kind, &path).await;
        let said = outcome.stderr.lines().last().unwrap_or_default();
        assert_eq!(outcome.status.code(), Some(code), "{}: {said}", path.display());
        for part in says {
            assert!(said.contains(part), "{}: {said:?} lacks {part:?}", path.display());
        }
        assert!(code != 65 || said.contains("nothing was imported"), "{said}");
        assert!(said.contains(path.file_name().unwrap().to_str().unwrap()), "{said}");
        let rows = "select (select count(*) from archive.rooms) + (select count(*) from archive.quarantine)";
        assert_eq!(database.value(rows).await, "0", "{}", path.display());
    }
}
