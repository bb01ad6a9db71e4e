//! What runs beside the loops: telling the service manager how it goes, and the HTTP listener.
//!
//! systemd's protocol is a datagram to `$NOTIFY_SOCKET`; where that is not set nothing is sent. `WATCHDOG=1` is sent only
//! while no loop is stuck, so a daemon that hangs is restarted although its process lives.

pub mod health;
pub mod http;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::health::Health;
use crate::telemetry::{Progress, metrics::Metrics, pulse::Homeserver};

/// How often the service manager is notified, unless its watchdog wants to hear more.
const INTERVAL: Duration = Duration::from_secs(10);
/// For how much longer than that the start may go on without another word.
const START_ALLOWANCE: Duration = Duration::from_secs(60);
/// How often the histograms are folded.
const UPKEEP: Duration = Duration::from_secs(30);

/// What runs beside the loops. Ends with the value.
#[derive(Debug)]
pub struct Services {
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
    manager: JoinSet<()>,
    _listener: JoinSet<()>,
}

impl Services {
    /// Listens at `listen`, if that is given, and begins to talk to the service manager, if there is one.
    ///
    /// # Errors
    /// If the address cannot be listened at.
    pub async fn start(
        listen: Option<SocketAddr>,
        health: &Arc<Health>,
        progress: &Progress,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut listener = JoinSet::new();
        if let Some(address) = listen {
            let metrics = Metrics::install().context("the metrics cannot be set up")?;
            let bound = http::Listener::bind(address).await?;
            tracing::info!(address = %bound.address(), "serving /livez, /readyz and /metrics");
            listener.spawn(upkeep(metrics.clone()));
            listener.spawn(bound.serve(http::Service { health: Arc::clone(health), metrics }));
        }
        let (ready, is_ready) = watch::channel(false);
        let mut manager = JoinSet::new();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let teller =
                Teller { health: Arc::clone(health), progress: progress.clone(), said: String::new() };
            manager.spawn(teller.run(is_ready, shutdown.clone()));
        }
        Ok(Self { ready, shutdown: shutdown.clone(), manager, _listener: listener })
    }

    /// The daemon is up.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Says that the daemon is stopping.
    ///
    /// # Errors
    /// If a part has panicked.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        while let Some(ended) = self.manager.join_next().await {
            ended.context("the service manager could not be notified")?;
        }
        Ok(())
    }
}

async fn upkeep(metrics: Metrics) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}

/// Who talks to the service manager.
struct Teller {
    health: Arc<Health>,
    progress: Progress,
    said: String,
}

impl Teller {
    async fn run(mut self, mut ready: watch::Receiver<bool>, shutdown: CancellationToken) {
        // Three chances for each deadline.
        let watchdog = sd_notify::watchdog_enabled();
        let interval = watchdog.map_or(INTERVAL, |deadline| INTERVAL.min(deadline / 3));
        let mut is_ready = false;
        loop {
            if is_ready {
                self.say_progress().await;
            } else {
                self.say_start(interval);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(interval) => {}
                Ok(()) = ready.changed(), if !is_ready => {
                    is_ready = true;
                    say(&[NotifyState::Ready]);
                }
            }
        }
        say(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing what is in hand")]);
    }

    /// A start may wait for the database or the homeserver, or migrate, for as long as that takes.
    fn say_start(&mut self, interval: Duration) {
        let allowance = interval + START_ALLOWANCE;
        let allowance = u32::try_from(allowance.as_micros()).unwrap_or(u32::MAX);
        say(&[NotifyState::ExtendTimeoutUsec(allowance)]);
        self.say_status(format!("starting: {}", self.health.start_waits_for()));
    }

    async fn say_progress(&mut self) {
        if let Some(stuck) = self.health.stuck().await {
            tracing::error!(task = stuck, "no sign of life; the service manager's watchdog is not fed");
            self.say_status(format!("stuck: no sign of life from {stuck}"));
            return;
        }
        say(&[NotifyState::Watchdog]);
        let mut status = self.progress.in_words();
        if let Homeserver::Fails(error) = self.health.homeserver() {
            status = format!("{error}; {status}");
        }
        self.say_status(status);
    }

    fn say_status(&mut self, status: String) {
        if status != self.said {
            say(&[NotifyState::Status(&status)]);
            self.said = status;
        }
    }
}

/// A service manager that does not listen is its own trouble.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}
