//! All integration tests in one binary, against a real PostgreSQL. See `support` for what they stand on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod administration;
mod backfill;
mod boundaries;
mod embedded;
mod erase;
mod faults;
mod federation;
mod follow;
mod kills;
mod lease;
mod lossless;
mod promises;
mod property;
mod resequence;
mod roles;
mod rooms;
mod schema;
mod secrets;
mod service;
mod start;
mod support;
mod synapse;
mod upgrade;
mod views;
