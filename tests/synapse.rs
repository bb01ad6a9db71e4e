//! Archives of a real Synapse, held against an independent walk of it.
//!
//! The rooms are of every version and full of what is hard to keep; see `support::fill`.

use std::{collections::BTreeSet, ops::RangeInclusive};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    agreement::{self, Compared, assert_agrees, assert_settled},
    archive::{dump, mentions, timeline, updated_rows},
    daemon::{Backscroll, Embedded},
    fill::{Filled, fill},
    postgres::{TestDatabase, rows},
    synapse::{Synapse, User, segment},
};

/// Events that each room has at least.
const COUNT: usize = 250;

fn backscroll(synapse: &Synapse, user: &User, database_url: Option<&str>) -> Backscroll {
    Backscroll::new(synapse.url(), &user.access_token, database_url)
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms")
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "100")
}

/// Compares every room that the user is in, each of which must be complete.
async fn assert_all_agree(url: &str, synapse: &Synapse, user: &User) -> Compared {
    assert_settled(url).await;
    let joined = synapse.call(Method::GET, "/joined_rooms", Some(user), None).await.unwrap();
    let mut compared = Compared::default();
    for room_id in joined["joined_rooms"].as_array().unwrap() {
        let room_id = room_id.as_str().unwrap();
        compared += assert_agrees(url, synapse, user, room_id).await;
        assert_eq!(history(url, room_id).await, "complete", "{room_id}");
    }
    compared
}

async fn history(url: &str, room_id: &str) -> String {
    room(url, room_id, "history_state").await
}

