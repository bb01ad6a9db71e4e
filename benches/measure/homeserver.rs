//! Goal 2: behind a real Synapse, against fetching the same pages and storing nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use backscroll::{
    fetch::page_size::PageSize,
    matrix::{Client, MessagesRequest, SyncRequest},
};
use futures_util::future::try_join_all;
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::{
    archiver::{Archiver, wait},
    data::Room,
    database::Database,
    process, say,
    table::{self, Row},
};

const ROOMS: u64 = 4;
/// `backfill.page_size` as it comes.
const PAGE: u32 = 1000;
const ARCHIVE: &str = "archive";

/// A Synapse of `deploy/synapse.sh`; stopped with the value, its data gone.
pub(crate) struct Synapse {
    directory: tempfile::TempDir,
    http: reqwest::Client,
    pub(crate) url: String,
}

impl Synapse {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("backscroll-bench-").tempdir_in("/var/tmp")?;
        let started = Command::new(script()).arg("start").arg(directory.path()).output()?;
        anyhow::ensure!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let url = String::from_utf8(started.stdout)?.trim().to_owned();
        // Backscroll's client has seen to it that there is a provider of TLS, which reqwest wants even for http.
        Client::new(&url)?;
        Ok(Self { directory, http: reqwest::Client::builder().no_proxy().build()?, url })
    }

    /// Processor time that it has taken.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let pid = std::fs::read_to_string(self.directory.path().join("synapse.pid"))?;
        Ok(process::cpu(pid.trim().parse()?))
    }

    /// Calls as the user that everybody in here is: through the application service, which no limit holds back.
    pub(crate) async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Value,
    ) -> anyhow::Result<Value> {
        self.call_with(method, path, "", body).await
    }

    /// The same with more of a query: `&name=value`.
    pub(crate) async fn call_with(
        &self,
        method: reqwest::Method,
        path: &str,
        query: &str,
        body: Value,
    ) -> anyhow::Result<Value> {
        let token = std::fs::read_to_string(self.directory.path().join("as_token"))?;
        let user = if path == "register" { String::new() } else { format!("?user_id=@{ARCHIVE}:localhost") };
        let url = format!("{}/_matrix/client/v3/{path}{user}{query}", self.url);
        let request = self.http.request(method, url).bearer_auth(token.trim()).body(body.to_string());
        let answer: Value = serde_json::from_slice(&request.send().await?.bytes().await?)?;
        anyhow::ensure!(answer.get("errcode").is_none(), "{path}: {answer}");
        Ok(answer)
    }

    /// Registers the account and returns its token.
    pub(crate) async fn register(&self) -> anyhow::Result<String> {
        let body = json!({ "type": "m.login.application_service", "username": ARCHIVE });
        let answer = self.call(reqwest::Method::POST, "register", body).await?;
        Ok(answer["access_token"].as_str().context("a token")?.to_owned())
    }

    /// Has a room talked full, with the contents of the replayed ones.
    async fn fill(&self, room: &Room) -> anyhow::Result<()> {
        let answer = self.call(reqwest::Method::POST, "createRoom", json!({ "room_version": "10" })).await?;
        let room_id = answer["room_id"].as_str().context("a room id")?.replace('!', "%21");
        for index in 0..room.events {
            let mut event = String::new();
            room.write_event(index, &mut event);
            let mut content = serde_json::from_str::<Value>(&event)?["content"].take();
            // What it relates to is no event of this room.
            content.as_object_mut().context("an object")?.remove("m.relates_to");
            let kind = if content.get("body").is_some() { "m.room.message" } else { "org.example.other" };
            let path = format!("rooms/{room_id}/send/{kind}/{}-{index}", room.number);
            self.call(reqwest::Method::PUT, &path, content).await?;
        }
        Ok(())
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.directory.path()).output();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/synapse.sh")
}

/// Fetches what an archive of everything needs, each room's pages one after the other and the rooms side by side.
/// Returns the events, the time, and Synapse's processor time in it.
async fn fetch(synapse: &Synapse, token: &str) -> anyhow::Result<(usize, Duration, Duration)> {
    let cpu = synapse.cpu()?;
    let (events, took) = fetch_from(&synapse.url, token).await?;
    Ok((events, took, synapse.cpu()?.saturating_sub(cpu)))
}

/// The same from any homeserver.
pub(crate) async fn fetch_from(url: &str, token: &str) -> anyhow::Result<(usize, Duration)> {
    let start = Instant::now();
    let client = Client::new(url)?;
    client.set_token(token.to_owned().into());
    let answer = client.sync(&SyncRequest { since: None, full_state: true, timeout: Duration::ZERO }).await?;
    let batch = answer.read_all().await?;
    let now = batch.next_batch.as_ref().context("next_batch")?.as_str();
    let rooms = batch.rooms.iter().map(|room| walk(&client, &room.room_id, now));
    let events = try_join_all(rooms).await?.into_iter().sum();
    Ok((events, start.elapsed()))
}

