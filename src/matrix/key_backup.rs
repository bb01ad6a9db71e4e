//! The requests for the account's key backup and for its account data.

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Client, Error, client::LONG, response::Pieces, splitter::Splitter};

/// The newest version of the account's key backup (specification, `GET /room_keys/version`).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BackupVersion {
    /// Its algorithm.
    pub(crate) algorithm: String,
    /// What depends on the algorithm.
    pub(crate) auth_data: Box<RawValue>,
    /// Changes with every change of its sessions.
    pub(crate) etag: String,
    /// Its id.
    pub(crate) version: String,
}

/// The sessions of a key backup, which are read in parts while they arrive.
#[derive(Debug)]
pub(crate) struct KeyBackup {
    pieces: Pieces,
    /// `None` once the response was read to its end.
    splitter: Option<Splitter>,
    ready: Vec<Vec<u8>>,
}

impl Client {
    /// The newest version of the key backup. `None`: the account has none.
    pub(crate) async fn backup_version(&self) -> Result<Option<BackupVersion>, Error> {
        found(self.get_json("/room_keys/version", &["v3", "room_keys", "version"], &[]).await)
    }

    /// The content of account data of a type. `None`: there is none.
    pub(crate) async fn account_data(
        &self,
        user_id: &str,
        data_type: &str,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let path = ["v3", "user", user_id, "account_data", data_type];
        found(self.get_json("/account_data", &path, &[]).await)
    }

    /// One session of a version of the key backup, encrypted. `None`: the backup does not have it.
    pub(crate) async fn backed_up_session(
        &self,
        version: &str,
        room_id: &str,
        session_id: &str,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let path = ["v3", "room_keys", "keys", room_id, session_id];
        found(self.get_json("/room_keys/keys", &path, &[("version", version)]).await)
    }

    /// All sessions of a version of the key backup.
    pub(crate) async fn key_backup(&self, version: &str) -> Result<KeyBackup, Error> {
        let url = self.url(&["v3", "room_keys", "keys"], &[("version", version)])?;
        let request = self.authorized(self.http.request(Method::GET, url));
        let pieces = Pieces::ask("/room_keys/keys", request, LONG).await?;
        Ok(KeyBackup { pieces, splitter: Some(Splitter::for_key_backup()), ready: Vec::new() })
    }
}

impl KeyBackup {
    /// The next part: a JSON object of the same form as the whole. `None`: the response has ended.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not such a response, or an error of the connection. Earlier parts stay valid.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(part) = self.ready.pop() {
                return Ok(Some(part));
            }
            let Some(splitter) = &mut self.splitter else { return Ok(None) };
            if let Some(piece) = self.pieces.next().await? {
                splitter.push(&piece)?;
                self.ready = splitter.take_ready();
            } else {
                let last = self.splitter.take().map(Splitter::finish).transpose()?;
                self.ready.extend(last.filter(|part| !part.is_empty()));
            }
        }
    }
}

/// `None` for a 404.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