async fn room(url: &str, room_id: &str, column: &str) -> String {
    let query = format!("select {column} from rooms where room_id = '{room_id}'");
    rows(url, &query).await.concat().concat()
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// What people do in a room after it was archived: talk, edit, redact, change its state, come and go.
async fn live_on(synapse: &Synapse, owner: &User, room: &Filled, talk: usize) {
    let id = &room.room_id;
    let mut said = Vec::new();
    for number in 0..talk {
        said.push(synapse.send(owner, id, "m.room.message", text(&format!("later {number}"))).await);
    }
    let edit = json!({
        "msgtype": "m.text", "body": "* edited", "m.new_content": text("edited"),
        "m.relates_to": { "rel_type": "m.replace", "event_id": said[0] },
    });
    synapse.send(owner, id, "m.room.message", edit).await;
    // Long archived, just said, and state that has a successor.
    let mut archived = room.sent.iter().filter(|event_id| !room.hidden.contains(event_id));
    for target in archived.by_ref().step_by(40).take(4) {
        synapse.redact(owner, id, target, json!({})).await;
    }
    synapse.redact(owner, id, &said[1], json!({ "reason": "a\0b" })).await;
    let topic = synapse.send_state(owner, id, "m.room.topic", "", json!({ "topic": "to be redacted" })).await;
    synapse.send_state(owner, id, "m.room.topic", "", json!({ "topic": "a later topic" })).await;
    synapse.redact(owner, id, &topic, json!({})).await;
    let [_, second, third, last] = room.users.as_slice() else { unreachable!("fill makes four users") };
    synapse.unban(owner, id, last).await;
    synapse.join(third, id).await;
    synapse.leave(second, id).await;
    synapse.kick(owner, id, third).await;
}

#[tokio::test]
async fn old_room_versions_agree_with_an_independent_walk() {
    agree_with_an_independent_walk(1..=6).await;
}

#[tokio::test]
async fn new_room_versions_agree_with_an_independent_walk() {
    agree_with_an_independent_walk(7..=12).await;
}

async fn agree_with_an_independent_walk(versions: RangeInclusive<u64>) {
    let start = std::time::Instant::now();
    let synapse = Synapse::start().await;
    let archiver = synapse.register("archiver").await;
    let owner = synapse.register("owner").await;
    let mut rooms = Vec::new();
    for version in versions {
        // In half of the rooms the archive is the owner's, in the others a guest's.
        let by = if version % 2 == 0 { &archiver } else { &owner };
        let room = fill(&synapse, by, &version.to_string(), COUNT, version).await;
        if by.user_id != archiver.user_id {
            synapse.join(&archiver, &room.room_id).await;
        }
        rooms.push((by, room));
    }

    eprintln!("filled {} rooms after {:?}", rooms.len(), start.elapsed());
    let database = TestDatabase::new().await;
    let outer = backscroll(&synapse, &archiver, Some(database.url()));
    outer.once().await;
    let first = assert_all_agree(database.url(), &synapse, &archiver).await;
    eprintln!("outer PostgreSQL: {first:?}");
    assert!(first.rooms >= 6 && first.events >= 6 * COUNT && first.raw > 0, "{first:?}");

    let inner = backscroll(&synapse, &archiver, None);
    inner.once().await;
    let embedded = Embedded::open(&inner).await;
    assert_all_agree(&embedded.url(), &synapse, &archiver).await;
    assert!(
        dump(&embedded.url()).await == dump(database.url()).await,
        "two archives of the same rooms differ"
    );
    embedded.close().await;

    // Again, by every way there is: nothing changes.
    let before = (updated_rows(&database).await, dump(database.url()).await);
    outer.once().await;
    outer.once().await;
    for (_, room) in rooms.iter().step_by(2) {
        let again = outer.run(&["backfill", &room.room_id]).await;
        assert!(again.status.success(), "{}", again.stderr);
    }
    assert!(updated_rows(&database).await == before.0, "{} {}", updated_rows(&database).await, before.0);
    assert!(dump(database.url()).await == before.1, "archiving again changed the archive");

    // Life goes on; in one room so much that the sync leaves events out.
    for (index, (by, room)) in rooms.iter().enumerate() {
        live_on(&synapse, by, room, if index == 3 { 130 } else { 3 }).await;
    }
    outer.once().await;
    let second = assert_all_agree(database.url(), &synapse, &archiver).await;
    eprintln!("after more activity: {second:?}");
    assert!(second.events >= first.events + 130 + 6 * 12, "{second:?}");
    assert_eq!(database.value("select count(*) from gaps where state = 'closed'").await, "1");

    inner.once().await;
    let embedded = Embedded::open(&inner).await;
    assert_all_agree(&embedded.url(), &synapse, &archiver).await;
    embedded.close().await;
}

#[tokio::test]
async fn a_late_joiner_gets_what_it_may_see() {
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let id = synapse.create_room(&alice, "10", json!({ "preset": "public_chat" })).await;
    let joined = json!({ "history_visibility": "joined" });
    synapse.send_state(&alice, &id, "m.room.history_visibility", "", joined).await;
    let mut hidden = Vec::new();
    for number in 0..30 {
        hidden.push(synapse.send(&alice, &id, "m.room.message", text(&format!("hidden {number}"))).await);
    }
    synapse.send_state(&alice, &id, "m.room.topic", "", json!({ "topic": "set before the join" })).await;
    synapse.join(&archiver, &id).await;
    for number in 0..30 {
        synapse.send(&alice, &id, "m.room.message", text(&format!("seen {number}"))).await;
    }

    let database = TestDatabase::new().await;
    let backscroll =
        backscroll(&synapse, &archiver, Some(database.url())).set("BACKSCROLL_BACKFILL__PAGE_SIZE", "7");
    backscroll.once().await;
    assert_settled(database.url()).await;
    let compared = assert_agrees(database.url(), &synapse, &archiver, &id).await;
    assert!(compared.events >= 31, "{compared:?}");
    // What came before the visibility was set is shown to all, the create event too, so the room's start is reached.
    assert_eq!(history(database.url(), &id).await, "complete");
    let shown: BTreeSet<String> = timeline(&database, &id).await.into_iter().collect();
    assert!(hidden.iter().all(|event_id| !shown.contains(event_id)));

    synapse.redact(&alice, &id, &hidden[0], json!({})).await;
    synapse.send(&alice, &id, "m.room.message", text("later")).await;
    backscroll.once().await;
    assert_settled(database.url()).await;
    assert_agrees(database.url(), &synapse, &archiver, &id).await;
}

/// P105: what an invite or a knock shows of a room has no event ids, and is nobody's word.
#[tokio::test]
async fn what_an_invite_or_a_knock_shows_is_kept_apart() {
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let body = json!({ "preset": "private_chat", "name": "behind a door", "initial_state": [rule] });
    let knocked = synapse.create_room(&alice, "10", body).await;
    let refused = synapse.create_room(&alice, "11", json!({ "initial_state": [rule] })).await;
    let open = || json!({ "preset": "public_chat" });
    let left = synapse.create_room(&alice, "12", open()).await;
    synapse.join(&archiver, &left).await;
    // Of both the archive hears first by an invite, which is declined: one hides a stay.
    let strange = synapse.create_room(&alice, "10", open()).await;
    let hidden = synapse.create_room(&alice, "11", open()).await;
    synapse.join(&archiver, &hidden).await;
    synapse.leave(&archiver, &hidden).await;
    for id in [&strange, &hidden] {
        synapse.invite(&alice, id, &archiver).await;
    }
    let database = TestDatabase::new().await;
    let backscroll = backscroll(&synapse, &archiver, Some(database.url()));
    backscroll.once().await;
    let say = async |room: &str, what: &str| {
        for number in 0..12 {
            synapse.send(&alice, room, "m.room.message", text(&format!("{what} {number}"))).await;
        }
    };

    synapse.leave(&archiver, &left).await;
    backscroll.once().await;
    for id in [&knocked, &refused] {
        say(id, "before").await;
        let knock = format!("/knock/{}", segment(id));
        synapse.call(Method::POST, &knock, Some(&archiver), Some(json!({}))).await.unwrap();
    }
    say(&left, "while it was away").await;
    synapse.invite(&alice, &left, &archiver).await;
    backscroll.once().await;
    for (id, membership, bare) in [(&knocked, "knock", "t"), (&refused, "knock", "t"), (&left, "invite", "f")]
    {
        assert_eq!(room(database.url(), id, "membership").await, membership, "{id}");
        assert_eq!(room(database.url(), id, "event_count = 0").await, bare, "{id}");
        assert_ne!(stripped(&database, id).await, "0", "{id}");
    }
    assert_settled(database.url()).await;

    synapse.kick(&alice, &refused, &archiver).await;
    synapse.invite(&alice, &knocked, &archiver).await;
    for id in [&strange, &hidden] {
        synapse.leave(&archiver, id).await;
    }
    backscroll.once().await;
    assert_eq!(room(database.url(), &strange, "event_count").await, "0");
    assert_agrees(database.url(), &synapse, &archiver, &hidden).await;
    assert_eq!(history(database.url(), &hidden).await, "complete");
    assert_eq!(room(database.url(), &refused, "membership").await, "leave");
    assert_eq!(room(database.url(), &refused, "event_count").await, "0");
    assert_eq!(room(database.url(), &knocked, "membership").await, "invite");
    for id in [&knocked, &left] {
        synapse.join(&archiver, id).await;
        say(id, "at last").await;
    }
    backscroll.once().await;
    assert_eq!(assert_all_agree(database.url(), &synapse, &archiver).await.rooms, 2);
    assert_eq!(database.value("select count(*) from archive.stripped_state").await, "0");
}

async fn stripped(database: &TestDatabase, room_id: &str) -> String {
    let query =
        "select count(*) from archive.stripped_state join archive.rooms using (room_id) where room_id = ";
    database.value(&format!("{query}'{room_id}'")).await
}

#[tokio::test]
async fn an_upgraded_room_and_its_successor_are_linked() {
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let old = synapse.create_room(&alice, "9", json!({ "preset": "public_chat" })).await;
    synapse.join(&archiver, &old).await;
    let database = TestDatabase::new().await;
    let backscroll = backscroll(&synapse, &archiver, Some(database.url()));
    let (mut rooms, mut last) = (vec![old.clone()], old);
    for version in ["11", "12"] {
        backscroll.once().await;
        let path = format!("/rooms/{}/upgrade", segment(&last));
        let body = json!({ "new_version": version });
        let upgraded = synapse.call(Method::POST, &path, Some(&alice), Some(body)).await.unwrap();
        last = upgraded["replacement_room"].as_str().unwrap().to_owned();
        synapse.join(&archiver, &last).await;
        rooms.push(last.clone());
    }
    backscroll.once().await;
    assert_eq!(assert_all_agree(database.url(), &synapse, &archiver).await.rooms, 3);
    let query = "select room_id, predecessor, successor from rooms order by room_version::int";
    let [none, first, second, third] = ["∅", &*rooms[0], &*rooms[1], &*rooms[2]];
    let links = [[first, none, second], [second, first, third], [third, second, none]];
    assert_eq!(rows(database.url(), query).await, links);
}

/// A ban that redacts names no event that it redacts (MSC4293): those are served pruned from then on, and nothing says so.
#[tokio::test]
async fn a_ban_may_redact_all_that_a_user_said() {
    const SECRET: &str = "canary-of-the-banned";
    let settings = json!({ "experimental_features": { "msc4222_enabled": true, "msc4293_enabled": true } });
    let synapse = Synapse::start_with(settings).await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let spammers = [
        synapse.register("spammer").await,
        synapse.register("absent").await,
        synapse.register("walked").await,
    ];
    let mut rooms = Vec::new();
    for version in ["1", "9", "11", "12"] {
        let id = synapse.create_room(&alice, version, json!({ "preset": "public_chat" })).await;
        synapse.join(&archiver, &id).await;
        for (user, number) in spammers.iter().zip(0..) {
            synapse.join(user, &id).await;
            for _ in 0..12 + number {
                synapse.send(user, &id, "m.room.message", text(SECRET)).await;
            }
            let profile = json!({ "membership": "join", "displayname": SECRET });
            synapse.send_state(user, &id, "m.room.member", &user.user_id, profile).await;
        }
        rooms.push(id);
    }
    let database = TestDatabase::new().await;
    let backscroll = backscroll(&synapse, &archiver, Some(database.url()));
    backscroll.once().await;
    assert_all_agree(database.url(), &synapse, &archiver).await;
    assert_ne!(mentions(&database, SECRET).await, [""; 0]);

    let [seen, missed, walked] = &spammers;
    for id in &rooms {
        // Live; and in a gap, where the state before the timeline reports it first.
        synapse.ban_and_redact(&alice, id, seen).await;
        synapse.send(&alice, id, "m.room.message", text("good riddance")).await;
    }
    backscroll.once().await;
    let kept = format!(
        "select count(*) from events where content::text like '%{SECRET}%' and sender = '{}'",
        seen.user_id
    );
    assert_eq!(database.value(&kept).await, "0");
    for id in &rooms {
        synapse.ban_and_redact(&alice, id, missed).await;
        for number in 0..130 {
            synapse.send(&alice, id, "m.room.message", text(&format!("later {number}"))).await;
        }
    }
    backscroll.once().await;
    assert_all_agree(database.url(), &synapse, &archiver).await;
    // And by a walk of the operator's, before any /sync reports it.
    let since = database.value("select since from archive.accounts").await;
    for id in &rooms {
        synapse.ban_and_redact(&alice, id, walked).await;
        let outcome = backscroll.run(&["backfill", id, "--to", &since]).await;
        assert!(outcome.status.success(), "{}", outcome.stderr);
    }
    backscroll.once().await;
    assert_all_agree(database.url(), &synapse, &archiver).await;
    assert_eq!(mentions(&database, SECRET).await, [""; 0]);
}

/// Whoever does not know the rules of a room version learns from the server what a redaction leaves.
#[tokio::test]
async fn a_redaction_in_an_unknown_room_version_leaves_what_the_server_leaves() {
    const SECRET: &str = "canary-of-the-unknown";
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let id = synapse.create_room(&alice, "org.matrix.msc3757.11", json!({ "preset": "public_chat" })).await;
    synapse.join(&archiver, &id).await;
    let profile = json!({ "membership": "join", "displayname": SECRET });
    let member = synapse.send_state(&alice, &id, "m.room.member", &alice.user_id, profile).await;
    let database = TestDatabase::new().await;
    let backscroll = backscroll(&synapse, &archiver, Some(database.url()));
    backscroll.once().await;
    synapse.redact(&alice, &id, &member, json!({})).await;
    backscroll.once().await;
    assert_eq!(mentions(&database, SECRET).await, [""; 0]);
    let walked = backscroll.run(&["backfill", &id]).await;
    assert!(walked.status.success(), "{}", walked.stderr);
    let content = format!("select content from events where event_id = '{member}'");
    assert_eq!(database.value(&content).await, r#"{"membership": "join"}"#);
}

#[tokio::test]
async fn leaving_in_every_way_keeps_what_was_seen() {
    let synapse = Synapse::start().await;
    let [alice, archiver] = [synapse.register("alice").await, synapse.register("archiver").await];
    let mut rooms = Vec::new();
    for version in ["1", "6", "10", "12"] {
        let id = synapse.create_room(&alice, version, json!({ "preset": "public_chat" })).await;
        synapse.join(&archiver, &id).await;
        for number in 0..12 {
            synapse.send(&alice, &id, "m.room.message", text(&format!("before {number}"))).await;
        }
        rooms.push(id);
    }
    let database = TestDatabase::new().await;
    let backscroll =
        backscroll(&synapse, &archiver, Some(database.url())).set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10");
    backscroll.once().await;
    assert_all_agree(database.url(), &synapse, &archiver).await;

    let [left, kicked, banned, rejoined] = rooms.as_slice() else { unreachable!("four rooms") };
    let mut before_ban = Vec::new();
    for id in &rooms {
        synapse.send(&alice, id, "m.room.message", text("just before")).await;
    }
    synapse.leave(&archiver, left).await;
    synapse.leave(&archiver, rejoined).await;
    synapse.kick(&alice, kicked, &archiver).await;
    synapse.ban(&alice, banned, &archiver).await;
    before_ban.extend(synapse.walk(&alice, banned).await.into_iter().rev().map(|event| event.event_id));
    for id in &rooms {
        synapse.send(&alice, id, "m.room.message", text("while it was away")).await;
        synapse.send_state(&alice, id, "m.room.topic", "", json!({ "topic": "while it was away" })).await;
    }
    backscroll.once().await;
    assert_settled(database.url()).await;
    for (id, membership) in [(left, "leave"), (kicked, "leave"), (banned, "ban"), (rejoined, "leave")] {
        assert_eq!(room(database.url(), id, "membership").await, membership, "{id}");
        assert_eq!(history(database.url(), id).await, "complete", "{id}");
    }
    // Up to the leave, and its state as of then.
    for id in [left, kicked, rejoined] {
        assert_agrees(database.url(), &synapse, &archiver, id).await;
    }
    // The server shows nothing of the room any more, but it had reported the ban and of what was before.
    assert_eq!(timeline(&database, banned).await, before_ban);
    let state = agreement::current_state(database.url(), banned).await;
    let ban = ["m.room.member", &archiver.user_id, before_ban.last().unwrap()].map(str::to_owned);
    assert!(state.contains(&ban), "{state:?}");

    synapse.join(&archiver, rejoined).await;
    synapse.unban(&alice, banned, &archiver).await;
    synapse.join(&archiver, banned).await;
    for id in [rejoined, banned] {
        synapse.send(&alice, id, "m.room.message", text("welcome back")).await;
    }
    backscroll.once().await;
    let compared = assert_all_agree(database.url(), &synapse, &archiver).await;
    assert_eq!(compared.rooms, 2);
    for id in [left, kicked] {
        assert_agrees(database.url(), &synapse, &archiver, id).await;
    }
}

/// Rooms that the archive does not have yet, and what the account may read of them on a real server.
#[tokio::test]
async fn a_new_room_is_backfilled_from_a_token_whoever_is_in_it() {
    let synapse = Synapse::start().await;
    let (archiver, owner) = (synapse.register("archiver").await, synapse.register("owner").await);
    let make = async |name: &str, visibility: &str, invite: Value| {
        let body = json!({
            "preset": "public_chat", "room_alias_name": name, "name": name, "invite": invite,
            "initial_state": [{
                "type": "m.room.history_visibility", "state_key": "",
                "content": { "history_visibility": visibility },
            }],
        });
        let room = synapse.call(Method::POST, "/createRoom", Some(&owner), Some(body)).await.unwrap();
        room["room_id"].as_str().unwrap().to_owned()
    };
    let talk = async |room: &str, what: &str, count: usize| {
        let mut said = Vec::new();
        for number in 0..count {
            said.push(synapse.send(&owner, room, "m.room.message", text(&format!("{what} {number}"))).await);
        }
        said
    };
    let joined = make("joined", "shared", json!([])).await;
    let public = make("public", "world_readable", json!([])).await;
    let private = make("private", "shared", json!([])).await;
    let invited = make("invited", "shared", json!([archiver.user_id])).await;
    synapse.join(&archiver, &joined).await;

    let database = TestDatabase::new().await;
    let backscroll = backscroll(&synapse, &archiver, Some(database.url()));
    let count =
        format!("select count(*) from messages m join rooms r using (room_id) where r.room_id = '{public}'");
    for room in [&joined, &public] {
        talk(room, "older", 130).await;
        let page = format!("/rooms/{}/messages?dir=b&limit=1", segment(room));
        let token = synapse.call(Method::GET, &page, Some(&owner), None).await.unwrap();
        talk(room, "newer", 30).await;
        let from = token["start"].as_str().unwrap();
        let walked = backscroll.run(&["backfill", room, "--from", from]).await;
        assert!(walked.status.success(), "{}", walked.stderr);
        let old = format!("select count(*), count(position) from messages where room_id = '{room}'");
        assert_eq!(database.rows(&old).await, [["130", "130"]], "{room}");
        let state = format!("select string_agg(distinct state, ' ') from gaps where room_id = '{room}'");
        assert_eq!(database.value(&state).await, "skipped");
        let refused = backscroll.run(&["backfill", room, "--from", "rubbish"]).await;
        assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
    }
    for room in [private.as_str(), &invited, "#private:localhost", "!nowhere:localhost", "#nowhere:localhost"]
    {
        let refused = backscroll.run(&["backfill", room]).await;
        assert_eq!(refused.status.code(), Some(64), "{room}: {}", refused.stderr);
        assert!(refused.stderr.contains(room), "{}", refused.stderr);
    }
    assert_eq!(database.value("select count(*) from archive.rooms").await, "2");

    // What was not asked for comes with `run` where the account is in the room, and when it is walked again where it is not.
    backscroll.once().await;
    assert_eq!(database.value(&count).await, "130");
    let again = backscroll.run(&["backfill", "#public:localhost"]).await;
    assert!(again.status.success(), "{}", again.stderr);
    assert_eq!(database.value(&count).await, "160");
    talk(&public, "newest", 130).await;
    database.run("update archive.walks set not_before = now() where kind = 'rewalk'").await;
    backscroll.once().await;
    assert_eq!(database.value(&count).await, "290");
    let order = format!(
        "select count(*) from (select position, lag(position) over (order by sent_at, position) as before
         from messages where room_id = '{public}') m where position < before or position is null"
    );
    assert_eq!(database.value(&order).await, "0");

    synapse.join(&archiver, &public).await;
    talk(&public, "live", 10).await;
    backscroll.once().await;
    assert_all_agree(database.url(), &synapse, &archiver).await;
}
