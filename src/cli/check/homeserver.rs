//! Checks the homeserver, the access token, and the account's rooms.

use futures_util::{StreamExt as _, stream};
use ruma::{OwnedRoomId, RoomId};

use super::{
    Report, encryption,
    patience::{PATIENCE, patiently},
};
use crate::{
    Error, Exit,
    archive::inspect::FoundAccount,
    config::{Config, Credentials, Rooms},
    matrix::{self, Client, Whoami},
};

const HOMESERVER: &str = "homeserver";
const TOKEN: &str = "token";
const ROOMS: &str = "rooms";
/// How many requests for aliases are sent at once.
const AT_ONCE: usize = 8;
/// At most this many rooms are named in a warning.
const NAMED: usize = 5;

/// `account`: the account of the archive in the database.
pub(super) async fn check(config: &Config, account: Option<&FoundAccount>, report: &mut Report) {
    let client = reach(config, report).await;
    let Some((client, whoami)) = log_in(config, client, report).await else {
        report.skip(ROOMS, "not checked: needs the homeserver and the token");
        return;
    };
    if let Some(theirs) = account.filter(|theirs| theirs.user_id != whoami.user_id) {
        let (theirs, ours) = (&theirs.user_id, &whoami.user_id);
        let problem = format!("the database is the archive of {theirs}, but the token belongs to {ours}");
        report.fail(Exit::Configuration, TOKEN, &problem, &["use another database for another account"]);
    }
    ignored_users(&client, &whoami, report).await;
    encryption::check(config, &client, &whoami, account, report).await;
    rooms(&client, &config.rooms, report).await;
}

async fn reach(config: &Config, report: &mut Report) -> Option<Client> {
    let url = match config.homeserver.url() {
        Ok(url) => url,
        Err(error) => {
            report.fail(error.exit_code(), HOMESERVER, &error.to_string(), &[]);
            return None;
        }
    };
    let client = Client::new(url.as_str());
    let reached = match &client {
        Ok(client) => patiently("/versions", async || client.versions().await).await,
        Err(_) => Ok(Vec::new()),
    };
    let error = match (client, reached) {
        (Ok(client), Ok(versions)) => {
            let newest =
                newest(&versions).map_or_else(String::new, |newest| format!(", Matrix up to {newest}"));
            let plain = if url.scheme() == "http" { ", over plain http" } else { "" };
            report.ok(HOMESERVER, &format!("{url} answers{newest}{plain}"));
            return Some(client);
        }
        (Err(error), _) | (_, Err(error)) => error,
    };
    let remedy = match &error {
        matrix::Error::Server { .. } | matrix::Error::Malformed(_) | matrix::Error::Api { .. } => {
            "the response is not that of a homeserver: homeserver.url must be the address that clients use; \
             https://SERVER/.well-known/matrix/client shows it, where SERVER is the server's own name"
        }
        matrix::Error::Network(_) => unreached(&error.to_string()),
        matrix::Error::RateLimited { .. } | matrix::Error::Unavailable { .. } => "try again later",
        _ => "is homeserver.url right, is the server up, and can this machine reach it?",
    };
    let problem = format!("{url}: failed to {error}");
    report.fail(Error::from(error).exit_code(), HOMESERVER, &problem, &[remedy]);
    None
}

/// What to do if there was no response. The TLS and HTTP libraries have no error codes for this, so their text is
/// searched.
fn unreached(problem: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| problem.contains(word));
    if says(&["CaUsedAsEndEntity"]) {
        "the server's certificate is that of a certificate authority, as `openssl req -x509` creates by default, so it \
         is never trusted: create one with -addext basicConstraints=critical,CA:FALSE and the host's name in \
         subjectAltName, and set SSL_CERT_FILE to its path"
    } else if says(&["UnknownIssuer", "BadSignature"]) {
        "this machine does not trust the authority that signed the server's certificate: put the authority's \
         certificate, or the server's own if it is self-signed, into /usr/local/share/ca-certificates/NAME.crt and run \
         `update-ca-certificates`; or set SSL_CERT_FILE to its path, which replaces the machine's certificates (in the \
         unit: Environment=SSL_CERT_FILE=…)"
    } else if says(&["NotValidForName"]) {
        "the server's certificate is for another host: homeserver.url must contain a name from it (subjectAltName)"
    } else if says(&["certificate"]) {
        "the server's certificate is not valid: correct or renew it, and check this machine's clock"
    } else if says(&[
        "ApplicationProtocol",
        "connection closed before message",
        "invalid HTTP version",
        "http2",
    ]) {
        "the server may support only HTTP/2: enable HTTP/1.1 in the proxy before the homeserver, which Backscroll needs"
    } else {
        "is homeserver.url right, is the server up, and can this machine reach it?"
    }
}

