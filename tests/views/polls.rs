//! `polls`, `poll_votes` and `beacons`: MSC3381 and MSC3672.

use serde_json::{Value, json};

use super::{CAROL, NULL, edit, send, set};
use crate::support::{
    homeserver::{ALICE, BOB, Event},
    stage::Stage,
};

/// The names of an event's parts, stable or as clients send them.
#[derive(Clone, Copy)]
struct Names {
    stable: bool,
}

const STABLE: Names = Names { stable: true };
const UNSTABLE: Names = Names { stable: false };

impl Names {
    fn kind(self, part: &str) -> String {
        let prefix = if self.stable { "m" } else { "org.matrix.msc3381" };
        format!("{prefix}.poll.{part}")
    }

    fn start(self, kind: &str, max_selections: &Value, answers: &[&str]) -> Value {
        let question = "What for lunch?";
        if self.stable {
            let answers: Vec<_> = answers
                .iter()
                .map(|id| json!({ "m.id": id, "m.text": [{ "body": format!("The {id}") }] }))
                .collect();
            json!({ "m.text": [{ "body": "fallback" }], "m.poll": {
                "kind": format!("m.{kind}"), "max_selections": max_selections,
                "question": { "m.text": [{ "body": question }] }, "answers": answers,
            } })
        } else {
            let answers: Vec<_> = answers
                .iter()
                .map(|id| json!({ "id": id, "org.matrix.msc1767.text": format!("The {id}") }))
                .collect();
            json!({ "org.matrix.msc1767.text": "fallback", "org.matrix.msc3381.poll.start": {
                "kind": format!("org.matrix.msc3381.poll.{kind}"), "max_selections": max_selections,
                "question": { "org.matrix.msc1767.text": question }, "answers": answers,
            } })
        }
    }

    fn vote(self, poll: &str, selections: &Value) -> Value {
        let relation = json!({ "rel_type": "m.reference", "event_id": poll });
        if self.stable {
            json!({ "m.relates_to": relation, "m.selections": selections })
        } else {
            json!({ "m.relates_to": relation, "org.matrix.msc3381.poll.response": { "answers": selections } })
        }
    }
}

struct Poll<'s> {
    stage: &'s Stage,
    room: &'s str,
    names: Names,
    id: String,
}

impl<'s> Poll<'s> {
    fn start(stage: &'s Stage, room: &'s str, names: Names, content: &Value) -> Self {
        let id = send(stage, room, ALICE, &names.kind("start"), content);
        Self { stage, room, names, id }
    }

    fn vote(&self, sender: &str, ts: i64, selections: &Value) -> String {
        let content = self.names.vote(&self.id, selections).to_string();
        self.stage
            .server
            .append(self.room, Event::new(&self.names.kind("response"), content).from(sender).at(ts))
    }

    fn end(&self, sender: &str, ts: i64) -> String {
        let content = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": self.id },
            "m.text": [{ "body": "ended" }] });
        self.stage
            .server
            .append(self.room, Event::new(&self.names.kind("end"), content.to_string()).from(sender).at(ts))
    }

    /// The votes that count, as `sender answer`.
    async fn votes(&self) -> Vec<String> {
        let sql = format!(
            "select sender || ' ' || answer_id from poll_votes where poll_id = '{}' order by 1",
            self.id
        );
        self.stage.database.column(&sql).await
    }

    async fn column(&self, column: &str) -> String {
        self.stage.database.value(&format!("select {column} from polls where poll_id = '{}'", self.id)).await
    }
}

fn votes(expected: &[(&str, &str)]) -> Vec<String> {
    let mut votes: Vec<_> = expected.iter().map(|(sender, answer)| format!("{sender} {answer}")).collect();
    votes.sort();
    votes
}

