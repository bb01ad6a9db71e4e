//! The essentials on a real Synapse.

use serde_json::{Value, json};

use super::{NULL, edit, related, text};
use crate::support::{daemon::Backscroll, postgres::TestDatabase, synapse::Synapse};

#[tokio::test]
async fn a_real_room_shows_as_in_a_client() {
    let synapse = Synapse::start().await;
    let [archiver, alice, bob] =
        [synapse.register("archiver").await, synapse.register("alice").await, synapse.register("bob").await];
    let room = synapse.create_room(&alice, "11", json!({ "preset": "public_chat" })).await;
    for user in [&archiver, &bob] {
        synapse.join(user, &room).await;
    }
    let profile = |name: &str| json!({ "membership": "join", "displayname": name });
    synapse.send_state(&alice, &room, "m.room.member", &alice.user_id, profile("Alice")).await;
    synapse
        .send_state(
            &alice,
            &room,
            "m.room.member",
            &alice.user_id,
            json!({ "membership": "join", "displayname": null }),
        )
        .await;
    synapse.send_state(&bob, &room, "m.room.member", &bob.user_id, profile("Bob")).await;

    let send = async |user, kind: &str, content: Value| synapse.send(user, &room, kind, content).await;
    let first = send(&alice, "m.room.message", text("first")).await;
    send(&bob, "m.room.message", edit(&first, "forged")).await;
    send(&alice, "m.room.message", edit(&first, "first, edited")).await;
    let reply =
        related(text("> <@alice:hs> first\n\nanswer"), json!({ "m.in_reply_to": { "event_id": first } }));
    send(&bob, "m.room.message", reply).await;
    let fallback = json!({ "rel_type": "m.thread", "event_id": first, "is_falling_back": true,
        "m.in_reply_to": { "event_id": first } });
    send(&bob, "m.room.message", related(text("threaded"), fallback)).await;
    let reaction =
        |key: &str| json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": first, "key": key } });
    send(&bob, "m.reaction", reaction("👍")).await;
    // Synapse refuses the same once more.
    send(&alice, "m.reaction", reaction("👍")).await;
    let poll = json!({
        "org.matrix.msc1767.text": "fallback",
        "org.matrix.msc3381.poll.start": {
            "kind": "org.matrix.msc3381.poll.disclosed", "max_selections": 1,
            "question": { "org.matrix.msc1767.text": "Lunch?" },
            "answers": [{ "id": "1", "org.matrix.msc1767.text": "yes" },
                { "id": "2", "org.matrix.msc1767.text": "no" }],
        },
    });
    let poll = send(&alice, "org.matrix.msc3381.poll.start", poll).await;
    for answer in ["1", "2"] {
        let vote = json!({
            "m.relates_to": { "rel_type": "m.reference", "event_id": poll },
            "org.matrix.msc3381.poll.response": { "answers": [answer] },
        });
        send(&bob, "org.matrix.msc3381.poll.response", vote).await;
    }
    synapse.kick(&alice, &room, &bob).await;
    synapse.ban(&alice, &room, &bob).await;

    let database = TestDatabase::new().await;
    Backscroll::new(synapse.url(), &archiver.access_token, Some(database.url())).once().await;
    let messages =
        "select sender_name, body, edit_count, in_reply_to, thread_root from messages order by position";
    let expected = [
        [&*alice.user_id, "first, edited", "1", NULL, NULL],
        ["Bob", "answer", "0", &first, NULL],
        ["Bob", "threaded", "0", NULL, &first],
        [&*alice.user_id, "Lunch?", "0", NULL, NULL],
    ];
    assert_eq!(database.rows(messages).await, expected);
    let reactions = "select sender_name, key from reactions order by position";
    assert_eq!(database.rows(reactions).await, [["Bob", "👍"], [&*alice.user_id, "👍"]]);
    let votes =
        "select question, answer, v.sender_name from polls p join poll_votes v using (room_id, poll_id)";
    assert_eq!(database.rows(votes).await, [["Lunch?", "no", "Bob"]]);
    let members = "select membership, display_name, shown_name, power_level from members order by user_id";
    let [archiver, alice] = [&archiver, &alice].map(|user| &*user.user_id);
    let expected =
        [["join", NULL, alice, "100"], ["join", "archiver", "archiver", "0"], ["ban", "Bob", "Bob", "0"]];
    assert_eq!(database.rows(members).await, expected, "{archiver}");
    assert_eq!(database.value("select display_name from rooms").await, alice);
    assert_eq!(database.value("select creators = array[creator] from rooms").await, "t");
}
