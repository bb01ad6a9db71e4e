//! Megolm and Olm, without SQL and without HTTP: reads key files and key backups, and decrypts `m.room.encrypted` events and
//! to-device messages (specification, "Messaging Algorithms"). The cryptography is vodozemac's.
//!
//! `archive/encryption/` stores sessions and plaintexts, and `daemon/decrypt.rs` decrypts behind the writer.

mod backup;
mod cross_signing;
mod device;
mod event;
mod key_file;
mod olm;
mod recovery;
mod session;

pub(crate) use self::{
    backup::{AuthData, BackupKey, BackupPortion},
    cross_signing::SelfSigningKey,
    device::{Device, DeviceKey, FEW_ONE_TIME_KEYS},
    event::{Batch, Decryption, EncryptedEvent, Plaintext, SessionCopy},
    key_file::{Error as KeyFileError, KeyFile},
    olm::{Brought, OlmSession, OlmSessions, ToDeviceEvent, Withheld},
    recovery::{AccountData, RecoveryKey, SECRET_NAME, SELF_SIGNING, SecretStorageKey, StoredSecret},
    session::{Origin, Session, is_better, session_id_of},
};
