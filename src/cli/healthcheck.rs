//! `backscroll healthcheck`

use std::time::Duration;

use crate::{
    Exit,
    config::Config,
    service::http,
    text::{escape, print},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Ask the running daemon whether it archives, for a container's health check.
///
/// Reads http.listen from the same configuration and asks /readyz there. The exit code is 0 if database and homeserver
/// answer the daemon and its loops live, else 69; what is wrong is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Healthcheck {}

impl Healthcheck {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let Some(listen) = config.http_listen else {
            eprintln!(
                "backscroll: http.listen is not set, so the daemon answers nobody: set it, for instance to \
                 127.0.0.1:9464, for `run` and for `healthcheck` alike"
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

/// Whether the answer is a success, and its text.
async fn ask(url: &str) -> Result<(bool, String), reqwest::Error> {
    // Needed to make a client, though this one uses no TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().is_success(), answer.text().await?))
}

/// What lies at the bottom, such as a refused connection.
fn cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
