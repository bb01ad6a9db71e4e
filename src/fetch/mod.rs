//! How the loops send requests: the size of a page, the pause between requests, and the original content of edited
//! events.

pub(crate) mod page;
pub mod page_size;
pub(crate) mod throttle;
pub(crate) mod unedit;
