//! `/livez`, `/readyz`, `/metrics` and `backscroll healthcheck`.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use super::{get, listening, metric, until_ready};
use crate::support::{homeserver::Fault, stage::Stage};

#[tokio::test]
async fn probes_tell_what_is_wrong() {
    let (stage, address) = listening().await;
    stage.server.inject(Fault::bad_gateway().on("/whoami"));
    let mut daemon = stage.follow();
    daemon.until("it listens", async || get(address, "/livez").is_some()).await;
    assert_eq!(get(address, "/livez").unwrap(), (200, "ok\n".to_owned()), "it waits, which is no death");
    let (status, text) = get(address, "/readyz").unwrap();
    assert!(status == 503 && text.contains("homeserver: has not answered yet"), "{status} {text}");
    let checked = stage.backscroll.run(&["healthcheck"]).await;
    assert_eq!(checked.status.code(), Some(69), "{}", checked.stderr);
    assert!(checked.stderr.contains("homeserver: has not answered yet"), "{}", checked.stderr);

    stage.server.heal();
    until_ready(&mut daemon, address).await;
    let checked = stage.backscroll.run(&["healthcheck"]).await;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stderr);
    assert_eq!(checked.stdout, "database: ok\nhomeserver: ok\nloops: ok\n");

    stage.server.inject(Fault::bad_gateway().on("/sync"));
    let room = stage.room(1);
    stage.say(&room, "wakes the sync", 1);
    daemon
        .until("it is not ready any more", async || {
            get(address, "/readyz").unwrap().1.contains("homeserver: failed to complete the request")
        })
        .await;
    assert_eq!(
        get(address, "/metrics").map(|(_, text)| metric(&text, "backscroll_homeserver_up")),
        Some(Some(0.0))
    );
    assert_eq!(get(address, "/").unwrap().0, 404);
    daemon.stop().await;
    let checked = stage.backscroll.run(&["healthcheck"]).await;
    assert_eq!(checked.status.code(), Some(69), "{}", checked.stderr);
    assert!(checked.stderr.contains(&format!("no answer from http://{address}: ")), "{}", checked.stderr);
}

#[tokio::test]
async fn a_listener_is_opt_in_and_its_address_must_be_free() {
    let stage = Stage::new().await;
    let checked = stage.backscroll.run(&["healthcheck"]).await;
    assert_eq!(checked.status.code(), Some(78));
    assert!(checked.stderr.contains("http.listen is not set"), "{}", checked.stderr);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stage = stage.set("http.listen", &address);
    let run = stage.backscroll.run(&["run"]).await;
    assert_eq!(run.status.code(), Some(69), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("failed to listen on {address} (`http.listen`)")), "{}", run.stderr);
    // A cron job's run does not listen.
    stage.once().await;
}

/// As many as would keep every place taken for minutes, were they waited for.
#[tokio::test]
async fn clients_that_say_nothing_keep_no_probe_waiting() {
    let (stage, address) = listening().await;
    let mut daemon = stage.follow();
    until_ready(&mut daemon, address).await;
    let half = |number: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        // Nothing at all, half a head, and a whole one whose answer nobody reads.
        let said = ["", "GET /livez HTTP/1.1\r\nHost: te", "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"]
            [number % 3];
        stream.write_all(said.as_bytes()).unwrap();
        stream
    };
    let streams: Vec<_> = (0..400).map(half).collect();
    let mut probe = TcpStream::connect(address).unwrap();
    probe.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).expect("an answer long before the others' time is over");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Nor are they waited for: each is closed.
    for mut stream in streams.into_iter().rev().take(60) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().is_ok() || ended.as_ref().is_err_and(is_reset), "{ended:?}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn metrics_count_what_was_done() {
    let (stage, address) = listening().await;
    let room = stage.room(25);
    let mut daemon = stage.followed(&room).await;
    stage.say(&room, "live", 3);
    stage.agrees(&mut daemon, &room).await;
    let (status, metrics) = get(address, "/metrics").unwrap();
    assert_eq!(status, 200);
    let value = |name: &str| metric(&metrics, name).unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
    let stored = ["sync", "backfill"]
        .map(|source| value(&format!("backscroll_events_stored_total{{source=\"{source}\"}}")));
    let events = stage.database.value("select count(*) from events").await;
    assert_eq!((stored[0] + stored[1]).to_string(), events, "{stored:?}");
    assert!(stored[0] >= 3.0 && stored[1] >= 20.0, "{stored:?}");
    assert_eq!(
        value("backscroll_pages_stored_total").to_string(),
        stage.database.value("select sum(pages) from archive.walks").await
    );
    assert!(value("backscroll_walks{state=\"done\"}") >= 1.0);
    assert_eq!(value("backscroll_rooms{history_state=\"complete\"}").to_string(), "1");
    assert_eq!(value("backscroll_rooms{history_state=\"walking\"}").to_string(), "0");
    assert!(value("backscroll_database_size_bytes") > 1e6);
    assert!(value("backscroll_seconds_since_sync") < 60.0);
    assert_eq!(value("backscroll_retries_total{class=\"network\"}").to_string(), "0");
    for name in [
        "backscroll_request_duration_seconds_count{endpoint=\"/messages\",outcome=\"ok\"}",
        "backscroll_commit_duration_seconds_count{kind=\"page\"}",
        "backscroll_commit_duration_seconds_count{kind=\"sync\"}",
    ] {
        assert!(value(name) >= 1.0, "{name}");
    }
    for word in [room.as_str(), "model.test", "live 1"] {
        assert!(!metrics.contains(word), "{word} in\n{metrics}");
    }

    stage.server.inject(Fault::bad_gateway().on("/sync").times(1));
    stage.say(&room, "after a failure", 1);
    stage.agrees(&mut daemon, &room).await;
    let (_, metrics) = get(address, "/metrics").unwrap();
    assert_eq!(metric(&metrics, "backscroll_retries_total{class=\"server\"}"), Some(1.0), "{metrics}");
    daemon.stop().await;
}
