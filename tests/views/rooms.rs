//! `rooms`: names, topics, avatars, creators.

use serde_json::{Value, json};

use super::{CAROL, NULL, set};
use crate::support::{
    homeserver::{ALICE, ARCHIVER, BOB, Event},
    stage::Stage,
};

async fn shown(stage: &Stage, room: &str, columns: &str) -> Vec<String> {
    stage.database.rows(&format!("select {columns} from rooms where room_id = '{room}'")).await.concat()
}

fn put(stage: &Stage, room: &str, kind: &str, content: &Value) {
    set(stage, room, ALICE, kind, "", content);
}

#[tokio::test]
async fn a_field_without_a_usable_value_is_none() {
    let stage = Stage::new().await;
    let columns = "name, canonical_alias, topic, avatar_url, room_type, pinned_events";
    let good = stage.room(0);
    put(&stage, &good, "m.room.name", &json!({ "name": "A name" }));
    put(
        &stage,
        &good,
        "m.room.canonical_alias",
        &json!({ "alias": "#alias:model.test", "alt_aliases": ["#alt:model.test"] }),
    );
    put(&stage, &good, "m.room.topic", &json!({ "topic": "A topic" }));
    put(&stage, &good, "m.room.avatar", &json!({ "url": "mxc://hs/room", "info": {} }));
    put(&stage, &good, "m.room.pinned_events", &json!({ "pinned": ["$b", 7, "$a"] }));
    let mut bad = Vec::new();
    for value in [json!(""), json!(" \u{200b}"), json!(7), json!(null), json!(["a"]), json!({ "a": "b" })] {
        let room = stage.room(0);
        put(&stage, &room, "m.room.name", &json!({ "name": value }));
        put(
            &stage,
            &room,
            "m.room.canonical_alias",
            &json!({ "alias": value, "alt_aliases": ["#alt:model.test"] }),
        );
        // Rich text alone is no topic.
        put(
            &stage,
            &room,
            "m.room.topic",
            &json!({ "topic": value, "m.topic": { "m.text": [{ "body": "rich" }] } }),
        );
        put(&stage, &room, "m.room.avatar", &json!({ "url": value }));
        put(&stage, &room, "m.room.pinned_events", &json!({ "pinned": "$a" }));
        bad.push(room);
    }
    let emptied = stage.room(0);
    for kind in
        ["m.room.name", "m.room.canonical_alias", "m.room.topic", "m.room.avatar", "m.room.pinned_events"]
    {
        put(
            &stage,
            &emptied,
            kind,
            &json!({ "name": "before", "topic": "before", "alias": "#before:hs", "url": "mxc://hs/before",
                "pinned": ["$a"] }),
        );
        put(&stage, &emptied, kind, &json!({}));
    }
    bad.push(emptied);
    let rich = stage.room(0);
    put(
        &stage,
        &rich,
        "m.room.topic",
        &json!({ "topic": "old",
            "m.topic": { "m.text": [{ "mimetype": "text/html", "body": "<i>new</i>" },
                { "body": "new" }] } }),
    );
    stage.once().await;
    assert_eq!(
        shown(&stage, &good, columns).await,
        ["A name", "#alias:model.test", "A topic", "mxc://hs/room", NULL, "{$b,$a}"]
    );
    for room in &bad {
        assert_eq!(shown(&stage, room, columns).await, [NULL; 6]);
        assert_eq!(shown(&stage, room, "display_name").await, ["Empty Room"]);
        stage.is_archived(room).await;
    }
    assert_eq!(shown(&stage, &rich, "topic").await, ["new"]);
}

