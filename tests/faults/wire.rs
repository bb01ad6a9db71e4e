//! Answers that are refused, cut, swollen or none at all: never stored in part, never taken for the end of a room.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use crate::support::{
    homeserver::{ALICE, Fault},
    stage::Stage,
};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The ways to ask for a pause, and the pause.
fn rate_limits() -> Vec<(&'static str, Fault, Duration)> {
    #[expect(clippy::disallowed_methods, reason = "a date for the header")]
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
    let html = || Fault::reply(429, &[("Retry-After", "1")], "<html>slow down</html>");
    vec![
        ("Retry-After in seconds", Fault::too_many(&[("Retry-After", "1")], ""), MS(1000)),
        ("retry_after_ms", Fault::too_many(&[], "1300"), MS(1300)),
        ("both: the header counts", Fault::too_many(&[("Retry-After", "2")], "10"), MS(2000)),
        ("retry_after_ms as a string", Fault::too_many(&[], "\"1100\""), MS(1100)),
        ("retry_after_ms as a float", Fault::too_many(&[], "1100.5"), MS(1100)),
        ("retry_after_ms of zero", Fault::too_many(&[], "0"), MS(200)),
        ("a negative retry_after_ms", Fault::too_many(&[], "-1000"), MS(200)),
        ("neither", Fault::too_many(&[], ""), MS(200)),
        ("neither can be read", Fault::too_many(&[("Retry-After", "soon")], "{}"), MS(200)),
        ("HTML from a proxy", html(), MS(1000)),
        ("503 from a proxy", Fault::reply(503, &[("Retry-After", "1")], "<html>"), MS(1000)),
        ("a date", Fault::too_many(&[("Retry-After", &soon)], ""), MS(2000)),
        ("an absurd time", Fault::too_many(&[], "1e12"), MS(2000)),
    ]
}

#[tokio::test]
async fn nothing_is_asked_before_the_time_that_was_asked_for() {
    let stage = Stage::new().await.set("backfill.concurrency", "32");
    let mut rooms = Vec::new();
    for (what, fault, pause) in rate_limits() {
        let room = stage.room(15);
        stage.server.inject(fault.on("/messages").in_room(&room).after(1).times(1));
        rooms.push((room, what, pause));
    }
    let mut daemon = stage.follow();
    // The last two ask for more time than a test has: until the others are done they must not be asked.
    let patient = rooms.len() - 2;
    for (room, _, _) in &rooms[..patient] {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    let asked = |room: &str| {
        let requests = stage.server.requests("/messages").into_iter();
        requests.filter(|asked| asked.room() == Some(room)).map(|asked| asked.at).collect::<Vec<_>>()
    };
    for (room, what, pause) in &rooms[..patient] {
        let times = asked(room);
        let waited = times[2] - times[1];
        assert!(waited >= *pause, "{what}: asked again after {waited:?}");
        assert!(waited < *pause + Duration::from_secs(15), "{what}: asked again after {waited:?}");
    }
    for (room, what, _) in &rooms[patient..] {
        assert_eq!(asked(room).len(), 2, "{what}");
    }
    daemon.stop().await;
}

/// Synapse says so of a /sync under which an event is purged (P106).
#[tokio::test]
async fn a_sync_that_is_not_found_is_asked_again() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    let purged = Fault::error(404, "M_UNKNOWN", "No row found (events)");
    stage.server.inject(purged.on("/sync").times(2));
    stage.say(&room, "after", 2);
    stage.agrees_in_order(&mut daemon, &room).await;
    stage.say(&room, "later", 2);
    stage.agrees_in_order(&mut daemon, &room).await;
    daemon.stop().await;
}

#[tokio::test]
async fn sync_waits_as_long_as_it_is_asked_to() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    stage.server.inject(Fault::too_many(&[("Retry-After", "2")], "").on("/sync").times(1));
    stage.once().await;
    stage.is_archived(&room).await;
    let asked = stage.server.requests("/sync");
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(2));
}

