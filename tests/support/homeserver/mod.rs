//! A homeserver to test against: a model with state, not a set of canned replies.
//!
//! A test says what happens in rooms; the model serves it as Synapse would, with two orders of events, its limits, its
//! tokens and its lies. Numbers such as (P71) are those of `src/matrix/protocol.md`.
//!
//! ```ignore
//! let server = Homeserver::start().await;
//! let room = server.create_room("10");
//! let first = server.message(&room, ALICE, "one");
//! server.message(&room, ALICE, "two");
//! server.insert_after(&room, &first, Event::message("late: arrives now, belongs after the first"));
//! server.redact(&room, &first);
//! server.behave(|habits| habits.short_pages = Some(2));
//! server.inject(Fault::cut_body().on("/messages").times(1));
//! // … run the daemon against server.url() …
//! assert_eq!(archived, server.visible(&room));
//! assert_eq!(server.most_at_once(&room), 1);
//! ```

mod event;
mod fault;
mod http;
mod ids;
mod json;
mod messages;
mod redact;
mod room;
mod routes;
mod script;
mod sync;
#[cfg(test)]
mod tests;
mod world;

pub(crate) use event::{Edits, Event, Slot, stable_json};
pub(crate) use fault::Fault;
pub(crate) use http::{Reply, Request};
pub(crate) use json::Json;
pub(crate) use messages::LastPage;
pub(crate) use sync::StateAfter;
pub(crate) use world::{Habits, OracleEvent};

use http::serve;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use world::World;

/// The archiver's account.
pub(crate) const ARCHIVER: &str = "@archive:model.test";
/// Its password, for `/login`.
pub(crate) const PASSWORD: &str = "model-password";
pub(crate) const ALICE: &str = "@alice:model.test";
pub(crate) const BOB: &str = "@bob:model.test";

/// A model homeserver; it serves until it is dropped, and is driven while it serves.
pub(crate) struct Homeserver {
    url: String,
    user_id: &'static str,
    shared: Shared,
    /// Its own, so that it serves even while a test blocks, on a child process for instance.
    runtime: Option<Runtime>,
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().thread_name("homeserver");
    builder.build().expect("a runtime of one thread starts")
}

/// What the connections and the test share.
#[derive(Clone)]
struct Shared {
    world: Arc<Mutex<World>>,
    /// Something happened in a room: wakes /sync.
    happened: Arc<Notify>,
    /// A request came in: wakes tests.
    requested: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Homeserver {
    pub(crate) async fn start() -> Self {
        Self::start_with_seed(0).await
    }

    /// The same seed and the same script make the same ids.
    pub(crate) async fn start_with_seed(seed: u64) -> Self {
        let runtime = runtime();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await;
        let listener = listener.expect("binding does not panic").expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Shared {
            world: Arc::new(Mutex::new(World::new(seed))),
            happened: Arc::default(),
            requested: Arc::default(),
        };
        runtime.spawn(accept(listener, shared.clone()));
        Self { url: format!("http://127.0.0.1:{port}"), user_id: ARCHIVER, shared, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The newest token; it works unless the account has been logged out since.
    pub(crate) fn access_token(&self) -> String {
        self.shared.lock().tokens.last().cloned().unwrap_or_default()
    }

    pub(crate) fn user_id(&self) -> &'static str {
        self.user_id
    }
}

async fn accept(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a TCP socket has this option");
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}
