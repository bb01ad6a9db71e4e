//! All integration tests in one binary, against a real PostgreSQL. See `support` for what they stand on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod administration;
mod backfill;
mod boundaries;
mod embedded;
mod encryption;
mod erase;
mod evidence;
mod faults;
mod federation;
mod follow;
mod import;
mod kills;
mod lease;
mod lossless;
mod promises;
mod proof;
mod property;
mod reading;
mod resequence;
mod roles;
mod rooms;
mod schema;
mod seal;
mod secrets;
mod service;
mod start;
mod support;
mod synapse;
mod transfer;
mod upgrade;
mod verify;
mod views;
