//! The Prometheus metrics.
//!
//! Names and labels are stable; the dashboard and the alert rules in `deploy/` use them. No label contains a room, a
//! user or anything else that can have many values. Counters count in this process. Values from the database are
//! queried when `/metrics` is read. Without `http.listen`, nothing is recorded.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::pulse::Homeserver;

const EVENTS: &str = "backscroll_events_stored_total";
const PAGES: &str = "backscroll_pages_stored_total";
const SYNCS: &str = "backscroll_sync_responses_total";
const RETRIES: &str = "backscroll_retries_total";
const REQUEST: &str = "backscroll_request_duration_seconds";
const COMMIT: &str = "backscroll_commit_duration_seconds";
const SYNC_AGE: &str = "backscroll_seconds_since_sync";
const GAPS: &str = "backscroll_open_gaps";
const SEARCH_QUEUE: &str = "backscroll_search_queued_ranges";
const SEARCH_LAG: &str = "backscroll_search_lag_seconds";
const ENCRYPTED: &str = "backscroll_encrypted_messages";
const UNDECRYPTABLE: &str = "backscroll_undecryptable_messages";
const SESSION_KEYS: &str = "backscroll_session_keys";
const DECRYPTION_LAG: &str = "backscroll_decryption_lag_seconds";
const BACKUP_UNREAD: &str = "backscroll_key_backup_unread";
const ONE_TIME_KEYS: &str = "backscroll_device_one_time_keys";
const FINDINGS: &str = "backscroll_verification_findings";
const VERIFIED_AGE: &str = "backscroll_verified_age_seconds";
const WALKS: &str = "backscroll_walks";
const ROOMS: &str = "backscroll_rooms";
const DATABASE_SIZE: &str = "backscroll_database_size_bytes";
const DATABASE_UP: &str = "backscroll_database_up";
const HOMESERVER_UP: &str = "backscroll_homeserver_up";
const BUILD: &str = "backscroll_build_info";

/// The smallest is for a commit on a fast disk, the largest for a first `/sync` of a large account.
const BUCKETS: [f64; 14] =
    [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 180.0];

/// Every [class of error](crate::Error::class).
pub(crate) const CLASSES: [&str; 10] = [
    "network",
    "timeout",
    "too_large",
    "rate_limited",
    "server",
    "refused",
    "logged_out",
    "malformed",
    "setup",
    "database",
];

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `/sync`.
    Sync,
    /// `/messages`.
    Backfill,
}

impl Source {
    const ALL: [Self; 2] = [Self::Sync, Self::Backfill];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Backfill => "backfill",
        }
    }
}

/// Counts a `/sync` response that was stored.
pub(crate) fn stored_sync(event_count: usize, commit: Duration) {
    counter!(SYNCS).increment(1);
    counter!(EVENTS, "source" => Source::Sync.as_str()).increment(event_count as u64);
    histogram!(COMMIT, "kind" => "sync").record(commit);
}

/// Counts pages of history that were stored in one transaction, and the new events in them.
pub(crate) fn stored_pages(page_count: u64, event_count: u64, commit: Duration) {
    counter!(PAGES).increment(page_count);
    counter!(EVENTS, "source" => Source::Backfill.as_str()).increment(event_count);
    histogram!(COMMIT, "kind" => "page").record(commit);
}

/// Counts a failure that is retried.
pub(crate) fn retry(class: &'static str) {
    counter!(RETRIES, "class" => class).increment(1);
}

/// Counts a request to the homeserver. `outcome`: `ok`, or the class of the error.
pub(crate) fn request(endpoint: &'static str, outcome: &'static str, duration: Duration) {
    histogram!(REQUEST, "endpoint" => endpoint, "outcome" => outcome).record(duration);
}

/// Values that are queried from the database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// Seconds since the last `/sync` response was committed. `None`: there was none yet.
    pub(crate) synced_ago_s: Option<f64>,
    /// Size of the database.
    pub(crate) database_bytes: i64,
    /// Gaps that are not filled yet.
    pub(crate) open_gaps: i64,
    /// Ranges of messages that cannot be searched yet.
    pub(crate) search_queued: i64,
    /// The age of the oldest of them in seconds.
    pub(crate) search_lag_s: f64,
    /// Encrypted messages that were not redacted.
    pub(crate) encrypted: i64,
    /// Those of them that cannot be read.
    pub(crate) undecryptable: i64,
    /// Keys of sessions.
    pub(crate) session_keys: i64,
    /// The age in seconds of the oldest session whose messages were not looked at yet.
    pub(crate) decryption_lag_s: f64,
    /// Whether the account's key backup could not be read when that was last tried.
    pub(crate) is_backup_unread: bool,
    /// One-time keys of the archive's own device that the homeserver has left. `None`: there is no device.
    pub(crate) one_time_keys: Option<i64>,
    /// Findings of the last verification of each room.
    pub(crate) findings: i64,
    /// Seconds since the last good verification of the room that has waited longest for the next. 0: none ever was.
    pub(crate) verified_ago_s: f64,
    /// Walks by state. Every state is reported, so that a count that falls to zero is shown as 0.
    pub(crate) walks: Vec<(&'static str, i64)>,
    /// Watched rooms by the state of their history. Every state is reported.
    pub(crate) rooms: Vec<(&'static str, i64)>,
}

/// The metrics of this process, to be rendered.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts to record metrics for the whole process. A second call records none.
    ///
    /// # Errors
    /// If the buckets are not valid, which does not happen because they are constant.
    pub(crate) fn install() -> Result<Self, BuildError> {
        let durations = Matcher::Suffix("_duration_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_ok() {
            describe();
            begin();
        }
        Ok(Self(handle))
    }

    /// Drains the histograms' buffers. Without this they would grow until the next scrape.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// The metrics in Prometheus's text format. `gauges`: `None` if the database does not answer.
    pub(crate) fn render(&self, gauges: Option<&Gauges>, homeserver: &Homeserver) -> String {
        gauge!(DATABASE_UP).set(f64::from(u8::from(gauges.is_some())));
        gauge!(HOMESERVER_UP).set(f64::from(u8::from(*homeserver == Homeserver::Answers)));
        if let Some(gauges) = gauges {
            set(gauges);
        }
        self.0.render()
    }
}

