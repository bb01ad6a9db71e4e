//! Rooms of every kind of event that a real Synapse accepts, the nasty ones first.
//!
//! What is here was tried on Synapse 1.163.2, each item on every room version from 1 to 12. It is about all that
//! can be had over its client API: lone surrogates, numbers beyond 64 bits and content deeper than [`DEEPEST`]
//! are refused.

mod contents;

use std::iter;

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};

use self::contents::{
    DEEPEST, OLD_NUMBERS, creation, edit, edit_of, nested, odd_names, reaction, related, reply, text, texts,
    thread,
};
use super::synapse::{Synapse, User, segment};

/// A room that [`fill`] made.
pub(crate) struct Filled {
    pub(crate) room_id: String,
    /// The ids of the events that were sent one by one, in no order: a part of the room's events.
    pub(crate) sent: Vec<String>,
    /// Of those, the ones that Synapse never serves in a page.
    pub(crate) hidden: Vec<String>,
    /// Who took part. The first is the one who asked for the room; the last is banned from it.
    pub(crate) users: Vec<User>,
}

/// A room with every nasty event there is, about 240, and then everyday ones up to at least `count` in all.
pub(crate) async fn fill(synapse: &Synapse, owner: &User, version: &str, count: usize, seed: u64) -> Filled {
    let mut users = vec![owner.clone()];
    for name in ["b/c=d+e", "f_g.h-i", "zoe"] {
        users.push(synapse.register(&format!("{name}.{version}.{seed}")).await);
    }
    let room_id = synapse.create_room(owner, version, creation()).await;
    for user in &users[1..] {
        synapse.join(user, &room_id).await;
    }

    let room = Room { synapse, id: &room_id, users: &users, number: version.parse().expect("a number") };
    let mut sent = room.contents().await;
    sent.extend(room.names().await);
    sent.extend(room.dates().await);
    sent.extend(room.state_changes().await);
    sent.extend(room.relations().await);
    sent.extend(room.redactions().await);
    let (hidden, served) = room.hidden().await;
    sent.push(served);
    room.members().await;
    let mut random = Rng::with_seed(seed);
    while sent.len() + 40 < count {
        sent.extend(room.everyday(&mut random).await);
    }
    room.farewell().await;
    sent.extend(hidden.iter().cloned());
    Filled { room_id, sent, hidden, users }
}

struct Room<'a> {
    synapse: &'a Synapse,
    id: &'a str,
    users: &'a [User],
    number: u32,
}

