//! Whether the daemon works: its loops are alive, and the homeserver and the database answer.
//!
//! Each loop is [watched](Health::watch). Before it waits, it announces how long that may take (`pulse::within`), or
//! that it waits for an event (`pulse::resting`). A loop that is late by more than a minute is stuck. So a long
//! `/sync` does not cause a restart, but a database that never answers does. This needs no query and no timer.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    archive::Archive,
    telemetry::pulse::{self, Homeserver, Pulse},
    text::escape,
};

/// How long the database may take to answer a health check.
const PATIENCE: Duration = Duration::from_secs(5);

/// The health of one daemon.
#[derive(Debug)]
pub(crate) struct Health {
    pulses: Mutex<Vec<Weak<Pulse>>>,
    homeserver: Mutex<Homeserver>,
    archive: OnceLock<Archive>,
    migrated: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            pulses: Mutex::default(),
            homeserver: Mutex::new(Homeserver::Unknown),
            archive: OnceLock::new(),
            migrated: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// Runs a loop and watches whether it is alive.
    pub(crate) fn watch<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = T> {
        let pulse = Arc::new(Pulse::new(name));
        self.admit(&pulse);
        pulse::with(pulse, work)
    }

    fn admit(&self, pulse: &Arc<Pulse>) {
        let mut pulses = lock(&self.pulses);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(pulse));
    }

    /// The name of a stuck loop, if there is one. A loop that waits for another session's lock, such as that of an
    /// erasure, is not stuck: a restart would not help.
    pub(crate) async fn stuck(&self) -> Option<&'static str> {
        let late = self.late(Instant::now())?;
        let locked = match self.archive.get() {
            Some(archive) => tokio::time::timeout(PATIENCE, archive.waits_for_a_lock()).await,
            None => return Some(late),
        };
        if matches!(locked, Ok(Ok(true))) { None } else { Some(late) }
    }

    fn late(&self, now: Instant) -> Option<&'static str> {
        let pulses: Vec<_> = lock(&self.pulses).iter().filter_map(Weak::upgrade).collect();
        pulses.iter().find(|pulse| pulse.is_late(now)).map(|pulse| pulse.name)
    }

    /// Call this once the database is open.
    pub(crate) fn opened(&self, archive: &Archive) {
        let _ = self.archive.set(archive.clone());
    }

    /// Call this once the database is migrated.
    pub(crate) fn migrated(&self) {
        self.migrated.store(true, Ordering::Relaxed);
    }

    /// What the start waits for now.
    pub(crate) fn start_waits_for(&self) -> &'static str {
        match self.archive.get() {
            None => "waiting for the database",
            Some(_) if !self.migrated.load(Ordering::Relaxed) => "bringing the database up to date",
            Some(_) => "waiting for the homeserver",
        }
    }

    /// Records the result of the last login or `/sync` request.
    pub(crate) fn homeserver_is(&self, homeserver: Homeserver) {
        *lock(&self.homeserver) = homeserver;
    }

    /// The result of the last login or `/sync` request.
    pub(crate) fn homeserver(&self) -> Homeserver {
        lock(&self.homeserver).clone()
    }

    /// The archive, once the database is open.
    pub(crate) fn archive(&self) -> Option<&Archive> {
        self.archive.get()
    }

    /// Whether the database answers and can be written; if not, why.
    pub(crate) async fn database(&self) -> Result<(), String> {
        let Some(archive) = self.archive.get() else { return Err("is not open yet".to_owned()) };
        match tokio::time::timeout(PATIENCE, archive.exists()).await {
            Ok(Ok(_)) => self.can_write(archive).await,
            Ok(Err(error)) => Err(format!("failed to {error}")),
            Err(_) => Err(format!("does not answer within {} s", PATIENCE.as_secs())),
        }
    }
}

impl Health {
    /// Whether this process holds the lease and no transaction waits long for a lock. The error names the lock's
    /// holder.
    async fn can_write(&self, archive: &Archive) -> Result<(), String> {
        if let Some(trouble) = archive.lease_trouble() {
            return Err(trouble);
        }
        let waits = if archive.is_held_up() { archive.waits().await.unwrap_or_default() } else { Vec::new() };
        match waits.first() {
            None => Ok(()),
            Some(wait) => {
                let holder = escape(&wait.holder()).into_owned();
                Err(format!("a transaction has waited {:.0} s for a lock that {holder} holds", wait.waited_s))
            }
        }
    }
}

/// A panic in another thread cannot leave these values inconsistent, so a poisoned mutex is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse::{GRACE, resting, within};

    #[tokio::test]
    async fn who_is_later_than_announced_is_stuck_and_who_rests_is_not() {
        let health = Health::default();
        let now = Instant::now();
        let later = |seconds| now + GRACE + Duration::from_secs(seconds);
        health
            .watch("the walk", async {
                assert_eq!(health.late(later(1)), Some("the walk"));
                within(Duration::from_secs(180));
                assert_eq!(health.late(later(179)), None, "within the request's deadline");
                assert_eq!(health.late(later(190)), Some("the walk"));
                assert_eq!(health.stuck().await, None);
                resting();
                assert_eq!(health.late(later(1_000_000)), None);
                within(Duration::ZERO);
                assert_eq!(health.late(later(10)), Some("the walk"));
            })
            .await;
        assert_eq!(health.late(later(1_000_000)), None, "a loop that has ended is not stuck");
        within(Duration::ZERO);
    }
}
