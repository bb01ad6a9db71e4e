//! Whatever happens on two servers that federate, in a random order: the archive ends with what its server shows.
//!
//! `SEED=…` repeats a run, `DOSE=…` makes it that many times as long.

use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use super::Federation;
use crate::support::{
    agreement::assert_agrees,
    archive::{mentions, timeline},
    daemon::Daemon,
    random,
    synapse::{Refused, Synapse, User, segment},
};

const ROUNDS: u64 = 2;
const STEPS: usize = 12;
/// A message of each server is with the other within this, once both run.
const PATIENCE: Duration = Duration::from_mins(2);
/// More events than a `/sync` response reports.
const BURST: usize = 110;

/// Which of the two servers something happens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Near,
    Far,
}

/// What the script has done so far.
struct Script {
    federation: Federation,
    daemon: Option<Daemon>,
    random: Rng,
    /// The server that runs without the other.
    alone: Option<Side>,
    archivist_is_in: bool,
    is_paused: bool,
    /// Texts are distinguished by their number.
    said: usize,
    /// What Alice has sent and the archivist was there to hear, in order: none of it can be late.
    punctual: Vec<String>,
    /// Events that may be redacted, each with the text that goes with it.
    texts: Vec<(String, String)>,
    /// Those that were since the archive agreed last, on one server at least.
    redacted: Vec<(String, String)>,
    /// Those that were before.
    gone: Vec<(String, String)>,
}

impl Script {
    async fn new(random: Rng) -> Self {
        let federation = Federation::new().await;
        let daemon = Some(federation.backscroll.start(&["run"]));
        Self {
            federation,
            daemon,
            random,
            alone: None,
            archivist_is_in: true,
            is_paused: false,
            said: 0,
            punctual: Vec::new(),
            texts: Vec::new(),
            redacted: Vec::new(),
            gone: Vec::new(),
        }
    }

    async fn step(&mut self) {
        let side = if self.random.bool() { Side::Near } else { Side::Far };
        match self.random.u8(..24) {
            0..7 => {
                let count = self.random.usize(1..8);
                self.say(side, count).await;
            }
            7..11 => self.topic(side).await,
            11..14 => self.redact(side).await,
            14 | 15 => self.part(side).await,
            16 => self.together().await,
            17 => drop(self.say(side, BURST).await),
            18 if self.archivist_is_in && self.runs(Side::Near) => {
                self.federation.near.leave(&self.federation.archivist, &self.federation.room).await;
                self.archivist_is_in = false;
            }
            18 | 19 => self.rejoin().await,
            20 => {
                let action = if self.random.bool() { "kick" } else { "ban" };
                self.put_out(action).await;
            }
            21 => {
                if let Some(daemon) = self.daemon.take() {
                    daemon.kill().await;
                }
            }
            22 => {
                let paused = self.random.bool();
                self.pause(paused).await;
            }
            _ => self.start(),
        }
    }

    /// Kicks or bans Bob, or lifts his ban, if he is in that state.
    async fn put_out(&self, action: &str) {
        let Federation { near, alice, bob, room, .. } = &self.federation;
        if self.runs(Side::Near) {
            let path = format!("/rooms/{}/{action}", segment(room));
            let body = json!({ "user_id": bob.user_id });
            drop(near.call(Method::POST, &path, Some(alice), Some(body)).await);
        }
    }

    /// `rooms pause` or `rooms resume`.
    async fn pause(&mut self, paused: bool) {
        if self.is_paused != paused {
            let change = if paused { "pause" } else { "resume" };
            let outcome = self.federation.backscroll.run(&["rooms", change, &self.federation.room]).await;
            assert!(outcome.status.success(), "{}", outcome.stderr);
            self.is_paused = paused;
        }
    }

