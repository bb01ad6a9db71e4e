//! `backscroll healthcheck`

use std::time::Duration;

use crate::{
    Exit,
    config::Config,
    service::http,
    text::{escape, print},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Check whether the running daemon archives, for a container's health check.
///
/// Reads http.listen from the configuration and requests /readyz there. The exit code is 0 if the database and the
/// homeserver answer the daemon and its loops are alive. Otherwise it is 69, and the problem is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {}

impl Healthcheck {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let Some(listen) = config.http_listen else {
            eprintln!(
                "backscroll: http.listen is not set, so the daemon cannot be reached: set it for both `run` and \
                 `healthcheck`, for example to 127.0.0.1:9464"
            );
            return Ok(Exit::Configuration);
        };
        let address = http::reachable(listen);
        let problem = match ask(&format!("http://{address}/readyz")).await {
            Ok((true, text)) => {
                print(&text)?;
                return Ok(Exit::Success);
            }
            Ok((false, text)) => text.lines().map(escape).collect::<Vec<_>>().join("\n"),
            Err(error) => format!(
                "no answer from http://{address}: {}; is `backscroll run` running with the same http.listen?",
                cause(&error)
            ),
        };
        eprintln!("backscroll: {problem}");
        Ok(Exit::Unavailable)
    }
}

/// Whether the response has a success status, and its text.
async fn ask(url: &str) -> Result<(bool, String), reqwest::Error> {
    // A client cannot be made without it, although this one does not use TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().is_success(), answer.text().await?))
}

/// The innermost cause, such as a refused connection.
fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
