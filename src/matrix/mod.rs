//! The homeserver's edge: HTTP and JSON, no SQL. Bytes come in, [`Page`]s and [`SyncBatch`]es go out.

mod answer;
mod client;
mod edit;
mod error;
mod event;
mod join;
pub(crate) mod json;
mod login;
mod object;
mod page;
mod splitter;
mod sync_answer;
#[doc = include_str!("protocol.md")]
pub mod protocol {}
mod sync_response;
mod token;
mod user_id;

pub use client::{Client, MessagesRequest, SyncRequest, Whoami};
pub use error::Error;
pub(crate) use event::parse as parse_event;
pub use event::{Event, Malformed, UnnamedPrev};
pub use login::{Identity, Session};
pub use page::{Events, Page};
pub use sync_answer::SyncAnswer;
pub use sync_response::{RoomBatch, Section, Stripped, SyncBatch};
pub use token::Token;
pub(crate) use user_id::is_user_id;
