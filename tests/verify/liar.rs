//! A homeserver that lies: in front of a real one, it alters what that answers.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{archived, text, verdict, verify};
use crate::support::{daemon::Backscroll, postgres::TestDatabase, synapse::Synapse};

/// Alters an answer: its path, and its body.
type Lie = Arc<dyn Fn(&str, &mut Value) + Send + Sync>;

/// What a server adds to the path of a request, to ask for events as they were signed.
const FORMAT: &str = "&filter=%7B%22event_format%22%3A%22federation%22%7D";

struct Liar {
    url: String,
    /// Ends with the test.
    _connections: JoinSet<()>,
}

impl Liar {
    async fn before(synapse: &Synapse, lie: impl Fn(&str, &mut Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (upstream, lie): (String, Lie) = (synapse.url().trim_end_matches('/').to_owned(), Arc::new(lie));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, upstream, lie) = (client.clone(), upstream.clone(), Arc::clone(&lie));
                open.spawn(async move {
                    let answer = service_fn(move |request| {
                        answer(client.clone(), upstream.clone(), Arc::clone(&lie), request)
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { url, _connections: connections }
    }
}

async fn answer(
    client: reqwest::Client,
    upstream: String,
    lie: Lie,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    // A lie about `/plain` is a server that does not know the federation format.
    let mut plain = json!(false);
    lie("/plain", &mut plain);
    let path = if plain == true { path.replace(FORMAT, "") } else { path };
    let mut asked = client.get(format!("{upstream}{path}"));
    if let Some(token) = request.headers().get("authorization") {
        asked = asked.header("authorization", token);
    }
    let answered = asked.send().await.unwrap();
    let status = answered.status();
    let mut body: Value = serde_json::from_slice(&answered.bytes().await.unwrap()).unwrap_or_default();
    lie(&path, &mut body);
    Ok(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
}

/// Every event anywhere in an answer.
fn each_event(value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    if value.get("event_id").is_some() {
        change(value);
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| each_event(value, change)),
        Value::Array(items) => items.iter_mut().for_each(|value| each_event(value, change)),
        _ => {}
    }
}

async fn tenth(database: &TestDatabase) -> String {
    let tenth = "select event_id from messages where body = 'word 10'";
    database.value(tenth).await
}

fn has(answer: &Value, kind: &str, event_id: &str) -> bool {
    let findings = answer["rooms"][0]["findings"].as_array();
    findings.is_some_and(|all| all.iter().any(|found| found["kind"] == kind && found["event_id"] == event_id))
}

/// The server leaves an event out of its list, and denies it when asked.
#[tokio::test]
async fn an_event_that_the_server_withholds_is_missed() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "11").await;
    let token = std::fs::read_to_string(backscroll.token_file()).unwrap();
    let withheld = tenth(&database).await;
    let hidden = withheld.clone();
    let liar = Liar::before(&synapse, move |path, body| {
        if let Some(chunk) = body.get_mut("chunk").and_then(Value::as_array_mut) {
            chunk.retain(|event| event["event_id"] != hidden);
        }
        if path.contains("/event/") && body["event_id"] == hidden {
            *body = json!({});
        }
    })
    .await;
    let lied_to = Backscroll::new(&liar.url, &token, Some(database.url()));
    // The archive has it: nothing is missing, but the list is not proved to be whole.
    assert_eq!(verdict(&lied_to, &[]).await, (Some(0), "agrees".to_owned()));
    database.run(&format!("delete from archive.events where event_id = '{withheld}'")).await;
    let (code, answer, _) = verify(&lied_to, &[]).await;
    assert_eq!(code, Some(1));
    assert!(has(&answer, "ancestor missing", &withheld), "{answer:#}");
}

/// The server alters what a person said, from the beginning on: the archive agrees with it, but the hash does not.
#[tokio::test]
async fn a_forged_content_is_found() {
    let synapse = Synapse::start().await;
    let (_alice, _room, honest, backscroll) = archived(&synapse, "11").await;
    let token = std::fs::read_to_string(backscroll.token_file()).unwrap();
    let forged = tenth(&honest).await;
    let target = forged.clone();
    let liar = Liar::before(&synapse, move |_, body| {
        each_event(body, &mut |event| {
            if event["event_id"] == target {
                event["content"] = text("never said");
            }
        });
    })
    .await;
    let database = TestDatabase::new().await;
    let lied_to = Backscroll::new(&liar.url, &token, Some(database.url()))
        .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms");
    lied_to.once().await;
    assert_eq!(verdict(&lied_to, &["--offline"]).await, (Some(0), "consistent".to_owned()));
    let (code, answer, _) = verify(&lied_to, &[]).await;
    assert_eq!(code, Some(1));
    assert!(has(&answer, "content hash does not fit", &forged), "{answer:#}");
    // The archive of the honest answers says what the two disagree about.
    let other = Backscroll::new(&liar.url, &token, Some(honest.url()));
    let (_, answer, _) = verify(&other, &[]).await;
    assert!(has(&answer, "content differs", &forged), "{answer:#}");
}

/// The server alters a signature, or what was signed beside the content.
#[tokio::test]
async fn a_forged_signature_is_found() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "11").await;
    let token = std::fs::read_to_string(backscroll.token_file()).unwrap();
    let forged = tenth(&database).await;
    let (target, other) = (forged.clone(), "select event_id from messages where body = 'word 20'");
    let other = database.value(other).await;
    let moved = other.clone();
    let liar = Liar::before(&synapse, move |_, body| {
        each_event(body, &mut |event| {
            if event["event_id"] == moved && event.get("depth").is_some() {
                event["depth"] = json!(1);
            }
            let is_target = event["event_id"] == target;
            let signatures = event.get_mut("signatures").and_then(Value::as_object_mut).filter(|_| is_target);
            let servers = signatures.into_iter().flat_map(|all| all.values_mut());
            let keys = servers.filter_map(Value::as_object_mut).flat_map(|keys| keys.values_mut());
            for signature in keys {
                *signature = json!(signature.as_str().unwrap().chars().rev().collect::<String>());
            }
        });
    })
    .await;
    let lied_to = Backscroll::new(&liar.url, &token, Some(database.url()));
    let (code, answer, outcome) = verify(&lied_to, &["--signatures"]).await;
    assert_eq!(code, Some(1), "{}", outcome.stderr);
    assert!(has(&answer, "signature does not fit", &forged), "{answer:#}");
    assert!(has(&answer, "event is not what its id says", &other), "{answer:#}");
}