/// Specification, "Calculating the display name for a room".
#[tokio::test]
async fn a_room_without_a_name_is_called_by_its_members() {
    let stage = Stage::new().await;
    let join = |room: &str, user: &str, name: &str| {
        let content = json!({ "membership": "join", "displayname": name }).to_string();
        stage.server.append(room, Event::state("m.room.member", user, content).from(user));
    };
    let go = |room: &str, user: &str, membership: &str| {
        let content = json!({ "membership": membership }).to_string();
        stage.server.append(room, Event::state("m.room.member", user, content));
    };
    let others = |room: &str, count: usize| {
        for number in 0..count {
            join(room, &format!("@user{number}:model.test"), &format!("User {number}"));
        }
    };
    let mut cases = Vec::new();
    let mut case = |expected: &'static str, fill: &dyn Fn(&str)| {
        let room = stage.server.create_room("10");
        fill(&room);
        cases.push((room, expected));
    };
    case("Empty Room", &|_| ());
    case("Alice", &|room| join(room, ALICE, "Alice"));
    case("Alice and Bob", &|room| {
        join(room, ALICE, "Alice");
        join(room, BOB, "Bob");
    });
    case("User 0, User 1, and User 2", &|room| others(room, 3));
    case("User 0, User 1, User 2, User 3, and User 4", &|room| others(room, 5));
    case("User 0, User 1, User 2, User 3, User 4, and 1 other", &|room| others(room, 6));
    case("User 0, User 1, User 2, User 3, User 4, and 4 others", &|room| others(room, 9));
    // Invited members count, those who knock or are gone do not; names alike are distinguished.
    case("Sam (@alice:model.test) and Sam (@bob:model.test)", &|room| {
        join(room, ALICE, "Sam");
        go(room, BOB, "invite");
        let invite = json!({ "membership": "invite", "displayname": "Sam" }).to_string();
        stage.server.append(room, Event::state("m.room.member", BOB, invite));
        go(room, CAROL, "knock");
        join(room, "@gone:model.test", "Gone");
        go(room, "@gone:model.test", "leave");
    });
    case("@alice:model.test", &|room| go(room, ALICE, "join"));
    case("Empty Room (was Alice)", &|room| {
        join(room, ALICE, "Alice");
        go(room, ALICE, "leave");
    });
    case("Empty Room (was User 0, User 1, User 2, User 3, User 4, and 2 others)", &|room| {
        others(room, 7);
        for number in 0..7 {
            go(room, &format!("@user{number}:model.test"), "ban");
        }
    });
    case("#alias:model.test", &|room| {
        join(room, ALICE, "Alice");
        put(&stage, room, "m.room.name", &json!({ "name": "" }));
        put(&stage, room, "m.room.canonical_alias", &json!({ "alias": "#alias:model.test" }));
    });
    case("Alice", &|room| {
        join(room, ALICE, "Alice");
        put(
            &stage,
            room,
            "m.room.canonical_alias",
            &json!({ "alias": "no alias", "alt_aliases": ["#alt:model.test"] }),
        );
    });
    case("A name", &|room| {
        put(&stage, room, "m.room.name", &json!({ "name": "A name" }));
        put(&stage, room, "m.room.canonical_alias", &json!({ "alias": "#alias:model.test" }));
    });
    stage.once().await;
    for (room, expected) in &cases {
        assert_eq!(shown(&stage, room, "display_name").await, [*expected]);
    }
}

#[tokio::test]
async fn creators_are_named_by_the_room_version() {
    let stage = Stage::new().await;
    let content =
        json!({ "creator": BOB, "additional_creators": [CAROL, 7, ARCHIVER, CAROL], "type": "m.space" });
    let created = |version: &str, content: &Value| {
        let mut content = content.clone();
        content["room_version"] = json!(version);
        stage.server.create_room_of(version, ARCHIVER, &content.to_string())
    };
    let mut expected = Vec::new();
    for (version, creators) in
        [("1", BOB), ("10", BOB), ("11", ARCHIVER), ("12", "@archive:model.test,@carol:model.test")]
    {
        expected.push((created(version, &content), creators));
        let mistyped = json!({ "creator": 7, "additional_creators": "@carol:model.test" });
        expected.push((created(version, &mistyped), ARCHIVER));
    }
    stage.once().await;
    for (room, creators) in &expected {
        let first = creators.split(',').next().unwrap();
        assert_eq!(
            shown(&stage, room, "creator, creators").await,
            [first.to_owned(), format!("{{{creators}}}")]
        );
    }
    assert_eq!(shown(&stage, &expected[0].0, "room_type").await, ["m.space"]);
}

/// Stripped state is all that there is of a room to which the account is invited.
#[tokio::test]
async fn an_invite_shows_the_name_that_comes_with_it() {
    let stage = Stage::new().await;
    let named = stage.server.create_room_by("10", ALICE);
    put(&stage, &named, "m.room.name", &json!({ "name": "Come in" }));
    let nameless = stage.server.create_room_by("10", ALICE);
    for room in [&named, &nameless] {
        stage.server.invite(room, ARCHIVER);
    }
    let mut daemon = stage.follow();
    let invited = "select count(*) from rooms where membership = 'invite'";
    daemon.until("both are invites", async || stage.database.value(invited).await == "2").await;
    assert_eq!(shown(&stage, &named, "name, display_name").await, ["Come in", "Come in"]);
    assert_eq!(shown(&stage, &nameless, "name, display_name").await, [NULL, ALICE]);
    // Once it is in, the room's own state counts.
    put(&stage, &named, "m.room.name", &json!({ "name": "" }));
    stage.server.join(&named, ARCHIVER);
    daemon.until("it is in", async || shown(&stage, &named, "membership").await == ["join"]).await;
    stage.agrees(&mut daemon, &named).await;
    assert_eq!(shown(&stage, &named, "name, display_name").await, [NULL, ALICE]);
    daemon.stop().await;
}

#[tokio::test]
async fn an_upgrade_links_two_rooms_that_name_each_other() {
    let stage = Stage::new().await;
    let old = stage.server.create_room("10");
    let new = stage.server.upgrade(&old, "12");
    let mistyped = stage.room(0);
    put(&stage, &mistyped, "m.room.tombstone", &json!({ "replacement_room": [new] }));
    stage.once().await;
    assert_eq!(shown(&stage, &old, "predecessor, successor").await, [NULL, &new]);
    assert_eq!(shown(&stage, &new, "predecessor, successor").await, [&old, NULL]);
    assert_eq!(shown(&stage, &mistyped, "predecessor, successor").await, [NULL, NULL]);
}
