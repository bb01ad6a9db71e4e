//! Runs beside the loops: notifications to the service manager, and the HTTP listener.
//!
//! A notification to systemd is a datagram to `$NOTIFY_SOCKET`. If that is not set, nothing is sent. `WATCHDOG=1` is
//! sent only while no loop is stuck, so systemd restarts a daemon that hangs.

pub(crate) mod health;
pub(crate) mod http;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::health::Health;
use crate::telemetry::{Progress, metrics::Metrics, pulse::Homeserver};

/// How often the service manager is notified, unless its watchdog requires a shorter interval.
const INTERVAL: Duration = Duration::from_secs(10);
/// The start may take this much longer than the interval until the next notification.
const START_ALLOWANCE: Duration = Duration::from_secs(60);
/// How often the metrics exporter drains its histograms.
const UPKEEP: Duration = Duration::from_secs(30);

/// The running services. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Services {
    ready: watch::Sender<bool>,
    shutdown: CancellationToken,
    manager: JoinSet<()>,
    _listener: JoinSet<()>,
}

impl Services {
    /// Listens on `listen`, if it is given, and starts to notify the service manager, if there is one.
    ///
    /// # Errors
    /// If the listener cannot bind to the address.
    pub(crate) async fn start(
        listen: Option<SocketAddr>,
        health: &Arc<Health>,
        progress: &Progress,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut listener = JoinSet::new();
        if let Some(address) = listen {
            let metrics = Metrics::install().context("failed to set up the metrics")?;
            let bound = http::Listener::bind(address).await?;
            tracing::info!(address = %bound.address(), "serving /livez, /readyz and /metrics");
            listener.spawn(upkeep(metrics.clone()));
            listener.spawn(bound.serve(http::Service { health: Arc::clone(health), metrics }));
        }
        let (ready, is_ready) = watch::channel(false);
        let mut manager = JoinSet::new();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let notifier =
                Notifier { health: Arc::clone(health), progress: progress.clone(), status: String::new() };
            manager.spawn(notifier.run(is_ready, shutdown.clone()));
        }
        Ok(Self { ready, shutdown: shutdown.clone(), manager, _listener: listener })
    }

    /// Reports to the service manager that the daemon has started.
    pub(crate) fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Reports to the service manager that the daemon is stopping.
    ///
    /// # Errors
    /// If the task that sends the notifications has panicked.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        while let Some(ended) = self.manager.join_next().await {
            ended.context("failed to notify the service manager")?;
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

/// Sends the notifications to the service manager.
struct Notifier {
    health: Arc<Health>,
    progress: Progress,
    /// The status that was sent last.
    status: String,
}

impl Notifier {
    async fn run(mut self, mut ready: watch::Receiver<bool>, shutdown: CancellationToken) {
        // Three notifications within each deadline of the watchdog.
        let watchdog = sd_notify::watchdog_enabled();
        let interval = watchdog.map_or(INTERVAL, |deadline| INTERVAL.min(deadline / 3));
        let mut is_ready = false;
        loop {
            if is_ready {
                self.notify_progress().await;
            } else {
                self.notify_start(interval);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(interval) => {}
                Ok(()) = ready.changed(), if !is_ready => {
                    is_ready = true;
                    notify(&[NotifyState::Ready]);
                }
            }
        }
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing the work under way")]);
    }

    /// Extends the start timeout: a start may wait for the database or the homeserver, or migrate for a long time.
    fn notify_start(&mut self, interval: Duration) {
        let allowance = interval + START_ALLOWANCE;
        let allowance = u32::try_from(allowance.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::ExtendTimeoutUsec(allowance)]);
        self.notify_status(format!("starting: {}", self.health.start_waits_for()));
    }

    async fn notify_progress(&mut self) {
        if let Some(stuck) = self.health.stuck().await {
            tracing::error!(task = stuck, "a task shows no sign of life; sending no watchdog notification");
            self.notify_status(format!("stuck: no sign of life from {stuck}"));
            return;
        }
        notify(&[NotifyState::Watchdog]);
        let mut status = self.progress.in_words();
        if let Homeserver::Fails(error) = self.health.homeserver() {
            status = format!("{error}; {status}");
        }
        self.notify_status(status);
    }

    fn notify_status(&mut self, status: String) {
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

/// A failure is only logged: Backscroll works without a service manager.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "failed to notify the service manager");
    }
}