/// The server leaves an event out of its list, and gives no graph that would show it. It is found where the server is asked
/// in another way.
#[tokio::test]
async fn a_sample_finds_what_the_list_withholds() {
    let synapse = Synapse::start().await;
    let (_alice, _room, database, backscroll) = archived(&synapse, "11").await;
    let token = std::fs::read_to_string(backscroll.token_file()).unwrap();
    let withheld = tenth(&database).await;
    database.run(&format!("delete from archive.events where event_id = '{withheld}'")).await;
    for shown_by in ["/context/", "/timestamp_to_event", "nothing"] {
        let hidden = withheld.clone();
        let liar = Liar::before(&synapse, move |path, body| match path {
            "/plain" => *body = json!(true),
            _ if path.contains(shown_by) => {
                // Of all times.
                if shown_by.starts_with("/timestamp") {
                    *body = json!({ "event_id": hidden, "origin_server_ts": 1 });
                }
            }
            _ => {
                for list in ["chunk", "events_before", "events_after"] {
                    if let Some(list) = body.get_mut(list).and_then(Value::as_array_mut) {
                        list.retain(|event| event["event_id"] != hidden);
                    }
                }
                if path.contains("/timestamp_to_event") && body["event_id"] == hidden {
                    *body = json!({});
                }
            }
        })
        .await;
        let lied_to = Backscroll::new(&liar.url, &token, Some(database.url()));
        let (_, answer, outcome) = verify(&lied_to, &[]).await;
        let notes = answer["rooms"][0]["notes"].to_string();
        assert!(
            notes.contains("a sample of") && notes.contains("nothing shows"),
            "{notes} {}",
            outcome.stderr
        );
        assert_eq!(has(&answer, "event missing", &withheld), shown_by != "nothing", "{shown_by} {answer:#}");
    }
}