#[tokio::test]
async fn the_last_vote_of_each_sender_counts() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    for names in [STABLE, UNSTABLE] {
        let one = Poll::start(&stage, &room, names, &names.start("disclosed", &json!(1), &["pizza", "soup"]));
        one.vote(ALICE, 10, &json!(["pizza"]));
        one.vote(ALICE, 30, &json!(["soup"]));
        one.vote(ALICE, 20, &json!(["pizza"]));
        // Cut to one answer before it is looked at.
        one.vote(BOB, 10, &json!(["pizza", "unknown"]));
        one.vote(CAROL, 10, &json!(["pizza"]));
        one.vote(CAROL, 11, &json!(["unknown"]));
        one.vote("@dave:model.test", 10, &json!(["soup"]));
        one.vote("@dave:model.test", 11, &json!([]));
        let kept = "@eve:model.test";
        one.vote(kept, 10, &json!(["soup"]));
        let taken_back = one.vote(kept, 11, &json!(["pizza"]));
        stage.server.redact(&room, &taken_back);
        for (number, odd) in
            [json!("pizza"), json!(7), json!(null), json!([7]), json!([["pizza"]])].into_iter().enumerate()
        {
            one.vote(&format!("@odd{number}:model.test"), 10, &odd);
        }
        let many = Poll::start(&stage, &room, names, &names.start("disclosed", &json!(2), &["a", "b", "c"]));
        many.vote(ALICE, 10, &json!(["a", "a", "b"]));
        many.vote(BOB, 10, &json!(["c", "a", "b"]));
        many.vote(CAROL, 10, &json!(["a", "unknown"]));
        stage.once().await;
        assert_eq!(one.votes().await, votes(&[(ALICE, "soup"), (BOB, "pizza"), (kept, "soup")]));
        assert_eq!(many.votes().await, votes(&[(ALICE, "a"), (BOB, "a"), (BOB, "c")]));
        let shown =
            "question || '/' || kind || '/' || max_selections || '/' || (answers -> 0 ->> 'text') || '/'
        || (end_event_id is null)";
        assert_eq!(many.column(shown).await, "What for lunch?/disclosed/2/The a/true");
        let text = format!("select answer from poll_votes where poll_id = '{}' and sender = '{BOB}'", one.id);
        assert_eq!(stage.database.value(&text).await, "The pizza");
    }
}

/// Ended by its sender or by one who may redact; the first such end counts, and no vote after it.
#[tokio::test]
async fn a_poll_ends_once() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    set(
        &stage,
        &room,
        ALICE,
        "m.room.power_levels",
        "",
        &json!({ "users": { CAROL: 40 }, "redact": 40, "events": { "m.room.redaction": 30 } }),
    );
    for names in [STABLE, UNSTABLE] {
        let start = names.start("disclosed", &json!(1), &["yes", "no"]);
        let by_sender = Poll::start(&stage, &room, names, &start);
        by_sender.vote(ALICE, 100, &json!(["yes"]));
        by_sender.vote(ALICE, 101, &json!(["no"]));
        by_sender.vote(BOB, 101, &json!(["no"]));
        by_sender.end(BOB, 50);
        by_sender.end(ALICE, 200);
        let end = by_sender.end(ALICE, 100);
        let by_moderator = Poll::start(&stage, &room, names, &start);
        let moderated = by_moderator.end(CAROL, 100);
        let reopened = Poll::start(&stage, &room, names, &start);
        let redacted = reopened.end(ALICE, 5);
        stage.server.redact(&room, &redacted);
        reopened.vote(BOB, 100, &json!(["yes"]));
        stage.once().await;
        assert_eq!(by_sender.column("end_event_id").await, end);
        assert_eq!(by_sender.column("extract(epoch from ended_at)").await, "0.100000");
        assert_eq!(by_sender.votes().await, votes(&[(ALICE, "yes")]));
        assert_eq!(by_moderator.column("end_event_id").await, moderated);
        assert_eq!(reopened.column("end_event_id").await, NULL);
        assert_eq!(reopened.votes().await, votes(&[(BOB, "yes")]));
    }
}

