//! Asks for a secret on the terminal.

use anyhow::Context as _;
use console::Term;

use crate::{Exit, child};

/// Reads a line from the terminal with the echo off. Ctrl-C switches it on again. `what`: what is asked for.
pub(super) async fn ask(what: &str, prompt: &str) -> anyhow::Result<String> {
    let terminal = [Term::stderr(), Term::stdout()].into_iter().find(Term::is_term);
    let terminal = terminal
        .with_context(|| format!("failed to ask for the {what}: neither stderr nor stdout is a terminal"))?;
    terminal.write_str(prompt)?;
    // The handler is registered before the echo is switched off.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let line = tokio::task::spawn_blocking(move || terminal.read_secure_line());
    tokio::select! {
        line = line => Ok(line??),
        _ = interrupt.recv() => {
            // The thread that reads cannot be cancelled, so this ends the process.
            let _ = child::command("stty").arg("echo").status();
            eprintln!();
            Exit::Interrupted.now();
        }
    }
}
