//! Backscroll archives Matrix rooms into PostgreSQL.
//!
//! # How one page flows
//!
//! ```text
//! homeserver ──HTTP──▶ matrix::Client ──Page──▶ sync / backfill loop ──▶ archive::Writer ──one transaction──▶ Postgres
//!                      bytes → raw events →     asks, waits, retries;     lock room, insert events, positions,
//!                      envelopes; one bad       holds no state that       redactions, state, gaps, AND the token,
//!                      event never a page       the database lacks        compare-and-set
//! ```
//!
//! # Where to read
//!
//! `main.rs` → [`cli`] → [`daemon`] (connect, take the lease, start the loops) → [`sync`] (forwards) and [`backfill`]
//! (backwards), which share a [`context::Context`] → [`matrix::Page`] → `archive/ingest/` ([`archive::Writer::take_in`],
//! [`archive::Writer::apply_page`]) → `migrations/`. [`matrix`] knows HTTP and no SQL, [`archive`] SQL and no HTTP.
//!
//! * `schedule`: `/sync` is stored before pages; while people talk, fewer pages are stored at once.
//! * [`fetch`]: how much is asked for at once, how soon again, and how content is got back that an edit has replaced.
//! * [`backoff`]: how failures are tried again, and when a refusal is believed.
//! * [`service`]: systemd, the HTTP listener, and whether the loops live.
//! * [`postgres`]: a private server, where no database is configured.
//!
//! Numbers such as (P71) name facts about the Matrix protocol: see [`matrix::protocol`].
//!
//! # Invariants
//!
//! * Every event that the account was shown is stored once, by room and event id, and can be given back as served.
//! * The checkpoint is never ahead of the rows: it moves in their transaction. After any crash the archive ends
//!   identical to that of a run without one.
//! * *archive + gaps = room*: where something is missing, a row says so.
//! * Whoever writes holds the lease: each transaction proves it first (`archive::lease`), so there is one writer at a time.
//! * A position, once given, never changes but by [`backfill::resequence`]. The current state moves only on the server's word.

pub mod archive;
pub mod backfill;
pub mod backoff;
pub(crate) mod child;
pub mod cli;
pub mod config;
pub mod context;
pub mod daemon;
pub mod error;
pub mod fetch;
pub mod matrix;
pub mod postgres;
pub(crate) mod schedule;
pub mod service;
pub mod sync;
pub mod telemetry;
pub mod text;

pub use error::{Error, Exit};
