//! `members`, and the names that the other views show.

use serde_json::{Value, json};

use super::{CAROL, NULL, send, set, text};
use crate::support::{
    homeserver::{ALICE, BOB},
    stage::Stage,
};

const DAVE: &str = "@dave:model.test";

fn member(stage: &Stage, room: &str, sender: &str, user: &str, content: &Value) -> String {
    set(stage, room, sender, "m.room.member", user, content)
}

fn join(stage: &Stage, room: &str, user: &str, name: &str) -> String {
    member(
        stage,
        room,
        user,
        user,
        &json!({ "membership": "join", "displayname": name, "avatar_url": format!("mxc://hs/{name}") }),
    )
}

/// `membership`, `display_name`, `avatar_url` and `shown_name`.
async fn shown(stage: &Stage, user: &str) -> Vec<String> {
    let sql = format!(
        "select membership, display_name, avatar_url, shown_name from members where user_id = '{user}'"
    );
    stage.database.rows(&sql).await.concat()
}

#[tokio::test]
async fn who_takes_a_name_away_has_none() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    join(&stage, &room, ALICE, "Alice");
    let said = send(&stage, &room, ALICE, "m.room.message", &text("hello"));
    join(&stage, &room, BOB, "Bob");
    member(
        &stage,
        &room,
        BOB,
        BOB,
        &json!({ "membership": "join", "displayname": null, "avatar_url": null }),
    );
    join(&stage, &room, CAROL, "Carol");
    member(
        &stage,
        &room,
        CAROL,
        CAROL,
        &json!({ "membership": "join", "displayname": "", "avatar_url": "" }),
    );
    join(&stage, &room, DAVE, "Dave");
    member(
        &stage,
        &room,
        DAVE,
        DAVE,
        &json!({ "membership": "join", "displayname": " \u{200b}\u{202e}",
            "avatar_url": "https://example.org/track.png" }),
    );
    let mut daemon = stage.followed(&room).await;
    for user in [BOB, CAROL, DAVE] {
        assert_eq!(shown(&stage, user).await, ["join", NULL, NULL, user]);
    }
    assert_eq!(shown(&stage, ALICE).await, ["join", "Alice", "mxc://hs/Alice", "Alice"]);
    let name = format!("select sender_name from messages where event_id = '{said}'");
    assert_eq!(stage.database.value(&name).await, "Alice");
    member(&stage, &room, ALICE, ALICE, &json!({ "membership": "join" }));
    stage.agrees(&mut daemon, &room).await;
    assert_eq!(shown(&stage, ALICE).await, ["join", NULL, NULL, ALICE]);
    assert_eq!(stage.database.value(&name).await, ALICE, "not what it was before");
    daemon.stop().await;
}

/// Kicks, bans and many leaves carry no profile.
#[tokio::test]
async fn who_is_gone_keeps_the_last_name() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let gone = |user: &str, membership: &str| {
        member(&stage, &room, ALICE, user, &json!({ "membership": membership }))
    };
    let said = join(&stage, &room, BOB, "Bob").len();
    assert_ne!(said, 0);
    let message = send(&stage, &room, BOB, "m.room.message", &text("I was here"));
    gone(BOB, "leave");
    gone(BOB, "ban");
    // The name was taken away before, so there is none to keep.
    join(&stage, &room, CAROL, "Carol");
    member(&stage, &room, CAROL, CAROL, &json!({ "membership": "join" }));
    gone(CAROL, "leave");
    gone(CAROL, "ban");
    gone(CAROL, "leave");
    // Invited and declined; a leave that has a name of its own; a name that was redacted.
    member(&stage, &room, ALICE, DAVE, &json!({ "membership": "invite", "displayname": "Dave" }));
    member(&stage, &room, DAVE, DAVE, &json!({ "membership": "leave" }));
    let [eve, frank] = ["@eve:model.test", "@frank:model.test"];
    join(&stage, &room, eve, "Eve");
    member(&stage, &room, eve, eve, &json!({ "membership": "leave", "displayname": "Eve, leaving" }));
    let redacted = join(&stage, &room, frank, "Frank");
    gone(frank, "ban");
    stage.server.redact(&room, &redacted);
    stage.once().await;
    assert_eq!(shown(&stage, BOB).await, ["ban", "Bob", "mxc://hs/Bob", "Bob"]);
    assert_eq!(shown(&stage, CAROL).await, ["leave", NULL, NULL, CAROL]);
    assert_eq!(shown(&stage, DAVE).await, ["leave", "Dave", NULL, "Dave"]);
    assert_eq!(shown(&stage, eve).await, ["leave", "Eve, leaving", "mxc://hs/Eve", "Eve, leaving"]);
    assert_eq!(shown(&stage, frank).await, ["ban", NULL, NULL, frank]);
    let name = format!("select sender_name from messages where event_id = '{message}'");
    assert_eq!(stage.database.value(&name).await, "Bob");
}