/// Checks the configured credentials, and tries the token if the homeserver answers.
async fn log_in(config: &Config, client: Option<Client>, report: &mut Report) -> Option<(Client, Whoami)> {
    let source = match config.homeserver.credentials() {
        Ok(Credentials::Token(source)) => source,
        Ok(Credentials::Password { user, password }) => {
            match password.read() {
                Ok(_) => report.ok(
                    TOKEN,
                    &format!(
                        "none; run logs in as {user} with the password in {} (not tried: a login creates a device)",
                        password.origin()
                    ),
                ),
                Err(error) => report.fail(error.exit_code(), TOKEN, &error.to_string(), &[]),
            }
            return None;
        }
        Err(error) => {
            report.fail(error.exit_code(), TOKEN, &error.to_string(), &[]);
            return None;
        }
    };
    let token = match source.read() {
        Ok(token) => token,
        Err(error) => {
            let problem = error.to_string();
            let remedies: &[_] = if problem.contains("chmod") {
                &[]
            } else {
                &["`backscroll login USER` gets a token and writes it to that file"]
            };
            report.fail(error.exit_code(), TOKEN, &problem, remedies);
            return None;
        }
    };
    let Some(client) = client else {
        report.skip(TOKEN, &format!("is in {}; not tried without the homeserver", source.origin()));
        return None;
    };
    client.set_token(token);
    match patiently("/account/whoami", async || client.whoami().await).await {
        Ok(whoami) => {
            let device =
                whoami.device_id.as_deref().map_or_else(|| "no device".to_owned(), |d| format!("device {d}"));
            report.ok(TOKEN, &format!("{}, {device} (from {})", whoami.user_id, source.origin()));
            Some((client, whoami))
        }
        Err(error) => {
            refused(config, error, &source.origin().to_string(), report);
            None
        }
    }
}

fn refused(config: &Config, error: matrix::Error, origin: &str, report: &mut Report) {
    let problem = format!("the token in {origin}: failed to {error}");
    if matches!(error, matrix::Error::LoggedOut { .. }) && config.homeserver.password().is_some() {
        report.warn(TOKEN, &problem, &["run logs in with the password instead"]);
        return;
    }
    let remedy = match &error {
        matrix::Error::Deactivated => "archive as another account, into another database",
        matrix::Error::LoggedOut { .. } => {
            "get another: run `backscroll login --force USER`, or copy one from a client whose session stays open"
        }
        matrix::Error::Api { .. } => "ask the homeserver's administrators about the account",
        _ => "try again",
    };
    report.fail(Error::from(error).exit_code(), TOKEN, &problem, &[remedy]);
}

async fn ignored_users(client: &Client, whoami: &Whoami, report: &mut Report) {
    match patiently("/account_data", async || client.ignored_users(&whoami.user_id).await).await {
        Ok(ignored) if ignored.is_empty() => {}
        Ok(ignored) => {
            let number = ignored.len();
            let problem =
                format!("the account ignores {number}, whose messages the homeserver hides from the archive");
            report.warn(
                "ignored users",
                &problem,
                &["to archive their messages, un-ignore them in a client"],
            );
        }
        Err(error) => report.warn("ignored users", &format!("failed to {error}"), &[]),
    }
}