#[tokio::test]
async fn an_undisclosed_poll_shows_no_votes_before_its_end() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    for (kind, disclosed) in [("undisclosed", false), ("org.example.other", false), ("disclosed", true)] {
        let poll = Poll::start(&stage, &room, UNSTABLE, &UNSTABLE.start(kind, &json!(1), &["yes"]));
        poll.vote(BOB, 10, &json!(["yes"]));
        stage.once().await;
        assert_eq!(poll.votes().await.len(), usize::from(disclosed), "{kind}");
        poll.end(ALICE, 20);
        stage.once().await;
        assert_eq!(poll.votes().await.len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_poll_shows_as_last_edited_and_redacted_not_at_all() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let start = STABLE.start("disclosed", &json!(1), &["yes", "no"]);
    let edited = Poll::start(&stage, &room, STABLE, &start);
    let mut content = edit(&edited.id, "");
    content["m.new_content"] = STABLE.start("disclosed", &json!(1), &["yes", "maybe"]);
    content["m.new_content"]["m.poll"]["question"] = json!({ "m.text": [{ "body": "Edited?" }] });
    send(&stage, &room, ALICE, "m.poll.start", &content);
    edited.vote(BOB, 10, &json!(["maybe"]));
    edited.vote(CAROL, 10, &json!(["no"]));
    let redacted = Poll::start(&stage, &room, STABLE, &start);
    redacted.vote(BOB, 10, &json!(["yes"]));
    stage.server.redact(&room, &redacted.id);
    let twenty: Vec<String> = (0..25).map(|number| format!("a{number}")).collect();
    let twenty: Vec<&str> = twenty.iter().map(String::as_str).collect();
    let long = Poll::start(&stage, &room, STABLE, &STABLE.start("disclosed", &json!(99), &twenty));
    long.vote(BOB, 10, &json!(["a19"]));
    long.vote(CAROL, 10, &json!(["a20"]));
    for odd in [json!(0), json!(-1), json!("2"), json!(null), json!([2]), json!(1e300)] {
        Poll::start(&stage, &room, STABLE, &STABLE.start("disclosed", &odd, &["yes"]));
    }
    for odd in [json!(7), json!("text"), json!([1]), json!({})] {
        Poll::start(&stage, &room, STABLE, &json!({ "m.poll": odd, "m.text": odd }));
        Poll::start(
            &stage,
            &room,
            STABLE,
            &json!({ "m.poll": { "answers": odd, "question": odd, "kind": odd } }),
        );
        Poll::start(&stage, &room, STABLE, &json!({ "m.poll": { "answers": [odd, { "m.id": odd }] } }));
    }
    stage.once().await;
    assert_eq!(edited.column("question").await, "Edited?");
    assert_eq!(edited.votes().await, votes(&[(BOB, "maybe")]));
    assert_eq!(long.column("jsonb_array_length(answers) || ' ' || max_selections").await, "20 20");
    assert_eq!(long.votes().await, votes(&[(BOB, "a19")]));
    let gone = format!("select count(*) from polls where poll_id = '{}'", redacted.id);
    assert_eq!(stage.database.value(&gone).await, "0");
    let limits = "select distinct max_selections from polls where max_selections <> 1";
    assert_eq!(stage.database.column(limits).await, ["20"]);
    stage.read_all_views().await;
}

#[tokio::test]
async fn a_beacon_shows_where_its_sender_was_last() {
    let stage = Stage::new().await;
    let room = stage.room(0);
    let hour = json!(3_600_000);
    for (info, beacon, ts, location) in [
        ("m.beacon_info", "m.beacon", "m.ts", "m.location"),
        (
            "org.matrix.msc3672.beacon_info",
            "org.matrix.msc3672.beacon",
            "org.matrix.msc3488.ts",
            "org.matrix.msc3488.location",
        ),
    ] {
        let share = |user: &str, live: bool, start: i64| {
            let content = json!({ "description": "On my way", "live": live, "timeout": hour, ts: start });
            set(&stage, &room, user, info, user, &content)
        };
        let send_place = |id: &str, user: &str, at: Value, uri: Value| {
            let content = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": id },
                location: { "uri": uri }, ts: at });
            send(&stage, &room, user, beacon, &content);
        };
        let past = share(ALICE, true, 1_000);
        send_place(&past, ALICE, json!(2_000), json!("geo:1,1"));
        send_place(&past, ALICE, json!(4_000), json!("geo:2,2"));
        send_place(&past, ALICE, json!(3_000), json!("geo:3,3"));
        // Of somebody else, after the end, before the start, and of other types.
        send_place(&past, BOB, json!(5_000), json!("geo:4,4"));
        send_place(&past, ALICE, json!(4_000_000), json!("geo:5,5"));
        send_place(&past, ALICE, json!(999), json!("geo:6,6"));
        send_place(&past, ALICE, json!(5_000), json!(["geo:7,7"]));
        send_place(&past, ALICE, json!(5_000), json!("https://example.org"));
        // Begins in the year 2096 or so, so it is not over.
        let lasting = share(BOB, true, 4_000_000_000_000);
        let stopped = share(CAROL, true, 4_000_000_000_000);
        share(CAROL, false, 4_000_000_000_000);
        for odd in [json!(7), json!("x"), json!([]), json!({})] {
            let content = json!({ "description": odd, "live": odd, "timeout": odd, ts: odd });
            set(&stage, &room, ALICE, info, "@odd:model.test", &content);
            let content =
                json!({ "description": odd, "live": true, "timeout": odd, ts: odd, "m.beacon_info": odd });
            set(&stage, &room, ALICE, info, "@odd:model.test", &content);
        }
        stage.once().await;
        let shown = |id: String| {
            let stage = &stage;
            async move {
                let sql = format!(
                    "select description, live, location_count, geo_uri, extract(epoch from located_at)
                     from beacons where beacon_id = '{id}'"
                );
                stage.database.rows(&sql).await.concat()
            }
        };
        assert_eq!(shown(past).await, ["On my way", "f", "3", "geo:2,2", "4.000000"]);
        assert_eq!(shown(lasting).await, ["On my way", "t", "0", NULL, NULL]);
        assert_eq!(shown(stopped).await, ["On my way", "f", "0", NULL, NULL]);
        stage.is_archived(&room).await;
    }
    stage.read_all_views().await;
}
