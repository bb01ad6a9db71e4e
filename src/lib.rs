//! Backscroll archives Matrix rooms into PostgreSQL.
//!
//! # How one page flows
//!
//! ```text
//! homeserver ──HTTP──▶ matrix::Client ──Page──▶ sync / backfill loop ──▶ archive::Writer ──one transaction──▶ Postgres
//!                      parses each event        requests, waits,          lock room, insert events, positions,
//!                      separately; an invalid   retries; keeps no state   redactions, state, gaps, AND the token
//!                      one affects no other     outside the database      (compare-and-set)
//! ```
//!
//! # Where to read
//!
//! `main.rs` → [`cli`] → [`daemon`] (connect, take the lease, start the loops) → [`sync`] (forwards) and [`backfill`]
//! (backwards), which share a [`context::Context`] → [`matrix::Page`] → `archive/ingest/`
//! ([`archive::Writer::take_in`], [`archive::Writer::apply_page`]) → `migrations/`. [`matrix`] contains HTTP and no
//! SQL, [`archive`] SQL and no HTTP.
//!
//! * `archive/derived/`: what follows from the events and is kept for readers: edits, threads, activity, names, and the
//!   queue of the search. `daemon/fill_search.rs` fills the search behind the writer.
//! * `schedule`: `/sync` responses are stored before pages; while rooms are active, fewer pages are stored at once.
//! * [`fetch`]: the size of a page, the pause between requests, and the original content of edited events.
//! * [`matrix::proof`]: ids, hashes and signatures of single events, and evidence for third parties; `archive/evidence.rs`
//!   stores what it needs.
//! * [`backoff`]: when failures are retried, and when a refusal counts as final.
//! * `verify`: compares the archive with itself and with the homeserver, for `backscroll verify`.
//!   `verify/seal/` has the hashes over the events of a day, and manifests.
//! * `encryption`: Megolm, by vodozemac: reads key files, decrypts events. `archive/encryption/` stores sessions and
//!   plaintexts, `daemon/decrypt.rs` decrypts behind the writer.
//! * `transfer`: takes rooms out into files and puts them in again, row for row; `transfer/foreign/` reads files of
//!   other programs, for `backscroll import --from`, and `archive/import.rs` stores them.
//! * [`service`]: systemd, the HTTP listener, and whether the loops are alive.
//! * [`postgres`]: the private server, which is used if no database is configured.
//!
//! Numbers such as (P71) refer to facts about the Matrix protocol: see [`matrix::protocol`].
//!
//! # Invariants
//!
//! * Every event that the homeserver returned is stored once, by room and event id, and can be restored as served.
//! * The checkpoint is never ahead of the rows: it moves in their transaction. After any crash, the archive ends
//!   identical to that of a run without one.
//! * *archive + gaps = room*: if something is missing, a row records it.
//! * Only the process that holds the lease writes: each transaction checks the lease first (`archive::lease`). The choice
//!   of rooms and the keys of encrypted messages are the operator's, and come without it.
//! * What a file of another program says changes nothing that the homeserver gave, and gives way to it.
//! * What is kept for readers follows from the events, in the transaction that stores or changes them. Only the search
//!   and late decrypting lag behind; what may no longer be found or read is gone at once.
//! * A position never changes, except by [`backfill::resequence`]. Only `/sync` and `/state` move the current state.

#![allow(rustdoc::private_intra_doc_links, reason = "the docs are for those who work on the source")]

pub mod archive;
pub mod backfill;
pub(crate) mod backoff;
pub(crate) mod child;
pub mod cli;
pub mod config;
pub mod context;
pub mod daemon;
pub(crate) mod encryption;
pub(crate) mod error;
pub mod fetch;
pub mod matrix;
pub mod postgres;
pub(crate) mod schedule;
pub(crate) mod service;
pub(crate) mod sync;
pub mod telemetry;
pub(crate) mod text;
pub(crate) mod transfer;
pub(crate) mod verify;

pub use error::{Error, Exit};
