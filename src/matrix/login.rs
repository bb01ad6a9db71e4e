//! Logs in to the homeserver, and gets a new token when the old one is refused.

use std::ops::Deref;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Client, Error};
use crate::config::{Credentials, Homeserver};

/// The result of a login.
#[derive(Debug)]
pub(crate) struct Session {
    /// The account.
    pub(crate) user_id: ruma::OwnedUserId,
    /// The device. Use it for the next login, so that old devices do not accumulate.
    pub(crate) device_id: String,
    /// The token.
    pub(crate) access_token: SecretString,
}

/// A [`Client`] and the credentials to get a new token.
#[derive(Debug)]
pub(crate) struct Identity {
    client: Client,
    homeserver: Homeserver,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<SecretString>,
    device_id: Option<String>,
}

impl Deref for Identity {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Identity {
    /// A client with a token. `device_id`: the device of an earlier login with the password.
    ///
    /// # Errors
    /// [`Error::Credentials`] if a secret cannot be read, or an error of [`Client::login`].
    pub(crate) async fn new(homeserver: &Homeserver, device_id: Option<String>) -> Result<Self, Error> {
        let client = Client::new(homeserver.url().map_err(credentials)?.as_str())?;
        let state = State { token: None, device_id };
        let identity = Self { client, homeserver: homeserver.clone(), state: Mutex::new(state) };
        identity.renew().await?;
        Ok(identity)
    }

    /// The device of the login with the password.
    pub(crate) async fn device_id(&self) -> Option<String> {
        self.state.lock().await.device_id.clone()
    }

    /// Gets another token after the server has refused the last one. First it checks whether the server really
    /// refuses the token, because an overloaded server may refuse a valid one. Then it reads the file, which may
    /// contain a new token. Else it logs in with the password and the same device (P126). Concurrent calls make one
    /// login.
    ///
    /// # Errors
    /// [`Error::LoggedOut`] if there is no other token and no password. Other errors may be temporary.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let refused = state.token.as_ref().map(|token| token.expose_secret().to_owned());
        let mut refusal = Error::LoggedOut { soft: false };
        if refused.is_some() {
            match self.client.whoami().await {
                Ok(_) => return Ok(()),
                Err(error) if !error.is_logged_out() => return Err(error),
                Err(error) => refusal = error,
            }
        }
        let password = match self.homeserver.credentials().map_err(credentials)? {
            Credentials::Token(source) => {
                let token = source.read().map_err(credentials)?;
                if refused.as_deref() != Some(token.expose_secret()) {
                    self.client.set_token(token.clone());
                    state.token = Some(token);
                    return Ok(());
                }
                self.homeserver.password().map(|(user, source)| (user.to_owned(), source.clone()))
            }
            Credentials::Password { user, password } => Some((user, password)),
        };
        let (user, password) = password.ok_or(refusal)?;
        let password = password.read().map_err(credentials)?;
        let granted = self.client.login(&user, &password, state.device_id.as_deref()).await;
        let session = granted.map_err(refused_login)?;
        self.client.set_token(session.access_token.clone());
        *state = State { token: Some(session.access_token), device_id: Some(session.device_id) };
        tracing::info!("logged in with the password");
        Ok(())
    }
}

impl Client {
    /// Logs in with a password (specification, `POST /login`). Does not change the client's own token.
    pub(crate) async fn login(
        &self,
        user: &str,
        password: &SecretString,
        device_id: Option<&str>,
    ) -> Result<Session, Error> {
        #[derive(Deserialize)]
        struct Granted {
            user_id: ruma::OwnedUserId,
            device_id: String,
            access_token: SecretString,
        }
        let mut body = serde_json::json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": password.expose_secret(),
            "initial_device_display_name": "Backscroll",
        });
        if let Some(device_id) = device_id {
            body["device_id"] = device_id.into();
        }
        let granted: Granted = self.post("/login", &["v3", "login"], &body).await?;
        if !is_header_text(granted.access_token.expose_secret()) || !is_name(&granted.device_id) {
            let problem = "/login: an access token or device id that cannot be used";
            return Err(Error::Malformed(problem.to_owned()));
        }
        Ok(Session {
            user_id: granted.user_id,
            device_id: granted.device_id,
            access_token: granted.access_token,
        })
    }
}

/// Whether an access token can be sent in a header.
fn is_header_text(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic())
}

/// Whether a device id can be stored and sent again.
fn is_name(device_id: &str) -> bool {
    !device_id.is_empty() && device_id.len() <= 255 && !device_id.contains(char::is_control)
}

/// A server refuses a user or password with 403 `M_FORBIDDEN` (specification, `POST /login`).
fn refused_login(error: Error) -> Error {
    match error {
        Error::Api { errcode, message, .. } if errcode == "M_FORBIDDEN" => Error::LoginRefused { message },
        error => error,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn credentials(error: crate::config::Error) -> Error {
    Error::Credentials(error.to_string())
}
