//! The database itself: connections, inspection, migrations, temporary errors, and sessions that wait for locks.

pub(super) mod indexes;
pub mod inspect;
pub(super) mod migrate;
pub(super) mod nodelay;
pub mod requirements;
pub(super) mod role;
pub(super) mod sessions;
pub(super) mod transient;
pub(super) mod waits;
