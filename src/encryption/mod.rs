//! Megolm and Olm, without SQL and without HTTP: reads key files, and decrypts `m.room.encrypted` events and to-device
//! messages (specification, "Messaging Algorithms"). The cryptography is vodozemac's.
//!
//! `archive/encryption/` stores sessions and plaintexts, and `daemon/decrypt.rs` decrypts behind the writer.

mod device;
mod event;
mod key_file;
mod olm;
mod session;

pub(crate) use self::{
    device::{Device, DeviceKey},
    event::{Batch, Decryption, EncryptedEvent, Plaintext, SessionCopy},
    key_file::{Error as KeyFileError, KeyFile},
    olm::{Brought, OlmSession, OlmSessions, ToDeviceEvent, Withheld},
    session::{Origin, Session, is_better, session_id_of},
};
