//! What the archive says of itself.

mod gauges;
pub(super) mod status;
