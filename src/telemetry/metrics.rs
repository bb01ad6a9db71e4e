//! The metrics: what they are called, and how they are read.
//!
//! Names and labels are stable; `deploy/` holds a dashboard and alert rules that use them. No label holds a room, a user
//! or anything else of which there may be many. Counters are this process's and cost an addition; what only the database
//! knows is read when somebody asks. Where nobody listens nothing is kept.

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
const WALKS: &str = "backscroll_walks";
const ROOMS: &str = "backscroll_rooms";
const DATABASE_SIZE: &str = "backscroll_database_size_bytes";
const DATABASE_UP: &str = "backscroll_database_up";
const HOMESERVER_UP: &str = "backscroll_homeserver_up";
const BUILD: &str = "backscroll_build_info";

/// From a commit on a fast disk to a first `/sync` of a large account.
const BUCKETS: [f64; 14] =
    [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 180.0];

/// Every state that a walk can be in, so that a count that falls to none is shown as 0 and not left as it was.
const WALK_STATES: [&str; 3] = ["open", "stalled", "done"];
/// The same for a room's history.
const HISTORY_STATES: [&str; 5] = ["none", "walking", "stalled", "truncated", "complete"];

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

/// Counts pages of history that were stored in one transaction, with so many new events.
pub(crate) fn stored_pages(page_count: u64, event_count: u64, commit: Duration) {
    counter!(PAGES).increment(page_count);
    counter!(EVENTS, "source" => Source::Backfill.as_str()).increment(event_count);
    histogram!(COMMIT, "kind" => "page").record(commit);
}

/// Counts a failure that is tried again.
pub(crate) fn retry(class: &'static str) {
    counter!(RETRIES, "class" => class).increment(1);
}

/// Counts a request to the homeserver: which endpoint, and what came of it (`ok`, or the class of the error).
pub(crate) fn request(endpoint: &'static str, outcome: &'static str, duration: Duration) {
    histogram!(REQUEST, "endpoint" => endpoint, "outcome" => outcome).record(duration);
}

/// Numbers that only the database knows.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Seconds since the last `/sync` response was committed; `None`: none was yet.
    pub synced_ago_s: Option<f64>,
    /// Size of the database.
    pub database_bytes: i64,
    /// Known holes that are being filled.
    pub open_gaps: i64,
    /// Walks by state.
    pub walks: Vec<(String, i64)>,
    /// Watched rooms by the state of their history.
    pub rooms: Vec<(String, i64)>,
}

/// The metrics of this process, to be rendered.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Begins to keep metrics, for the whole process. A second call keeps none.
    ///
    /// # Errors
    /// None that the fixed buckets could have.
    pub fn install() -> Result<Self, BuildError> {
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

    /// Folds what the histograms have gathered; without it they would grow until somebody asks.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// The metrics in Prometheus's text format. `gauges`: `None` where the database does not answer.
    pub fn render(&self, gauges: Option<&Gauges>, homeserver: &Homeserver) -> String {
        gauge!(DATABASE_UP).set(f64::from(u8::from(gauges.is_some())));
        gauge!(HOMESERVER_UP).set(f64::from(u8::from(*homeserver == Homeserver::Answers)));
        if let Some(gauges) = gauges {
            set(gauges);
        }
        self.0.render()
    }
}

/// What is shown before anything has happened: an alert on a counter that is not there would never fire.
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

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn set(gauges: &Gauges) {
    if let Some(age) = gauges.synced_ago_s {
        gauge!(SYNC_AGE).set(age);
    }
    gauge!(GAPS).set(gauges.open_gaps as f64);
    gauge!(DATABASE_SIZE).set(gauges.database_bytes as f64);
    for state in WALK_STATES {
        gauge!(WALKS, "state" => state).set(count(&gauges.walks, state) as f64);
    }
    for state in HISTORY_STATES {
        gauge!(ROOMS, "history_state" => state).set(count(&gauges.rooms, state) as f64);
    }
}

fn count(counts: &[(String, i64)], state: &str) -> i64 {
    counts.iter().find(|(known, _)| known == state).map_or(0, |(_, count)| *count)
}

fn describe() {
    describe_counter!(EVENTS, "New events that this process stored, by where they came from.");
    describe_counter!(PAGES, "Pages of history that this process stored.");
    describe_counter!(SYNCS, "Responses of /sync that this process stored.");
    describe_counter!(RETRIES, "Failures after which this process tried again, by class.");
    describe_histogram!(REQUEST, Unit::Seconds, "Requests to the homeserver; /sync waits for news.");
    describe_histogram!(COMMIT, Unit::Seconds, "From an answer to the end of its transaction, by kind.");
    describe_gauge!(
        SYNC_AGE,
        Unit::Seconds,
        "Time since the last response of /sync was committed; \
         up to homeserver.sync_timeout in a quiet account."
    );
    describe_gauge!(GAPS, "Known holes in timelines that are being filled.");
    describe_gauge!(WALKS, "Backward walks by state.");
    describe_gauge!(ROOMS, "Archived rooms by the state of their history.");
    describe_gauge!(DATABASE_SIZE, Unit::Bytes, "Size of the database.");
    describe_gauge!(DATABASE_UP, "Whether the database answered when this was asked.");
    describe_gauge!(HOMESERVER_UP, "Whether the homeserver answered the last request for news.");
    describe_gauge!(BUILD, "1, with the version as a label.");
}