async fn walk(client: &Client, room_id: &OwnedRoomId, from: &str) -> anyhow::Result<usize> {
    // Asked for after the first sync, as the archive does.
    client.state(room_id).await?;
    let (mut from, mut events) = (from.to_owned(), 0);
    let mut size = PageSize::new(PAGE);
    loop {
        let start = Instant::now();
        let (limit, most_bytes) = (size.limit(false), size.most_bytes());
        let request =
            MessagesRequest { room_id, from: Some(&from), to: None, limit, most_bytes, filter: None };
        let page = client.messages(&request).await?;
        size.after_page(&page, start.elapsed());
        events += page.chunk.events.len();
        match page.end {
            Some(end) => end.as_str().clone_into(&mut from),
            None => return Ok(events),
        }
    }
}

/// Fills four rooms with so many messages each, then fetches and verifies them alternately.
pub(crate) async fn print_proof(database: &Database, events: u64, repetitions: usize) -> anyhow::Result<()> {
    let synapse = Synapse::start()?;
    let token = synapse.register().await?;
    let rooms: Vec<_> = (0..ROOMS).map(|number| Room { number, events, ..Room::default() }).collect();
    try_join_all(rooms.iter().map(|room| synapse.fill(room))).await?;
    let archiver = Archiver::with_token(&synapse.url, &token, &database.fresh("archived").await?)?;
    archiver.once()?;
    fetch(&synapse, &token).await?;
    let (mut ratios, mut memory) = (vec![], 0);
    for _ in 0..repetitions {
        let (_, only, _) = fetch(&synapse, &token).await?;
        let run = wait(archiver.start(&["verify"])?, Instant::now())?;
        say(&format!("  verified in {:.2?}, fetched in {only:.2?}", run.took));
        ratios.push(run.took.as_secs_f64() / only.as_secs_f64());
        memory = run.peak_rss_kib.max(memory);
    }
    let row = Row::new(format!("{ROOMS} rooms of {events}"))
        .quartiles(&ratios, 2)
        .cell(format!("{} MiB", memory / 1024));
    table::print(&["behind Synapse", "verifying / fetching", "most memory"], &[row]);
    Ok(())
}

/// Fills four rooms with so many messages each, then fetches and archives them alternately.
pub(crate) async fn print(database: &Database, events: u64, repetitions: usize) -> anyhow::Result<()> {
    let synapse = Synapse::start()?;
    let token = synapse.register().await?;
    let start = Instant::now();
    let rooms: Vec<_> = (0..ROOMS).map(|number| Room { number, events, ..Room::default() }).collect();
    try_join_all(rooms.iter().map(|room| synapse.fill(room))).await?;
    say(&format!("  {ROOMS} rooms of {events} messages were said in {:.0?}", start.elapsed()));
    // Fills Synapse's caches.
    let (total, ..) = fetch(&synapse, &token).await?;
    let (mut ratios, mut archived, mut fetched, mut busy) = (vec![], vec![], vec![], vec![]);
    for repetition in 0..repetitions {
        let mut only = None;
        if repetition % 2 == 0 {
            only = Some(fetch(&synapse, &token).await?);
        }
        let url = database.fresh("archived").await?;
        let before = synapse.cpu()?;
        let run = Archiver::with_token(&synapse.url, &token, &url)?.once()?;
        let cpu = synapse.cpu()?.saturating_sub(before);
        let stored = database.number("archived", "select count(*)::text from archive.events").await?;
        anyhow::ensure!(stored == i64::try_from(total)?, "{stored} of {total} events were archived");
        let (_, only, only_cpu) = match only {
            Some(only) => only,
            None => fetch(&synapse, &token).await?,
        };
        say(&format!("  archived in {:.2?}, fetched in {only:.2?}", run.took));
        ratios.push(run.took.as_secs_f64() / only.as_secs_f64());
        archived.push(run.took.as_secs_f64());
        fetched.push(only.as_secs_f64());
        busy.push(cpu.as_secs_f64() / only_cpu.as_secs_f64());
    }
    let row = Row::new(format!("{ROOMS} rooms of {events}"))
        .quartiles(&ratios, 3)
        .quartiles(&archived, 2)
        .quartiles(&fetched, 2)
        .quartiles(&busy, 3);
    let heads =
        ["behind Synapse", "archiving / fetching", "archiving, s", "fetching, s", "Synapse's CPU, the same"];
    table::print(&heads, &[row]);
    Ok(())
}