/// Two members of one name are distinguished by their ids, and only as long as there are two (specification,
/// "Calculating the display name for a user").
#[tokio::test]
async fn equal_names_are_distinguished() {
    let stage = Stage::new().await;
    let (room, other) = (stage.room(0), stage.room(0));
    join(&stage, &room, ALICE, "Sam");
    join(&stage, &room, BOB, "Sam");
    // Neither somebody who has left nor a member of another room, and not who once had the name.
    join(&stage, &room, CAROL, "Sam");
    member(&stage, &room, CAROL, CAROL, &json!({ "membership": "leave" }));
    join(&stage, &room, DAVE, "Solo");
    join(&stage, &other, BOB, "Solo");
    let said = send(&stage, &room, ALICE, "m.room.message", &text("which Sam?"));
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": "?" } });
    send(&stage, &room, BOB, "m.reaction", &reaction);
    let mut daemon = stage.followed(&room).await;
    let names = format!(
        "select shown_name from members where room_id = '{room}' and user_id like '@%:model.test'
         and display_name in ('Sam', 'Solo') order by user_id"
    );
    let sam = |user: &str| format!("Sam ({user})");
    assert_eq!(stage.database.column(&names).await, [sam(ALICE), sam(BOB), sam(CAROL), "Solo".to_owned()]);
    let sender = format!("select sender_name from messages where event_id = '{said}'");
    assert_eq!(stage.database.value(&sender).await, sam(ALICE));
    assert_eq!(stage.database.value("select sender_name from reactions").await, sam(BOB));

    join(&stage, &room, BOB, "Bob");
    stage.agrees(&mut daemon, &room).await;
    // Carol's name is that of a member, if hers no more.
    assert_eq!(stage.database.column(&names).await, ["Sam".to_owned(), sam(CAROL), "Solo".to_owned()]);
    assert_eq!(stage.database.value(&sender).await, "Sam");
    // An invited member counts, too.
    member(&stage, &room, ALICE, "@zoe:model.test", &json!({ "membership": "invite", "displayname": "Sam" }));
    stage.agrees(&mut daemon, &room).await;
    assert_eq!(stage.database.value(&sender).await, sam(ALICE));
    daemon.stop().await;
}

#[tokio::test]
async fn fields_of_other_types_are_absent() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let odd = [json!(7), json!(true), json!(["a"]), json!({ "a": "b" })];
    for (number, value) in odd.iter().enumerate() {
        let user = format!("@odd{number}:model.test");
        member(
            &stage,
            &room,
            &user,
            &user,
            &json!({ "membership": value, "displayname": value, "avatar_url": value, "reason": value }),
        );
    }
    member(
        &stage,
        &room,
        "@new:model.test",
        "@new:model.test",
        &json!({ "membership": "org.example.lurk", "displayname": "New" }),
    );
    member(&stage, &room, "@empty:model.test", "@empty:model.test", &json!({}));
    stage.once().await;
    let rows = "select membership, display_name, avatar_url, reason, shown_name = user_id from members
        where user_id like '@odd%'";
    assert_eq!(stage.database.rows(rows).await, vec![vec![NULL, NULL, NULL, NULL, "t"]; 4]);
    assert_eq!(shown(&stage, "@new:model.test").await, ["org.example.lurk", "New", NULL, "New"]);
    assert_eq!(shown(&stage, "@empty:model.test").await, [NULL, NULL, NULL, "@empty:model.test"]);
    stage.is_archived(&room).await;
}

/// Specification, `m.room.power_levels`, and of the creators room version 12.
#[tokio::test]
async fn members_have_their_power_levels() {
    let stage = Stage::new().await;
    let levels = json!({
        "users_default": 10,
        "users": { ALICE: 50, BOB: "75", CAROL: "much", DAVE: { "level": 1 }, "@archive:model.test": 100 },
    });
    let cases: [(&str, Option<&Value>, [&str; 5]); 5] = [
        ("1", Some(&levels), ["100", "50", "75", "10", "10"]),
        ("10", Some(&levels), ["100", "50", "75", "10", "10"]),
        ("12", Some(&levels), ["Infinity", "50", "75", "10", "10"]),
        ("11", None, ["100", "0", "0", "0", "0"]),
        ("12", None, ["Infinity", "0", "0", "0", "0"]),
    ];
    for (version, levels, expected) in cases {
        let room = stage.server.create_room(version);
        for user in [ALICE, BOB, CAROL, DAVE] {
            stage.server.join(&room, user);
        }
        match levels {
            Some(levels) => _ = set(&stage, &room, ALICE, "m.room.power_levels", "", levels),
            None => stage.server.unset_state(&room, "m.room.power_levels", ""),
        }
        stage.once().await;
        let sql = format!(
            "select power_level from members where room_id = '{room}'
             order by user_id <> '@archive:model.test', user_id"
        );
        assert_eq!(stage.database.column(&sql).await, expected, "room version {version}, {levels:?}");
    }
}
