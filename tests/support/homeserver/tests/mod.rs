//! The model itself, tested: each test reports one trap.

use super::{Homeserver, Json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod events;
mod tail;
mod walks;
mod wire;

/// One request over its own connection; everything the server sent.
async fn exchange(server: &Homeserver, method: &str, target: &str, body: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    let token = server.access_token();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&reply) {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => reply.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    reply
}

fn is_whole(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.is_some_and(|length| body.len() >= length.parse().unwrap())
}

async fn get(server: &Homeserver, target: &str) -> (u16, Json, String) {
    let reply = exchange(server, "GET", &format!("/_matrix/client/v3/{target}"), "").await;
    let text = String::from_utf8(reply).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, Json::parse(body).unwrap_or(Json::Bare("null".to_owned())), body.to_owned())
}

fn text(json: &Json, path: &[&str]) -> Option<String> {
    json.at(path).and_then(Json::text)
}

fn ids(json: &Json, path: &[&str]) -> Vec<String> {
    json.at(path).map_or_else(Vec::new, |events| {
        events.items().iter().filter_map(|event| text(event, &["event_id"])).collect()
    })
}

fn escape_path(segment: &str) -> String {
    segment.bytes().flat_map(|byte| ["%".to_owned(), format!("{byte:02X}")]).collect()
}

/// Walks back from a token (or the newest event) and lists ids, newest first, and how many pages it took.
async fn walk(server: &Homeserver, room: &str, from: &str, more: &str) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut from) = (Vec::new(), 0, from.to_owned());
    loop {
        let cursor = if from.is_empty() { String::new() } else { format!("&from={from}") };
        let (_, page, _) =
            get(server, &format!("rooms/{}/messages?dir=b{more}{cursor}", escape_path(room))).await;
        found.extend(ids(&page, &["chunk"]));
        pages += 1;
        match text(&page, &["end"]).filter(|end| !end.is_empty()) {
            Some(end) if pages < 100 => from = end,
            _ => return (found, pages),
        }
    }
}

async fn sync(server: &Homeserver, query: &str) -> Json {
    get(server, &format!("sync?{query}")).await.1
}

const LIMIT_10: &str = "filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A10%7D%7D%7D";

fn newest_first(server: &Homeserver, room: &str) -> Vec<String> {
    server.visible_ids(room).into_iter().rev().collect()
}
