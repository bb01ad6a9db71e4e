//! What a program on matrix-sdk does to keep a history: its event cache, in SQLite, paginated back to each room's start.
//! `peer-matrix-sdk URL DIRECTORY`; prints how many events the cache reported.

use anyhow::Context as _;
use matrix_sdk::{
    Client, Room, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    config::SyncSettings,
    ruma::{device_id, user_id},
    store::RoomLoadSettings,
};

/// As many as Synapse gives.
const PAGE: u16 = 1000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("a URL")?;
    let directory = arguments.next().context("a directory")?;
    let client = Client::builder().homeserver_url(url).sqlite_store(directory, None).build().await?;
    let session = MatrixSession {
        meta: SessionMeta {
            user_id: user_id!("@archive:bench.test").to_owned(),
            device_id: device_id!("D").to_owned(),
        },
        tokens: SessionTokens { access_token: "replay".to_owned(), refresh_token: None },
    };
    client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await?;
    client.event_cache().subscribe()?;
    client.sync_once(SyncSettings::default().full_state(true)).await?;
    let rooms: Vec<_> = client.joined_rooms().into_iter().map(|room| tokio::spawn(walk(room))).collect();
    let mut events = 0;
    for room in rooms {
        events += room.await??;
    }
    println!("{events}");
    Ok(())
}

/// Fetches a room's history to its start.
async fn walk(room: Room) -> anyhow::Result<usize> {
    let (cache, _handles) = room.event_cache().await?;
    let mut events = 0;
    loop {
        let outcome = cache.pagination().run_backwards_once(PAGE).await?;
        events += outcome.events.len();
        if outcome.reached_start {
            return Ok(events);
        }
    }
}
