//! What one answer of the homeserver becomes, with the token that accounts for it, in one transaction: a `/sync` response
//! ([`sync_response`], room by room [`room`]), a page of `/messages` ([`page`]), the state of a room ([`state`]).
//!
//! Invariants: an answer is in one transaction as a whole; the token moves in it by compare-and-set, so the checkpoint is never
//! ahead of the rows; the rooms' locks are taken in ascending order; nothing in here swallows an error.

mod overlap;
mod page;
mod portion;
mod response;
mod room;
mod silent_gap;
mod state;
pub(super) mod sync_response;
mod unread_rooms;