/// Everything that is no whole answer.
fn spoilt() -> Vec<(&'static str, Fault)> {
    let page = |body: &str| Fault::reply(200, &[("Content-Type", "application/json")], body);
    vec![
        ("502 with HTML", Fault::bad_gateway()),
        ("504", Fault::reply(504, &[], "")),
        ("524", Fault::reply(524, &[("Content-Type", "text/html")], "<html>a timeout occurred</html>")),
        ("500 from the server itself", Fault::error(500, "M_UNKNOWN", "Internal server error")),
        ("a closed connection", Fault::close()),
        ("a reset connection", Fault::reset()),
        ("a cut head", Fault::cut_head()),
        ("a cut body", Fault::cut_body()),
        ("a length that promises more", Fault::long_content_length()),
        ("cut chunks", Fault::cut_chunks()),
        ("cut gzip", Fault::cut_gzip()),
        ("a prefix of JSON", Fault::json_prefix(40)),
        ("malformed JSON", page(r#"{"chunk":[{]}"#)),
        ("nothing", page("")),
        ("an empty object", page("{}")),
        ("an empty array", page("[]")),
        ("null", page("null")),
        ("HTML with 200", page("<html>welcome to our network</html>")),
        ("a chunk that is null", page(r#"{"chunk":null,"start":"s1"}"#)),
        ("an end that is a number", page(r#"{"chunk":[],"end":7}"#)),
        ("a redirect", Fault::reply(302, &[("Location", "http://127.0.0.1:1/")], "")),
    ]
}

/// In the middle of a walk, so that what looks like an end would be taken for one.
#[tokio::test]
async fn spoilt_pages_are_asked_for_again() {
    let stage = Stage::new().await.set("backfill.concurrency", "32");
    let mut rooms = Vec::new();
    for (what, fault) in spoilt() {
        let room = stage.room(25);
        stage.server.inject(fault.on("/messages").in_room(&room).after(1).times(1));
        rooms.push((room, what));
    }
    stage.once().await;
    for (room, what) in rooms {
        assert_eq!(stage.difference(&room).await, None, "{what}");
        assert_eq!(stage.timeline(&room).await, stage.server.visible_ids(&room), "{what}");
        let pages = format!("select pages from backfill where room_id = '{room}'");
        assert_eq!(stage.database.value(&pages).await, "4", "{what}: no spoilt page was stored");
    }
}

#[tokio::test]
async fn spoilt_syncs_are_asked_for_again() {
    let stage = Stage::new().await;
    let room = stage.room(5);
    let mut daemon = stage.followed(&room).await;
    for (number, (_, fault)) in spoilt().into_iter().enumerate() {
        stage.server.inject(fault.on("/sync").times(1));
        stage.server.message(&room, ALICE, &format!("before fault {number}"));
        stage.agrees_in_order(&mut daemon, &room).await;
    }
    stage.server.message(&room, ALICE, "after them all");
    stage.agrees_in_order(&mut daemon, &room).await;
    assert_eq!(stage.database.value("select count(*) from gaps").await, "0");
    daemon.stop().await;
}

/// A body beyond the limit is not read to its end, however small it is on the wire.
#[tokio::test]
async fn oversized_pages_are_given_up_in_time() {
    let stage = Stage::new().await.set("backfill.page_size", "80");
    let rooms = [stage.room(25), stage.room(25), stage.room(25)];
    let faults = [Fault::oversized(65 << 20), Fault::gzip_bomb(66 << 20), Fault::endless()];
    for (room, fault) in rooms.iter().zip(faults) {
        stage.server.inject(fault.on("/messages").in_room(room).times(1));
    }
    let mut daemon = stage.follow();
    for room in &rooms {
        stage.agrees_in_order(&mut daemon, room).await;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // Three bodies of at most 64 MiB at once, with room for a vector to grow.
    assert!(kilobytes < 500 << 10, "{peak}");
    daemon.stop().await;
}

/// Closed by its administrator, or with too many users: not for ever.
#[tokio::test]
async fn a_server_that_is_closed_for_a_while_is_waited_for() {
    let stage = Stage::new().await;
    let room = stage.room(15);
    let closed = || Fault::error(403, "M_RESOURCE_LIMIT_EXCEEDED", "This homeserver is closed");
    stage.server.inject(closed().on("/sync").times(2));
    stage.server.inject(closed().on("/messages").times(2));
    stage.once().await;
    stage.is_archived(&room).await;
}
