//! The homeserver: HTTP and JSON, no SQL. [`Client`] sends requests and returns [`Page`]s and [`SyncBatch`]es.

mod bundled_edit;
mod client;
mod client_format;
mod device_keys;
mod error;
mod event;
pub(crate) mod event_ids;
mod federation;
mod identifier;
mod join;
pub(crate) mod json;
mod key_backup;
mod login;
mod membership;
mod object;
mod page;
pub mod proof;
#[doc = include_str!("protocol.md")]
pub(crate) mod protocol {}
pub(crate) mod redact;
mod response;
pub(crate) mod room_state;
pub(crate) mod room_update;
mod splitter;
pub(crate) mod stable_hash;
mod sync_response;
mod sync_stream;
mod token;
mod user_id;

pub use client::{Client, MessagesRequest, SyncRequest, Whoami};
pub(crate) use client_format::client_format;
pub(crate) use device_keys::ServedDevice;
pub(crate) use error::Error;
pub(crate) use event::{Event, Malformed, Stripped, Uncommon};
pub(crate) use event::{parse as parse_event, relation};
pub(crate) use key_backup::BackupVersion;
pub(crate) use login::{Identity, Session};
pub use membership::Membership;
pub use page::{Events, FederationPage, Page};
pub(crate) use sync_response::{PublishedKeys, RoomUpdate, Section, SyncBatch};
pub(crate) use sync_stream::SyncStream;
pub(crate) use token::Token;
pub(crate) use user_id::is_user_id;
