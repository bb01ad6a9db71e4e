//! `backscroll psql`

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus},
};

use anyhow::Context as _;

use crate::{config::Config, daemon::Store};

/// Open psql in the archive, or run it with ARGS.
///
/// Works on the configured database and on the embedded one, whether the daemon is running or not. Try
/// `backscroll psql -- -c 'select * from rooms'`.
#[derive(Debug, clap::Args)]
pub(super) struct Psql {
    /// Arguments for psql
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Psql {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let store = Store::open(config).await?;
        let program = store.server().map_or_else(|| "psql".into(), |server| server.bin_dir().join("psql"));
        let status = self.spawn(&program, &store.url).await;
        store.close().await?;
        let status = status.with_context(|| {
            format!("failed to run {}: install PostgreSQL's client programs", program.display())
        })?;
        Ok(ExitCode::from(code(status)))
    }

    async fn spawn(self, program: &std::path::Path, url: &str) -> std::io::Result<ExitStatus> {
        let mut command = tokio::process::Command::new(program);
        // The list of processes shows arguments to everybody, so a password goes another way.
        let (url, password) = without_password(url);
        command.arg(url).args(self.arguments).envs(password.map(|password| ("PGPASSWORD", password)));
        // Ctrl-C cancels a query in psql; we wait for psql's end.
        let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        command.status().await
    }
}

fn without_password(url: &str) -> (String, Option<String>) {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return (url.to_owned(), None) };
    let Some(password) = parsed.password() else { return (url.to_owned(), None) };
    let password = percent_decode(password);
    // Cannot fail: a URL that has a password has a host.
    let _ = parsed.set_password(None);
    (parsed.into(), Some(password))
}

/// Decodes percent-encoding, by way of the one decoder that a URL has: that of its query.
fn percent_decode(text: &str) -> String {
    let query = format!("p={}", text.replace('+', "%2B"));
    let mut url = reqwest::Url::parse("p:/").expect("a URL");
    url.set_query(Some(&query));
    url.query_pairs().next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_out_of_the_url() {
        assert_eq!(
            without_password("postgres://me:p%40s+s@db:5432/archive?sslmode=require"),
            ("postgres://me@db:5432/archive?sslmode=require".to_owned(), Some("p@s+s".to_owned()))
        );
        let socket = "postgres:///backscroll?host=%2Frun%2Fx&port=5432&user=backscroll";
        assert_eq!(without_password(socket), (socket.to_owned(), None));
    }
}