impl Room<'_> {
    fn owner(&self) -> &User {
        &self.users[0]
    }

    async fn send(&self, kind: &str, content: Value) -> String {
        self.synapse.send(self.owner(), self.id, kind, content).await
    }

    async fn set(&self, kind: &str, state_key: &str, content: Value) -> String {
        self.synapse.send_state(self.owner(), self.id, kind, state_key, content).await
    }

    async fn say(&self, body: &str) -> String {
        self.send("m.room.message", text(body)).await
    }

    async fn redact(&self, event_id: &str) -> String {
        self.synapse.redact(self.owner(), self.id, event_id, json!({})).await
    }

    /// Every content once in an event and once in state.
    async fn contents(&self) -> Vec<String> {
        let mut texts = texts();
        if self.number < 6 {
            texts.extend(OLD_NUMBERS.map(str::to_owned));
        }
        let sent: Vec<_> = stream::iter(texts.iter().map(String::as_str))
            .map(|it| self.synapse.send(self.owner(), self.id, "com.example.content", it))
            .buffer_unordered(4)
            .collect()
            .await;
        // One key takes each value in turn, so that each is the next one's prev_content.
        let mut state = Vec::new();
        for text in &texts {
            state.push(
                self.synapse
                    .send_state(self.owner(), self.id, "com.example.content", "", text.as_str())
                    .await,
            );
        }
        [sent, state].concat()
    }

    /// Every name as an event type, as a type of state and as a state key.
    async fn names(&self) -> Vec<String> {
        let names = odd_names();
        stream::iter(&names)
            .map(|name| async move {
                let content = json!({ "name": name });
                [
                    self.send(name, content.clone()).await,
                    self.set(name, "key", content.clone()).await,
                    self.set("com.example.key", name, content).await,
                ]
            })
            .buffer_unordered(4)
            .map(stream::iter)
            .flatten()
            .collect()
            .await
    }

    /// Dates at the edges.
    async fn dates(&self) -> Vec<String> {
        let mut dates = vec![0, 1, 253_402_300_799_999, 253_402_300_800_000, 9_007_199_254_740_991];
        if self.number < 6 {
            dates.extend([9_007_199_254_740_992, 9_223_372_036_854_775_807]);
        }
        stream::iter(dates)
            .then(|date| self.synapse.send_at(self.owner(), self.id, "m.room.message", text("a date"), date))
            .collect()
            .await
    }

    /// The room's own state, with values of wrong types where Synapse does not look.
    async fn state_changes(&self) -> Vec<String> {
        let own = self.owner().user_id.clone();
        let mut changes = vec![
            ("m.room.name", "", json!({ "name": "a\0b" })),
            ("m.room.name", "", json!({ "name": "" })),
            ("m.room.name", "not empty", json!({ "name": "a name that is not the room's" })),
            ("m.room.topic", "", json!({ "topic": "one" })),
            ("m.room.topic", "", json!({ "topic": "two", "m.topic": { "m.text": [{ "body": "two" }] } })),
            ("m.room.history_visibility", "", json!({ "history_visibility": "klingon" })),
            ("m.room.history_visibility", "", json!({ "history_visibility": 4 })),
            ("m.room.history_visibility", "", json!({ "history_visibility": "shared" })),
            ("m.room.join_rules", "", json!({ "join_rule": "klingon" })),
            ("m.room.join_rules", "", json!({ "join_rule": "public" })),
            ("m.room.encryption", "", json!({ "algorithm": 4 })),
            ("m.room.pinned_events", "", json!({ "pinned": "not a list" })),
            ("m.room.tombstone", "", json!({ "body": "moved", "replacement_room": 3 })),
            ("m.room.tombstone", "", json!({ "body": "moved", "replacement_room": "!a\0" })),
            ("m.room.third_party_invite", "token", json!({ "display_name": "x", "public_keys": 1 })),
            ("m.space.child", self.id, json!({ "via": "me" })),
            ("com.example.own", &own, json!({ "mine": true })),
            ("m.room.member", &own, json!({ "membership": "join", "displayname": { "not": "a string" } })),
            ("m.room.member", &own, json!({ "membership": "join", "displayname": "a\u{1b}[31m", "k\0": 1 })),
            ("m.room.member", &own, json!({ "membership": "join" })),
        ];
        let mut levels = self.power_levels().await;
        levels["events"]["a\0b"] = json!(0);
        levels["invite"] = json!(1);
        changes.push(("m.room.power_levels", "", levels.clone()));
        levels["users"][&self.users[1].user_id] = json!(50);
        changes.push(("m.room.power_levels", "", levels));
        // Not among those sent, of which any may be redacted: Synapse lets nobody redact this one.
        self.set("m.room.server_acl", "", json!({ "allow": ["*"], "deny": [] })).await;
        stream::iter(changes).then(|(kind, key, content)| self.set(kind, key, content)).collect().await
    }

    async fn power_levels(&self) -> Value {
        let path = format!("/rooms/{}/state/m.room.power_levels/", segment(self.id));
        self.synapse.call(Method::GET, &path, Some(self.owner()), None).await.expect("power levels")
    }

    /// Edits, replies, threads and reactions, proper and improper.
    async fn relations(&self) -> Vec<String> {
        let root = self.say("root").await;
        let foreign = self.synapse.send(&self.users[1], self.id, "m.room.message", text("not mine")).await;
        let edited = self.send("m.room.message", edit(&root, "root, edited")).await;
        let deep: Value = serde_json::from_str(&nested(DEEPEST - 2, "[]")).expect("JSON");
        let mut deep_edit = edit_of(&root);
        deep_edit["m.new_content"] = deep.clone();
        let mut deep_reply = related("m.thread", &root);
        deep_reply["deep"] = deep;
        let mut without_new_content = text("");
        without_new_content["m.relates_to"] = related("m.replace", &root)["m.relates_to"].take();
        let contents = [
            ("m.room.message", edit_of(&foreign)),
            ("m.room.message", edit_of(&edited)),
            ("m.room.message", edit(&root, "a\0b")),
            ("m.room.message", deep_edit),
            // An edit of no content.
            ("m.room.message", without_new_content),
            ("m.room.message", reply(&root, "a reply")),
            ("m.room.message", reply("$unknown", "a reply to nothing")),
            ("m.room.message", thread(&root, "in a thread")),
            ("com.example.content", deep_reply),
            ("m.reaction", reaction(&root, "👍")),
            ("m.reaction", reaction(&root, "a\0b")),
            ("m.reaction", reaction(&edited, "to an edit")),
            ("m.reaction", related("\0#/ é", &root)),
            ("m.reaction", related("m.reference", &root)),
            (
                "m.room.encrypted",
                json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AA", "session_id": "x" }),
            ),
            ("m.sticker", json!({ "body": "s", "url": "mxc://localhost/none", "info": {} })),
        ];
        let mut sent = vec![root, foreign, edited];
        for (kind, content) in contents {
            sent.push(self.send(kind, content).await);
        }
        sent
    }

    /// Redactions of everything that can be redacted, each with a successor that knew the old content.
    async fn redactions(&self) -> Vec<String> {
        let mut targets = Vec::new();
        let root = self.say("to be redacted").await;
        targets.push(self.send("m.room.message", edit(&root, "an edit to be redacted")).await);
        targets.push(self.send("m.reaction", reaction(&root, "👎")).await);
        targets.push(root);
        targets.push(self.send("com.example.content", json!({ "k\0": "v\0" })).await);
        targets.push(self.send("", json!({ "of": "no type" })).await);
        let own = self.owner().user_id.clone();
        let levels = self.power_levels().await;
        let state = [
            ("m.room.topic", "", json!({ "topic": "redacted in the middle" })),
            ("m.room.topic", "", json!({ "topic": "and after it" })),
            ("m.room.name", "", json!({ "name": "to be redacted" })),
            ("m.room.join_rules", "", json!({ "join_rule": "public", "allow": [], "x": 1 })),
            ("m.room.history_visibility", "", json!({ "history_visibility": "world_readable", "x": 1 })),
            ("m.room.member", &own, json!({ "membership": "join", "displayname": "to be redacted" })),
            ("com.example.key", "a\0b", json!({ "to be": "redacted" })),
            ("m.room.power_levels", "", levels),
        ];
        for (kind, key, content) in state {
            let event = self.set(kind, key, content).await;
            // A successor with the event as its prev_content; the join rules and the like stay redacted.
            if kind == "m.room.topic" || kind == "com.example.key" {
                targets.push(self.set(kind, key, json!({ "topic": "x", "after": event })).await);
            }
            targets.push(event);
        }
        let mut sent = targets.clone();
        for target in &targets {
            sent.push(self.redact(target).await);
        }
        // What was redacted no longer has a say, so it is said again.
        // In version 12 the creator's power is not to be named.
        let users = if self.number < 12 { json!({ own: 100 }) } else { json!({}) };
        let levels = json!({ "users": users, "events_default": 0 });
        sent.push(self.set("m.room.power_levels", "", levels).await);

        let victim = self.say("redacted twice").await;
        let first = self.redact(&victim).await;
        let second = self.redact(&victim).await;
        let of_redaction = self.redact(&first).await;
        let reason = r#"{"reason":"a\u0000b","k\u0000":{"":[null]}}"#;
        let nasty = self.synapse.redact(self.owner(), self.id, &self.say("x").await, reason).await;
        sent.extend([victim, first, second, of_redaction, nasty]);
        sent
    }

    /// Events that Synapse never serves in a page, which therefore comes up short, and a redaction of one,
    /// which it serves.
    async fn hidden(&self) -> (Vec<String>, String) {
        let mut hidden = Vec::new();
        for number in 0..5 {
            hidden.push(self.send("org.matrix.dummy_event", json!({})).await);
            // A redaction is withheld until its target is known.
            hidden.push(self.redact(&format!("$unknown{number}:localhost")).await);
        }
        // It is in the state that `/state` gives nevertheless, with what its room version keeps.
        for alias in ["#one:localhost", "#two:localhost"] {
            hidden.push(self.set("m.room.aliases", "localhost", json!({ "aliases": [alias], "x": 1 })).await);
        }
        let served = self.redact(hidden.last().expect("there are some")).await;
        (hidden, served)
    }

    /// Every move between memberships.
    async fn members(&self) {
        let (synapse, room) = (self.synapse, self.id);
        let [owner, second, third, ..] = self.users else { unreachable!("fill makes four users") };
        synapse.leave(second, room).await;
        synapse.invite(owner, room, second).await;
        synapse.leave(second, room).await;
        synapse.invite(owner, room, second).await;
        synapse.join(second, room).await;
        synapse.kick(owner, room, third).await;
        synapse.ban(owner, room, third).await;
        synapse.unban(owner, room, third).await;
        if self.number >= 7 {
            self.set("m.room.join_rules", "", json!({ "join_rule": "knock" })).await;
            let knock = format!("/knock/{}", segment(room));
            let reason = json!({ "reason": "a\0b" });
            synapse.call(Method::POST, &knock, Some(third), Some(reason)).await.expect("knock");
            synapse.leave(third, room).await;
        }
        if self.number >= 8 {
            let other = synapse.create_room(third, "10", json!({ "preset": "public_chat" })).await;
            synapse.join(owner, &other).await;
            let allow = json!([{ "type": "m.room_membership", "room_id": other }]);
            self.set("m.room.join_rules", "", json!({ "join_rule": "restricted", "allow": allow })).await;
            // The event names the user who authorised it.
            synapse.join(third, room).await;
            let rules =
                self.set("m.room.join_rules", "", json!({ "join_rule": "restricted", "allow": allow })).await;
            self.redact(&rules).await;
        }
        self.set("m.room.join_rules", "", json!({ "join_rule": "public" })).await;
        synapse.join(third, room).await;
    }

    /// Thirty or so events of a common room.
    async fn everyday(&self, random: &mut Rng) -> Vec<String> {
        let words =
            ["well", "yes", "no", "the", "server", "room", "é", "😀", "again", "\\u0000", "`code`", "<b>"];
        let sentence = |random: &mut Rng| {
            let length = random.usize(1..30);
            iter::repeat_with(|| words[random.usize(..words.len())])
                .take(length)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let messages: Vec<_> =
            iter::repeat_with(|| (&self.users[random.usize(..3)], sentence(random))).take(16).collect();
        let roots: Vec<_> = stream::iter(messages)
            .map(|(user, body)| self.synapse.send(user, self.id, "m.room.message", text(&body)))
            .buffer_unordered(4)
            .collect()
            .await;
        let mut sent = roots.clone();
        let mut follow: Vec<(&User, Value)> = Vec::new();
        for root in &roots {
            let body = sentence(random);
            let content = match random.u8(..6) {
                0 => edit(root, &body),
                1 => reply(root, &body),
                2 => thread(root, &body),
                3 => reaction(root, words[random.usize(..words.len())]),
                _ => continue,
            };
            follow.push((&self.users[random.usize(..3)], content));
        }
        let follow: Vec<_> = stream::iter(follow)
            .map(|(user, content)| {
                let kind = if content.get("body").is_some() { "m.room.message" } else { "m.reaction" };
                self.synapse.send(user, self.id, kind, content)
            })
            .buffer_unordered(4)
            .collect()
            .await;
        sent.extend(follow);
        let victim = &sent[random.usize(..sent.len())];
        let redaction = self.redact(victim).await;
        sent.push(redaction);
        sent.push(self.set("m.room.topic", "", json!({ "topic": sentence(random) })).await);
        sent
    }

    /// Two leave, one of them banned.
    async fn farewell(&self) {
        let [owner, _, third, last] = self.users else { unreachable!("fill makes four users") };
        self.synapse.leave(third, self.id).await;
        self.synapse.ban(owner, self.id, last).await;
    }
}
