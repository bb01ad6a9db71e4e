//! Reports about the archive: status and gauges.

mod gauges;
pub(super) mod status;
