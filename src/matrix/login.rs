//! How the archive becomes an account on the homeserver, and stays one.

use std::ops::Deref;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Client, Error};
use crate::config::{Credentials, Homeserver};

/// A login that the server granted.
#[derive(Debug)]
pub struct Session {
    /// The account.
    pub user_id: ruma::OwnedUserId,
    /// The device; give it to the next login, so that devices do not pile up.
    pub device_id: String,
    /// The token.
    pub access_token: SecretString,
}

/// A [`Client`] that knows how to get a token.
#[derive(Debug)]
pub struct Identity {
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
    /// A client that has a token. `device_id` is the device of an earlier password login.
    ///
    /// # Errors
    /// [`Error::Credentials`] if a secret cannot be read; what [`Client::login`] returns.
    pub async fn new(homeserver: &Homeserver, device_id: Option<String>) -> Result<Self, Error> {
        let client = Client::new(homeserver.url().map_err(credentials)?.as_str())?;
        let state = State { token: None, device_id };
        let identity = Self { client, homeserver: homeserver.clone(), state: Mutex::new(state) };
        identity.renew().await?;
        Ok(identity)
    }

    /// The device of a password login.
    pub async fn device_id(&self) -> Option<String> {
        self.state.lock().await.device_id.clone()
    }

    /// Gets another token after the server refused the last: the file may hold a new one, else a password login with
    /// the same device takes the session up again (P126). Several callers make one login. A server in trouble may refuse a
    /// token that works, and one that cannot say now whether it does has not refused it.
    ///
    /// # Errors
    /// [`Error::LoggedOut`] if there is no way to another token; another that says so if it is worth another try.
    pub async fn renew(&self) -> Result<(), Error> {
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
    /// Logs in with a password (specification, `POST /login`). The client's own token stays as it is.
    pub async fn login(
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

/// 403 `M_FORBIDDEN` is how a server refuses user or password (specification, `POST /login`).
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