async fn rooms(client: &Client, filter: &Rooms, report: &mut Report) {
    let joined = match patiently("/joined_rooms", async || client.joined_rooms().await).await {
        Ok(joined) => joined,
        Err(error) => {
            let problem = format!("failed to {error}");
            report.fail(Error::from(error).exit_code(), ROOMS, &problem, &[]);
            return;
        }
    };
    let watched = if takes_all(filter) { joined.len() } else { watched(client, filter, &joined).await };
    let found = format!("{} joined, {watched} of them archived", joined.len());
    if joined.is_empty() {
        report.warn(
            ROOMS,
            "the account has joined none, so there is little to archive",
            &["join some with a client"],
        );
    } else if watched == 0 {
        report.warn(ROOMS, &found, &["see rooms.include and rooms.exclude in `backscroll config show`"]);
    } else {
        report.ok(ROOMS, &found);
    }
    let absent = |room_id: &&str| !joined.iter().any(|room| room == room_id);
    let absent: Vec<_> = filter.listed().map(|(room_id, _)| room_id).filter(absent).collect();
    if !absent.is_empty() {
        let named = absent.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = absent.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let problem = format!("listed in rooms.room, but not joined by the account: {named}{more}");
        report.warn(ROOMS, &problem, &["join them with a client"]);
    }
}

/// Whether the filter accepts all rooms, so that no aliases are needed.
fn takes_all(filter: &Rooms) -> bool {
    filter.takes_all()
}

async fn watched(client: &Client, filter: &Rooms, joined: &[OwnedRoomId]) -> usize {
    let watches = |room_id: OwnedRoomId| async move {
        // Most rooms have none, which is a 404.
        let aliases = tokio::time::timeout(PATIENCE, aliases(client, &room_id)).await;
        let aliases = aliases.ok().and_then(Result::ok).unwrap_or_default();
        let aliases: Vec<_> = aliases.iter().map(String::as_str).collect();
        usize::from(filter.watches(room_id.as_str(), &aliases))
    };
    let answers = stream::iter(joined.iter().cloned()).map(watches).buffer_unordered(AT_ONCE);
    answers.fold(0, |sum, one| std::future::ready(sum + one)).await
}

/// The room's canonical alias and its alternatives.
async fn aliases(client: &Client, room_id: &RoomId) -> Result<Vec<String>, matrix::Error> {
    let state = client.state_key(room_id, "m.room.canonical_alias", "").await?;
    let state: serde_json::Value = serde_json::from_str(state.get()).unwrap_or_default();
    // A server that supports `format=event` returns the event, another one only its content.
    let content = state.get("content").unwrap_or(&state);
    let alternatives = content.get("alt_aliases").and_then(serde_json::Value::as_array).into_iter().flatten();
    Ok(content
        .get("alias")
        .into_iter()
        .chain(alternatives)
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect())
}

/// `v1.12` of `r0.6.1`, `v1.2` and `v1.12`.
fn newest(versions: &[String]) -> Option<&str> {
    let number = |version: &str| {
        let (major, minor) = version.strip_prefix('v')?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    versions.iter().map(String::as_str).max_by_key(|version| number(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_to_connect_has_its_own_advice() {
        for (problem, remedy) in [
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "CA:FALSE"),
            ("invalid peer certificate: UnknownIssuer", "update-ca-certificates"),
            ("invalid peer certificate: BadSignature", "SSL_CERT_FILE"),
            ("invalid peer certificate: NotValidForName", "another host"),
            ("invalid peer certificate: certificate expired: verification time 1 (UNIX)", "clock"),
            ("received fatal alert: NoApplicationProtocol", "HTTP/1.1"),
            ("connection closed before message completed", "HTTP/1.1"),
            ("Connection refused (os error 111)", "is the server up"),
        ] {
            assert!(unreached(problem).contains(remedy), "{problem}: {}", unreached(problem));
        }
    }

    #[test]
    fn the_newest_version_is_the_highest_number() {
        let versions = ["r0.6.1", "v1.2", "v1.12", "v1.9", "odd"].map(str::to_owned);
        assert_eq!(newest(&versions), Some("v1.12"));
        assert_eq!(newest(&[]), None);
    }
}
