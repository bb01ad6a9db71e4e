//! Checks the database: whether it can be reached, meets the requirements, and grants the necessary rights.

use super::{Report, rehearsal};
use crate::{
    archive::{
        Archive, WideRole,
        inspect::{FoundAccount, Schema},
        requirements::{self, Connections, DATABASE, Problem, SCHEMA},
    },
    config::Config,
    postgres::{self, Presence, Server, Settings},
};

const ROLES: &str = "roles";
const SEARCH: &str = "search";

/// Returns the account of the archive in it, if there is one.
pub(super) async fn check(config: &Config, report: &mut Report) -> Option<FoundAccount> {
    match config.database.url() {
        Ok(Some(url)) => {
            let account = inspect(&url.expose(), &url.to_string(), config.backfill.concurrency, report).await;
            for warning in url.warnings() {
                report.warn(DATABASE, &warning, &[]);
            }
            account
        }
        Ok(None) => private(config, report).await,
        Err(error) => {
            report.fail(error.exit_code(), DATABASE, &error.to_string(), &[]);
            None
        }
    }
}

async fn private(config: &Config, report: &mut Report) -> Option<FoundAccount> {
    let data_dir = &config.data_dir;
    let bin_dir = config.postgres_bin.clone();
    let shown = data_dir.display();
    if postgres::presence(data_dir) == Presence::Missing {
        let place = format!("private, to be created in {shown} by the first run; tested");
        let look = async |url: String| inspect(&url, &place, config.backfill.concurrency, report).await;
        let tried = rehearsal::rehearse(data_dir, bin_dir, look).await;
        return tried.unwrap_or_else(|(exit, problem)| {
            report.fail(exit, DATABASE, &problem, &[]);
            None
        });
    }
    match Server::start(&Settings { data_dir: data_dir.clone(), bin_dir }).await {
        Ok(server) => {
            let running = if server.adopted() { "running" } else { "started for this check" };
            let place = format!("private, in {shown}, {running}");
            let account = inspect(&server.url(), &place, config.backfill.concurrency, report).await;
            match server.stop().await {
                Ok(()) => account,
                Err(error) => no_server(&error, report),
            }
        }
        Err(error) => no_server(&error, report),
    }
}

fn no_server(error: &postgres::Error, report: &mut Report) -> Option<FoundAccount> {
    report.fail(error.exit_code(), DATABASE, &error.to_string(), &[]);
    None
}

/// The database at `url`, shown as `place`.
async fn inspect(url: &str, place: &str, walks: usize, report: &mut Report) -> Option<FoundAccount> {
    let found = match Archive::inspect(url).await {
        Ok(found) => found,
        Err(error) => {
            let mut problem = requirements::unreachable(&error);
            problem.text = format!("{place}: {}", problem.text);
            fail(&problem, report);
            return None;
        }
    };
    report.ok(DATABASE, &format!("{place}: PostgreSQL {}", found.server_version));
    let wanted = Connections::for_walks(walks);
    let problems = requirements::problems(&found);
    for problem in &problems {
        fail(problem, report);
    }
    if problems.is_empty() && wanted.within(found.connections.most).walks != wanted.walks {
        let text = format!(
            "it allows {} connections at once, and backfill.concurrency needs {}: \
             fewer rooms are walked at once",
            found.connections.most,
            wanted.total()
        );
        report.warn(DATABASE, &text, &[]);
    }
    if problems.iter().all(|problem| problem.subject != SCHEMA) {
        report.ok(SCHEMA, &schema(found.schema.as_ref()));
    }
    if found.search_is_limited {
        let text = "the server has no ICU, and the database has locale C: search finds capital letters of other scripts \
                    than Latin, Greek and Cyrillic only as they are written";
        report.warn(
            SEARCH,
            text,
            &["use a server with ICU, or a database of a UTF-8 locale such as C.UTF-8"],
        );
    }
    roles(&found.wide_roles, report);
    match &found.writer {
        Some((pid, since)) => report.ok(
            "daemon",
            &format!("Backscroll is running (server process {pid}, connected since {since}); a second one is refused"),
        ),
        None => report.ok("daemon", "no Backscroll is running on this database"),
    }
    found.account
}

fn fail(problem: &Problem, report: &mut Report) {
    let remedies: Vec<_> = problem.remedies.iter().map(String::as_str).collect();
    report.fail(problem.exit, problem.subject, &problem.text, &remedies);
}

fn roles(wide: &[WideRole], report: &mut Report) {
    for found in wide {
        let command = if found.kind == "writer" { "grant-writer" } else { "grant-reader" };
        if found.unlimited {
            let problem = format!(
                "the {} {:?} has more rights than its purpose needs: {}",
                found.kind, found.role, found.problem
            );
            report.warn(ROLES, &problem, &["revoke that right, or drop the role"]);
        } else {
            let problem = format!("the {} {:?}: {}", found.kind, found.role, found.problem);
            let remedy = format!("or, as a superuser, `backscroll {command}` again");
            report.warn(ROLES, &problem, &[&remedy]);
        }
    }
}

/// Describes a schema without problems.
fn schema(schema: Option<&Schema>) -> String {
    match schema {
        None => "does not exist yet; the first run creates it".to_owned(),
        Some(schema) if schema.missing > 0 => format!(
            "version {}, older than this Backscroll's {}; `run` or `migrate` updates it",
            schema.found, schema.known
        ),
        Some(schema) => format!("version {}, up to date", schema.found),
    }
}
