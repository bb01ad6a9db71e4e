//! Servers that answer at once, again and again, with nothing new: asked ever more rarely, whichever loop it is.
//!
//! The pauses are measured from below, so that a busy machine cannot fail the tests; without them a hundred requests take
//! as long as the machine needs, which is a second at most.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::support::{
    daemon::Daemon,
    homeserver::{ALICE, ARCHIVER, Fault, Reply, Request},
    stage::Stage,
};

/// The true answer with another body; `{n}` in it is another number each time.
fn always(body: String) -> Fault {
    let number = AtomicUsize::new(0);
    Fault::change(move |reply| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        *reply = Reply::ok(body.replace("{n}", &number.to_string()));
    })
}

/// The times of requests of one kind, from the first on that came after this was made.
struct Requests<'s> {
    stage: &'s Stage,
    fragment: &'static str,
    before: usize,
}

impl<'s> Requests<'s> {
    fn new(stage: &'s Stage, fragment: &'static str) -> Self {
        Self { stage, fragment, before: stage.server.requests(fragment).len() }
    }

    fn all(&self) -> Vec<Request> {
        self.stage.server.requests(self.fragment).split_off(self.before)
    }

    /// Waits until there are so many, and makes sure that the last `count` of them took this long.
    async fn take(&self, daemon: &mut Daemon, until: usize, count: usize, least: Duration) {
        daemon.until("it has asked so often", async || self.all().len() >= until).await;
        let all = self.all();
        let took = all[until - 1].at - all[until - 1 - count].at;
        assert!(took >= least, "{count} requests in {took:?}");
    }
}

/// A response that reports a room what is known.
fn known_sync(room: &str, event_id: &str, next_batch: &str) -> String {
    let event = format!(
        r#"{{"type":"m.room.message","sender":"{ALICE}","event_id":"{event_id}",
            "origin_server_ts":1,"content":{{}}}}"#
    );
    let timeline = format!(r#"{{"limited":false,"events":[{event}]}}"#);
    format!(r#"{{"next_batch":"{next_batch}","rooms":{{"join":{{"{room}":{{"timeline":{timeline}}}}}}}}}"#)
}

#[tokio::test]
async fn syncs_that_bring_nothing_new_are_paced() {
    // Pauses of 50, 100, … 1600 ms where the token stays; of at most half a second where it moves.
    let cases = [(true, false, 6, 1500), (true, true, 10, 2000), (false, false, 6, 1500)];
    for (repeats, moves, requests, least) in cases {
        let stage = Stage::new().await.set("homeserver.sync_timeout", "5s");
        let room = stage.room(5);
        let mut daemon = stage.followed(&room).await;
        let last = stage.server.visible_ids(&room).pop().unwrap();
        // Each request but the first has a token that the model refuses at once, so that no answer waits for news.
        let next_batch = if moves { "x{n}" } else { "x" };
        let nothing = format!(r#"{{"next_batch":"{next_batch}"}}"#);
        let body = if repeats { known_sync(&room, &last, next_batch) } else { nothing };
        stage.server.inject(always(body).on("/sync"));
        // Ends the request that waits.
        let asked = Requests::new(&stage, "/sync");
        stage.room(0);
        asked.take(&mut daemon, requests + 3, requests, Duration::from_millis(least)).await;
        daemon.stop().await;
    }
}

#[tokio::test]
async fn pages_that_bring_nothing_new_are_paced() {
    let known = r#"{"type":"m.room.message","sender":"@alice:model.test","event_id":"ID",
        "origin_server_ts":1,"content":{}}"#;
    for chunk in ["", known] {
        let stage = Stage::new().await;
        let room = stage.room(15);
        let last = stage.server.visible_ids(&room).pop().unwrap();
        let body = format!(r#"{{"chunk":[{}],"start":"s","end":"x{{n}}"}}"#, chunk.replace("ID", &last));
        stage.server.inject(always(body).on("/messages").after(1));
        let asked = Requests::new(&stage, "/messages");
        let mut daemon = stage.follow();
        asked.take(&mut daemon, 16, 10, Duration::from_secs(2)).await;
        // Each page is one transaction, so these are as few.
        let pages: usize =
            stage.database.value("select max(pages) from archive.walks").await.parse().unwrap();
        assert!(pages <= asked.all().len(), "{pages} pages stored");
        stage.server.heal();
        daemon.stop().await;
    }
}

/// What is known leads on, too.
#[tokio::test]
async fn a_walk_through_what_is_known_is_not_paced() {
    let stage = Stage::new().await;
    let room = stage.room(400);
    stage.once().await;
    let asked = Requests::new(&stage, "/messages");
    let again = stage.backscroll.run(&["backfill", &room]).await;
    assert!(again.status.success(), "{}", again.stderr);
    let all = asked.all();
    assert!(all.len() > 40, "{}", all.len());
    // With pauses of half a second these would take 18 s at least.
    let took = all[all.len() - 1].at - all[0].at;
    assert!(took < Duration::from_secs(15), "{} requests in {took:?}", all.len());
}

#[tokio::test]
async fn the_look_into_a_left_room_s_past_is_paced() {
    let stage = Stage::new().await;
    let other = stage.room(5);
    let mut daemon = stage.followed(&other).await;
    let room = stage.server.create_room_by("10", ALICE);
    let body = r#"{"chunk":[],"start":"s","end":"x{n}"}"#.to_owned();
    stage.server.inject(always(body).on("/messages").in_room(&room));
    // As Synapse, which shows the state to who has declined an invite.
    stage.server.inject(Fault::reply(200, &[], "[]").on("/state").in_room(&room));
    let asked = Requests::new(&stage, "/messages");
    stage.server.invite(&room, ARCHIVER);
    let membership = format!("select coalesce(max(membership), '') from rooms where room_id = '{room}'");
    daemon.until("it is invited", async || stage.database.value(&membership).await == "invite").await;
    stage.server.leave(&room, ARCHIVER);
    asked.take(&mut daemon, 13, 10, Duration::from_secs(2)).await;
    stage.server.heal();
    daemon.stop().await;
}

#[tokio::test]
async fn a_resequence_that_gets_nothing_new_is_paced() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    stage.once().await;
    let body = r#"{"chunk":[],"start":"s","end":"x{n}"}"#.to_owned();
    stage.server.inject(always(body).on("/messages"));
    let asked = Requests::new(&stage, "/messages");
    let mut daemon = stage.backscroll.start(&["resequence", &room]);
    asked.take(&mut daemon, 13, 10, Duration::from_secs(2)).await;
    daemon.kill().await;
}
