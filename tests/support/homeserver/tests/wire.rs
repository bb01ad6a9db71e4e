//! Faults and tokens.

use super::super::{Fault, Homeserver, PASSWORD, Reply, Request};
use super::{escape_path, exchange, get, is_whole, text};
use std::io::{Read, Write};
use std::time::Duration;

#[tokio::test]
async fn faults_strike_where_and_as_often_as_configured() {
    let server = Homeserver::start().await;
    let room = server.create_room("10");
    let path = format!("rooms/{}/messages?dir=b", escape_path(&room));
    server.inject(Fault::too_many(&[("Retry-After", "3")], "3000").on("/messages").after(1).times(1));
    let statuses = [get(&server, &path).await.0, get(&server, &path).await.0, get(&server, &path).await.0];
    assert_eq!(statuses, [200, 429, 200]);
    server.inject(Fault::forbidden().in_room(&room));
    assert_eq!((get(&server, &path).await.0, get(&server, "joined_rooms").await.0), (403, 200));
    server.heal();
    server.inject(Fault::bad_gateway().times(1));
    assert!(get(&server, &path).await.2.starts_with("<html>"));
    server.inject(Fault::dead_token("s1"));
    assert_eq!(get(&server, "sync?since=s1").await.0, 400);
    server.inject(
        Fault::change(|reply: &mut Reply| reply.status = 418)
            .when(|request: &Request| request.query("dir") == Some("b")),
    );
    assert_eq!(get(&server, &path).await.0, 418);
    assert_eq!(server.requests("/messages").len(), 6);
    assert_eq!(server.most_at_once(&room), 1);
}

#[tokio::test]
async fn faults_break_the_wire_as_named() {
    let server = Homeserver::start().await;
    let target = "/_matrix/client/v3/joined_rooms";
    let whole = exchange(&server, "GET", target, "").await;
    for (fault, most) in [
        (Fault::close(), 0),
        (Fault::reset(), 0),
        (Fault::cut_head(), 20),
        (Fault::cut_body(), whole.len() - 1),
        (Fault::cut_chunks(), whole.len() + 10),
    ] {
        server.inject(fault.times(1));
        let reply = exchange(&server, "GET", target, "").await;
        assert!(reply.len() <= most && !is_whole(&reply));
    }
    server.inject(Fault::long_content_length().times(1));
    assert!(!is_whole(&exchange(&server, "GET", target, "").await));
    server.inject(Fault::oversized(100_000).times(1));
    assert!(exchange(&server, "GET", target, "").await.len() > 100_000);
    server.inject(Fault::gzip_bomb(1_000_000).times(1));
    assert!(exchange(&server, "GET", target, "").await.len() < 10_000);
    server.inject(Fault::cut_gzip().times(1));
    let zipped = exchange(&server, "GET", target, "").await;
    assert!(String::from_utf8_lossy(&zipped).contains("Content-Encoding: gzip"));
    server.inject(Fault::stall().times(1));
    let stalled = tokio::time::timeout(Duration::from_millis(50), exchange(&server, "GET", target, "")).await;
    assert!(stalled.is_err());
    assert_eq!(exchange(&server, "GET", target, "").await, whole);
}

#[tokio::test]
async fn a_blocked_test_is_served_all_the_same() {
    let server = Homeserver::start().await;
    let mut stream = std::net::TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\n\r\n").unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
}

/// P126, P130: tokens, and the password that gives a new one.
#[tokio::test]
async fn a_lost_login_can_be_renewed() {
    let server = Homeserver::start().await;
    server.log_out(true);
    let (status, body, _) = get(&server, "account/whoami").await;
    assert_eq!((status, text(&body, &["errcode"]).as_deref()), (401, Some("M_UNKNOWN_TOKEN")));
    assert!(body.get("soft_logout").unwrap().is_true());
    let login = format!(
        r#"{{"type":"m.login.password","identifier":{{"type":"m.id.user","user":"archive"}},
            "password":"{PASSWORD}"}}"#
    );
    exchange(&server, "POST", "/_matrix/client/v3/login", &login).await;
    let (status, body, _) = get(&server, "account/whoami").await;
    assert_eq!((status, text(&body, &["user_id"]).as_deref()), (200, Some(server.user_id())));
}
