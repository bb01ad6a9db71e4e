//! `backscroll check`

mod database;
mod encryption;
mod homeserver;
mod patience;
mod rehearsal;
mod report;

use self::report::Report;
use crate::{Exit, config::Config};

/// Check configuration, database, homeserver, token and permissions.
///
/// Prints one line for each check: ok, warn or FAIL, with the problem and below it what to do. Writes nothing to the
/// database or the homeserver, and shows no secret. The exit code is 0 if nothing failed. Otherwise it is that of the
/// first failure: 78 configuration, 69 not reachable, 77 not permitted.
#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let mut report = Report::stdout();
        configuration(config, &mut report);
        let account = database::check(config, &mut report).await;
        homeserver::check(config, account.as_ref(), &mut report).await;
        Ok(report.end())
    }
}

fn configuration(config: &Config, report: &mut Report) {
    let from = config.file.as_ref().map(|file| file.display().to_string());
    report.ok("configuration", from.as_deref().unwrap_or("no file; environment and defaults"));
    for warning in &config.warnings {
        report.warn("configuration", warning, &[]);
    }
}
