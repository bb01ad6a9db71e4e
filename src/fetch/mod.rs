//! How the loops ask the homeserver: how much at once, how soon again, and for what it serves altered.

pub(crate) mod page;
pub mod page_size;
pub(crate) mod throttle;
pub(crate) mod unedit;
