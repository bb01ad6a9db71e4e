//! `backscroll login`

mod token_file;

use std::{
    io::{BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use secrecy::SecretString;

use self::token_file::TokenFile;
use crate::{
    Error, Exit,
    cli::hidden,
    config::{Config, Credentials, Origin},
    matrix::{self, Client, Session},
    text::{Printable, escape, print},
};

/// Log in with a password and write the access token to a file.
///
/// The password is read from homeserver.password_file, from the terminal without showing it, or from standard input.
/// The token is written to the file in homeserver.access_token_file, or to ./token; only you can read it. Anybody who
/// has the token can use the account, so use an account that is only for the archive.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "shown by --help as it is")]
pub(super) struct Login {
    /// User id, such as @me:example.org, or the part before the colon
    user: String,

    /// File to write the token to [default: homeserver.access_token_file, else ./token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Replace the token that is already in the file
    #[arg(long)]
    force: bool,
}

impl Login {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let Err(error) = self.log_in(config).await else { return Ok(Exit::Success) };
        let refused = error.downcast::<Refused>()?;
        eprintln!("backscroll: {}", escape(&refused.text));
        Ok(refused.exit)
    }

    async fn log_in(self, config: &Config) -> anyhow::Result<()> {
        let configured = configured_file(config);
        let path = self.token_file.clone().or_else(|| configured.clone()).unwrap_or_else(|| "token".into());
        // Check the file before the password is read, and before the login creates a device.
        let file = TokenFile::prepare(&path, self.force)?;
        let client = Client::new(config.homeserver.url()?.as_str()).map_err(Error::from)?;
        client.versions().await.map_err(explain)?;
        let password = self.password(config).await?;
        let session = client.login(&self.user, &password, None).await.map_err(explain)?;
        file.write(&session.access_token)?;
        print(&next(&session, &file, config, configured.as_deref()))?;
        Ok(())
    }

    async fn password(&self, config: &Config) -> anyhow::Result<SecretString> {
        if let Some((user, source)) = config.homeserver.password()
            && localpart(user) == localpart(&self.user)
        {
            return Ok(source.read()?);
        }
        let password = if std::io::stdin().is_terminal() {
            hidden::ask("password", &format!("Password of {}: ", Printable(&self.user))).await?
        } else {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .context("failed to read the password from standard input")?;
            line
        };
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Refused::usage("failed to log in: the password is empty").into());
        }
        Ok(password.into())
    }
}

/// A login that failed locally, before or after the request.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    exit: Exit,
    text: String,
}

impl Refused {
    fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }

    fn file(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self { exit: Exit::Refused, text: format!("failed to {action} {}: {error}", path.display()) }
    }
}

/// `me` of `@me:example.org` and of `me`.
fn localpart(user: &str) -> &str {
    let user = user.strip_prefix('@').unwrap_or(user);
    user.split_once(':').map_or(user, |(localpart, _)| localpart)
}

/// The file from which `run` will read the token, even if it does not exist yet.
fn configured_file(config: &Config) -> Option<PathBuf> {
    let Ok(Credentials::Token(source)) = config.homeserver.credentials() else { return None };
    match source.origin() {
        Origin::File { path, .. } => Some(path.clone()),
        _ => None,
    }
}

/// The error with what to do.
fn explain(error: matrix::Error) -> anyhow::Error {
    let advice = match &error {
        matrix::Error::Api { errcode, message, .. } if errcode == "M_FORBIDDEN" => {
            format!("failed to log in: wrong user or password ({message})")
        }
        matrix::Error::Deactivated => "failed to log in: the account is deactivated".to_owned(),
        matrix::Error::Api { errcode, message, .. }
            if matches!(&**errcode, "M_UNKNOWN" | "M_UNRECOGNIZED") =>
        {
            format!(
                "failed to log in: the homeserver does not support a login with a password ({message})\n\
                 Copy an access token out of a client into the file instead; in Element: All settings, \
                 Help & About, Access token"
            )
        }
        matrix::Error::RateLimited { after } => {
            let wait =
                after.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs() + 1));
            format!("failed to log in: the homeserver has received too many attempts; try again {wait}")
        }
        error => format!("failed to {error}"),
    };
    anyhow::Error::from(Error::from(error)).context(advice)
}

/// The result, and the next step.
fn next(session: &Session, file: &TokenFile, config: &Config, configured: Option<&Path>) -> String {
    let path = file.path();
    let shown = Printable(&path.to_string_lossy()).to_string();
    let done = format!(
        "Logged in as {}, device {}.\nThe access token is in {shown}, which only you can read.\n\n",
        Printable(session.user_id.as_str()),
        Printable(&session.device_id)
    );
    if configured.is_some_and(|configured| file.is(configured)) {
        return done + "Next: backscroll check\n";
    }
    let other = config.homeserver.credentials().ok().and_then(|credentials| match credentials {
        Credentials::Token(source) => Some(source.origin().to_string()),
        Credentials::Password { .. } => None,
    });
    let other = other.map(|origin| {
        format!(
            "Backscroll is configured to use the token in {origin}. To use this one, remove that setting and "
        )
    });
    let lead = other.unwrap_or_else(|| "Configure Backscroll to use it: ".to_owned());
    let quoted = shown.replace('\'', r"'\''");
    format!(
        "{done}{lead}either run\n  export BACKSCROLL_HOMESERVER__ACCESS_TOKEN_FILE='{quoted}'\n\
         or write under [homeserver] in backscroll.toml\n  access_token_file = {shown:?}\n\n\
         Next: backscroll check\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_the_same_with_and_without_server() {
        assert_eq!([localpart("@me:hs:8448"), localpart("me"), localpart("@me")], ["me"; 3]);
    }
}
