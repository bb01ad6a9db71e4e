//! What proves a single event: its id, its content hash and its signatures.
//!
//! A homeserver that serves the federation format, such as Synapse with the filter `{"event_format":
//! "federation"}`, returns events nearly as their servers signed them. [`SignedEvent::read`] removes what it
//! added and checks the id, which is a hash of the event from room version 3 on.
//! [`SignedEvent::content_hash_fits`] is false for a redacted event; id and signatures still fit it.
//! [`SignedEvent::verify_signatures`] needs the servers' keys.
//!
//! | proved by | what |
//! | --- | --- |
//! | the id, from version 3 on | all that a redaction keeps, the hash of the rest, the links to earlier events |
//! | the content hash | the rest of the content, if the id or a signature fits |
//! | the signatures | that the servers with these keys sent it |
//!
//! Rules: specification, "Signing Events" and "Validating hashes and signatures on received events", and the
//! room versions.

mod event;
pub mod evidence;
mod hash;
mod keys;
mod signature;
#[cfg(test)]
mod tests;

pub use event::{SignedEvent, Unproved};
pub use keys::{BadKeys, KeyResponse, ServerKey, ServerKeys};
pub use signature::{Unverified, Verified};
