//! The database below the tables: connecting, looking at what is there, migrating, what passes by itself, who waits for whom.

pub mod inspect;
pub(super) mod migrate;
pub(super) mod nodelay;
pub mod requirements;
pub(super) mod role;
pub(super) mod sessions;
pub(super) mod transient;
pub(super) mod waits;