    fn start(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.federation.backscroll.start(&["run"]));
        }
    }

    /// A new text, which nothing else has for a part.
    fn text(&mut self) -> String {
        self.said += 1;
        format!("text-{}-of-many", self.said)
    }

    /// Who speaks on a server, if it runs.
    fn speaker(&self, side: Side) -> Option<(&Synapse, &User)> {
        let Federation { near, far, alice, bob, .. } = &self.federation;
        match side {
            _ if !self.runs(side) => None,
            Side::Near => Some((near, alice)),
            Side::Far => Some((far, bob)),
        }
    }

    /// Notes an event if its server has taken it: Bob's may know that he was kicked.
    fn sent(&mut self, side: Side, sent: Result<String, Refused>, text: Option<String>) -> Option<String> {
        let event_id = match (side, sent) {
            (_, Ok(event_id)) => event_id,
            (Side::Far, Err(Refused { status: 403, .. })) => return None,
            (_, Err(refused)) => panic!("{refused:?}"),
        };
        if side == Side::Near && self.archivist_is_in {
            self.punctual.push(event_id.clone());
        }
        self.texts.extend(text.map(|text| (event_id.clone(), text)));
        Some(event_id)
    }

    async fn say(&mut self, side: Side, count: usize) -> Option<String> {
        let mut last = None;
        for _ in 0..count {
            let text = self.text();
            let Some((server, user)) = self.speaker(side) else { break };
            let body = json!({ "msgtype": "m.text", "body": &text });
            let sent = server.try_send(user, &self.federation.room, "m.room.message", body).await;
            last = self.sent(side, sent, Some(text));
        }
        last
    }

    async fn topic(&mut self, side: Side) {
        let text = self.text();
        let Some((server, user)) = self.speaker(side) else { return };
        let topic = json!({ "topic": &text });
        let sent = server.try_send_state(user, &self.federation.room, "m.room.topic", "", topic).await;
        self.sent(side, sent, Some(text));
    }

    async fn redact(&mut self, side: Side) {
        if self.texts.is_empty() {
            return;
        }
        let target = self.random.usize(..self.texts.len());
        let (event_id, text) = self.texts[target].clone();
        let Some((server, user)) = self.speaker(side) else { return };
        let path = format!(
            "/rooms/{}/redact/{}/{}",
            segment(&self.federation.room),
            segment(&event_id),
            segment(&text)
        );
        match server.call(Method::PUT, &path, Some(user), Some(json!({}))).await {
            Ok(answer) => {
                self.texts.swap_remove(target);
                self.sent(side, Ok(answer["event_id"].as_str().unwrap().to_owned()), None);
                self.redacted.push((event_id, text));
            }
            // The other server's event has not come here, or Bob is not in the room.
            Err(Refused { status: 403 | 404, .. }) => {}
            Err(refused) => panic!("{refused:?}"),
        }
    }

    fn runs(&self, side: Side) -> bool {
        self.alone.is_none_or(|alone| alone == side)
    }

    /// Has one server stop, and the other go on without it.
    async fn part(&mut self, stopped: Side) {
        let (near, far) = (&mut self.federation.near, &mut self.federation.far);
        let (stopping, going_on, alone) = match stopped {
            Side::Near => (near, far, Side::Far),
            Side::Far => (far, near, Side::Near),
        };
        stopping.stop();
        if self.alone == Some(stopped) {
            going_on.restart().await;
        }
        self.alone = Some(alone);
    }

    async fn rejoin(&mut self) {
        if !self.archivist_is_in && self.runs(Side::Near) {
            self.federation.near.join(&self.federation.archivist, &self.federation.room).await;
            self.archivist_is_in = true;
        }
    }

    /// Has both servers run and hear each other, and all be in the room.
    async fn together(&mut self) {
        match self.alone.take() {
            Some(Side::Near) => self.federation.far.restart().await,
            Some(Side::Far) => self.federation.near.restart().await,
            None => {}
        }
        self.rejoin().await;
        let deadline = Instant::now() + PATIENCE;
        while !self.bob_is_heard().await {
            assert!(Instant::now() < deadline, "the servers do not hear each other");
            self.put_out("unban").await;
            let Federation { near, far, bob, room, .. } = &self.federation;
            // He may be in it, or his server may believe so.
            drop(far.try_join_through(bob, room, near).await);
        }
        self.say(Side::Near, 1).await;
    }

    /// Whether the near server takes what Bob says now.
    async fn bob_is_heard(&mut self) -> bool {
        let Some(event_id) = self.say(Side::Far, 1).await else { return false };
        let Federation { near, alice, room, .. } = &self.federation;
        let path = format!("/rooms/{}/event/{}", segment(room), segment(&event_id));
        for _ in 0..20 {
            if near.call(Method::GET, &path, Some(alice), None).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// Whatever has happened, the archive comes to have it.
    async fn agrees(&mut self) {
        self.together().await;
        self.pause(false).await;
        self.start();
        let daemon = self.daemon.as_mut().unwrap();
        let (federation, redacted) = (&self.federation, &self.redacted);
        daemon
            .settles(async || match federation.difference(&[]).await {
                None => still_said(federation, redacted).await,
                difference => difference,
            })
            .await;
        self.gone.append(&mut self.redacted);
        let archived = timeline(&self.federation.database, &self.federation.room).await;
        let mut order = archived.iter();
        for event_id in &self.punctual {
            assert!(
                order.any(|it| it == event_id),
                "{event_id} is out of order: {archived:?}, {:?}",
                self.punctual
            );
        }
    }
}

/// A text of an event that the archive's server shows as redacted, and that still stands somewhere in the database. Of those
/// that are `redacted` one server may know better: Bob was no member any more.
async fn still_said(federation: &Federation, redacted: &[(String, String)]) -> Option<String> {
    let Federation { near, archivist, room, database, .. } = federation;
    for event in near.walk(archivist, room).await {
        let shown: Value = serde_json::from_str(event.raw.get()).unwrap();
        let text = redacted.iter().find(|(event_id, _)| *event_id == event.event_id).map(|(_, text)| text);
        let Some(text) = text.filter(|_| shown["unsigned"].get("redacted_because").is_some()) else {
            continue;
        };
        let found = mentions(database, text).await;
        if !found.is_empty() {
            return Some(format!("{text} of {} was redacted and stands in {found:?}", event.event_id));
        }
    }
    None
}

#[tokio::test]
async fn whatever_happens_on_two_servers() {
    let mut script = Script::new(random::seeded("whatever_happens_on_two_servers")).await;
    script.agrees().await;
    for _ in 0..ROUNDS * random::dose() {
        for _ in 0..STEPS {
            script.step().await;
        }
        script.agrees().await;
    }
    script.daemon.take().unwrap().stop().await;
    let federation = &script.federation;
    assert_eq!(still_said(federation, &script.gone).await, None);
    let resequenced = federation.backscroll.run(&["resequence", &federation.room]).await;
    assert!(resequenced.status.success(), "{}", resequenced.stderr);
    assert_agrees(federation.database.url(), &federation.near, &federation.archivist, &federation.room).await;
}
