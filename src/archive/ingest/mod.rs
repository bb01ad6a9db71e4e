//! Stores one response of the homeserver together with its token: a `/sync` response ([`sync_response`], for each
//! room [`room`]), a page of `/messages` ([`page`]), or the state of a room ([`state`]).
//!
//! Invariants: a response is stored in one transaction, except that the first `/sync` response is stored in parts.
//! The token moves in the (last) transaction by compare-and-set, so the checkpoint is never ahead of the rows. Rooms
//! are locked in ascending order. No error is ignored.

mod overlap;
mod page;
mod portion;
mod response;
mod room;
mod silent_gap;
mod state;
pub(super) mod sync_response;
mod unreadable_rooms;
