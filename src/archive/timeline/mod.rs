//! The order of a room's events: the arithmetic of positions, and the stored neighbours that it works on.

pub(super) mod neighbours;
pub(super) mod position;
