//! Megolm, without SQL and without HTTP: reads key files and key backups, and decrypts `m.room.encrypted` events
//! (specification, "Messaging Algorithms", `m.megolm.v1.aes-sha2`). The cryptography is vodozemac's.
//!
//! `archive/encryption/` stores sessions and plaintexts, and `daemon/decrypt.rs` decrypts behind the writer.

mod backup;
mod event;
mod key_file;
mod recovery;
mod session;

pub(crate) use self::{
    backup::{BackupKey, BackupPortion},
    event::{Batch, Decryption, EncryptedEvent, Plaintext, SessionCopy},
    key_file::{Error as KeyFileError, KeyFile},
    recovery::{AccountData, AuthData, RecoveryKey, SECRET_NAME, SecretStorageKey, StoredSecret},
    session::{Origin, Session, is_better, session_id_of},
};