/// Sets every counter to 0: an alert on a counter that does not exist yet would never fire.
fn begin() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for source in Source::ALL {
        counter!(EVENTS, "source" => source.as_str()).absolute(0);
    }
    for name in [PAGES, SYNCS] {
        counter!(name).absolute(0);
    }
    for class in CLASSES {
        counter!(RETRIES, "class" => class).absolute(0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn set(gauges: &Gauges) {
    if let Some(age) = gauges.synced_ago_s {
        gauge!(SYNC_AGE).set(age);
    }
    gauge!(GAPS).set(gauges.open_gaps as f64);
    gauge!(SEARCH_QUEUE).set(gauges.search_queued as f64);
    gauge!(SEARCH_LAG).set(gauges.search_lag_s);
    gauge!(ENCRYPTED).set(gauges.encrypted as f64);
    gauge!(UNDECRYPTABLE).set(gauges.undecryptable as f64);
    gauge!(SESSION_KEYS).set(gauges.session_keys as f64);
    gauge!(DECRYPTION_LAG).set(gauges.decryption_lag_s);
    gauge!(BACKUP_UNREAD).set(f64::from(u8::from(gauges.is_backup_unread)));
    // Not a number is neither few nor many.
    gauge!(ONE_TIME_KEYS).set(gauges.one_time_keys.map_or(f64::NAN, |count| count as f64));
    gauge!(FINDINGS).set(gauges.findings as f64);
    gauge!(VERIFIED_AGE).set(gauges.verified_ago_s);
    gauge!(DATABASE_SIZE).set(gauges.database_bytes as f64);
    for &(state, count) in &gauges.walks {
        gauge!(WALKS, "state" => state).set(count as f64);
    }
    for &(state, count) in &gauges.rooms {
        gauge!(ROOMS, "history_state" => state).set(count as f64);
    }
}

fn describe() {
    describe_counter!(EVENTS, "New events that this process stored, by source.");
    describe_counter!(PAGES, "Pages of history that this process stored.");
    describe_counter!(SYNCS, "Responses of /sync that this process stored.");
    describe_counter!(RETRIES, "Failures that this process retried, by class.");
    describe_histogram!(
        REQUEST,
        Unit::Seconds,
        "Duration of requests to the homeserver; /sync is a long poll."
    );
    describe_histogram!(
        COMMIT,
        Unit::Seconds,
        "Time from a response to the end of its transaction, by kind."
    );
    describe_gauge!(
        SYNC_AGE,
        Unit::Seconds,
        "Time since the last response of /sync was committed; \
         up to homeserver.sync_timeout in a quiet account."
    );
    describe_gauge!(GAPS, "Gaps in timelines that are not filled yet.");
    describe_gauge!(SEARCH_QUEUE, "Ranges of messages that cannot be searched yet.");
    describe_gauge!(
        SEARCH_LAG,
        Unit::Seconds,
        "Age of the oldest message range that cannot be searched yet."
    );
    describe_gauge!(ENCRYPTED, "Encrypted messages that were not redacted.");
    describe_gauge!(UNDECRYPTABLE, "Encrypted messages that cannot be read.");
    describe_gauge!(SESSION_KEYS, "Keys of sessions, which decrypt messages.");
    describe_gauge!(
        DECRYPTION_LAG,
        Unit::Seconds,
        "Age of the oldest session with a known key whose messages are not decrypted yet."
    );
    describe_gauge!(
        BACKUP_UNREAD,
        "1 if the account's key backup could not be read when that was last tried, else 0."
    );
    describe_gauge!(
        ONE_TIME_KEYS,
        "One-time keys of the archive's own device that the homeserver has left; NaN: it has no device."
    );
    describe_gauge!(FINDINGS, "Findings of the last recorded verification of each room.");
    describe_gauge!(
        VERIFIED_AGE,
        Unit::Seconds,
        "Time since the last good verification of the room that has waited longest for the next; 0: none ever was."
    );
    describe_gauge!(WALKS, "Backward walks by state.");
    describe_gauge!(ROOMS, "Archived rooms by the state of their history.");
    describe_gauge!(DATABASE_SIZE, Unit::Bytes, "Size of the database.");
    describe_gauge!(DATABASE_UP, "1 if the database answered this scrape, else 0.");
    describe_gauge!(HOMESERVER_UP, "1 if the last /sync request succeeded, else 0.");
    describe_gauge!(BUILD, "1, with the version as a label.");
}
