//! `kill -9` at random moments, on a real Synapse: the archive ends as if nothing had happened.
//!
//! `SEED=…` repeats a run, `DOSE=…` makes it that many times as long.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::json;

use crate::support::{
    archive::dump,
    daemon::{Backscroll, Embedded},
    fill::{Filled, fill},
    postgres::TestDatabase,
    random,
    synapse::{Synapse, User},
};

const ROUNDS: u64 = 2;

fn backscroll(synapse: &Synapse, user: &User, database_url: Option<&str>) -> Backscroll {
    Backscroll::new(synapse.url(), &user.access_token, database_url)
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms")
        .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10")
}

/// Runs it again and again, killed each time within a part of the time that it took without, which grows until it has
/// ended by itself. Returns the number of kills.
async fn run_with_kills(backscroll: &Backscroll, whole: Duration, random: &mut Rng) -> u32 {
    let mut kills = 0;
    loop {
        let mut daemon = backscroll.start(&["run", "--once"]);
        let moment = Instant::now() + whole.mul_f64(random.f64() * (0.6 + 0.05 * f64::from(kills)));
        let ended = loop {
            match daemon.ended() {
                Some(status) => break Some(status),
                None if Instant::now() >= moment => break None,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        match ended {
            None => daemon.kill().await,
            Some(status) if status.success() => return kills,
            // The killed one's session may be a moment from its end.
            Some(status) => assert_eq!(status.code(), Some(75), "{}", daemon.stderr()),
        }
        kills += u32::from(ended.is_none());
    }
}

async fn once(backscroll: &Backscroll) -> Duration {
    let start = Instant::now();
    backscroll.once().await;
    start.elapsed()
}

async fn live_on(synapse: &Synapse, owner: &User, room: &Filled, random: &mut Rng) {
    let id = &room.room_id;
    for number in 0..140 {
        let body = json!({ "msgtype": "m.text", "body": format!("later {number}") });
        let said = synapse.send(owner, id, "m.room.message", body).await;
        match random.u8(..12) {
            0 => drop(synapse.redact(owner, id, &said, json!({})).await),
            1 => {
                let target = &room.sent[random.usize(..room.sent.len())];
                synapse.redact(owner, id, target, json!({})).await;
            }
            2 => {
                let topic = json!({ "topic": format!("topic {number}") });
                synapse.send_state(owner, id, "m.room.topic", "", topic).await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn kills_leave_no_trace() {
    let mut random = random::seeded("kills_leave_no_trace");
    let synapse = Synapse::start().await;
    let archiver = synapse.register("archiver").await;
    let mut rooms = Vec::new();
    for version in ["3", "11"] {
        rooms.push(fill(&synapse, &archiver, version, 300, random.u64(..)).await);
    }
    let mut kills = [0, 0];
    for round in 0..ROUNDS * random::dose() {
        let [spared, killed] = [TestDatabase::new().await, TestDatabase::new().await];
        let spare = backscroll(&synapse, &archiver, Some(spared.url()));
        let outer = backscroll(&synapse, &archiver, Some(killed.url()));
        let inner = backscroll(&synapse, &archiver, None);
        // First the history, then a gap.
        for phase in ["history", "gap"] {
            let whole = once(&spare).await;
            let expected = dump(spared.url()).await;
            kills[0] += run_with_kills(&outer, whole, &mut random).await;
            assert_same(&expected, &dump(killed.url()).await, &format!("outer, round {round}, {phase}"));
            // Making the server and starting it takes time too.
            kills[1] += run_with_kills(&inner, whole + Duration::from_millis(1500), &mut random).await;
            let embedded = Embedded::open(&inner).await;
            assert_same(
                &expected,
                &dump(&embedded.url()).await,
                &format!("embedded, round {round}, {phase}"),
            );
            embedded.close().await;
            if phase == "history" {
                for room in &rooms {
                    live_on(&synapse, &archiver, room, &mut random).await;
                }
            }
        }
        assert_ne!(spared.value("select count(*) from gaps").await, "0", "the sync was limited");
    }
    eprintln!("killed {} times with an outer PostgreSQL, {} times with the embedded one", kills[0], kills[1]);
    assert!(kills.iter().all(|kills| *kills > 0), "nothing was killed: {kills:?}");
}

fn assert_same(expected: &[String], found: &[String], context: &str) {
    let sets: [HashSet<&String>; 2] = [expected.iter().collect(), found.iter().collect()];
    let lost: Vec<_> = expected.iter().filter(|line| !sets[1].contains(line)).take(5).collect();
    let alien: Vec<_> = found.iter().filter(|line| !sets[0].contains(line)).take(5).collect();
    assert!(lost.is_empty() && alien.is_empty(), "{context}: lost {lost:#?}, alien {alien:#?}");
    assert_eq!(expected.len(), found.len(), "{context}");
}
