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
//! `main.rs` → [`daemon`] (connect, take the lease, start the loops) → [`sync`] (forwards) and [`backfill`] (backwards) →
//! [`matrix::Page`] ([`edits`] undone) → [`archive::Writer::take_in`] and [`archive::Writer::apply_page`] →
//! `migrations/`. [`matrix`] knows HTTP and no SQL, [`archive`] SQL and no HTTP. [`turns`] lets `/sync` go before the
//! pages, of which fewer are stored at once while people talk, and [`lively`] keeps them short in their rooms. Where nobody
//! does, and the server is faster than the database, a few pages are fetched ahead and stored as one. [`vanished`] finds the
//! rooms that `/sync` says nothing of any more. [`backoff`] is how failures are tried again and when a refusal is believed,
//! [`pace`] how answers that bring nothing new are asked on from.
//! [`postgres`] runs a private server where no database is configured. [`health`] knows whether the loops live;
//! [`service`] tells systemd, [`http`] whoever asks.
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
//! * A position, once given, never changes but by [`resequence`]. The current state moves only on the server's word.

pub mod archive;
pub mod backfill;
pub mod backoff;
pub(crate) mod child;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod edits;
pub mod error;
pub mod health;
pub mod http;
pub mod lively;
pub mod matrix;
pub mod metrics;
pub mod pace;
pub mod page_size;
pub mod postgres;
pub mod requirements;
pub mod resequence;
pub mod retained;
pub mod service;
pub mod sync;
pub mod telemetry;
pub mod turns;
pub mod vanished;

pub use error::{Error, Retry};
