//! Is there a database to archive into, and may we?

use crate::{
    archive::{self, Archive},
    cli::status::embedded_exists,
    config::Config,
    postgres::{self, Server, Settings},
};

use super::{Report, rehearsal};

const DATABASE: &str = "database";
const SCHEMA: &str = "schema";
/// For `nulls not distinct`.
const OLDEST_MAJOR: i32 = 15;

/// Returns whose archive it is, if there is one.
pub(super) async fn check(config: &Config, report: &mut Report) -> Option<String> {
    match config.database.url() {
        Ok(Some(url)) => {
            let warning = url.warning();
            let account = inspect(url.expose(), &url.to_string(), report).await;
            if let Some(warning) = warning {
                report.warn(DATABASE, &warning, &[]);
            }
            account
        }
        Ok(None) => embedded(config, report).await,
        Err(error) => {
            report.fail(error.exit_code(), DATABASE, &error.to_string(), &[]);
            None
        }
    }
}

async fn embedded(config: &Config, report: &mut Report) -> Option<String> {
    let data_dir = &config.data_dir;
    let bin_dir = config.postgres_bin.clone();
    let shown = data_dir.display();
    if !embedded_exists(config) {
        let place = format!("embedded, to be made in {shown} by the first run; tried out");
        let look = async |url: String| inspect(&url, &place, report).await;
        let tried = rehearsal::rehearse(data_dir, bin_dir, look).await;
        return tried.unwrap_or_else(|(code, problem)| {
            report.fail(code, DATABASE, &problem, &[]);
            None
        });
    }
    match Server::start(&Settings { data_dir: data_dir.clone(), bin_dir }).await {
        Ok(server) => {
            let running = if server.adopted() { "running" } else { "started for this check" };
            let account = inspect(&server.url(), &format!("embedded in {shown}, {running}"), report).await;
            match server.stop().await {
                Ok(()) => account,
                Err(error) => no_server(&error, report),
            }
        }
        Err(error) => no_server(&error, report),
    }
}

fn no_server(error: &postgres::Error, report: &mut Report) -> Option<String> {
    report.fail(error.exit_code(), DATABASE, &error.to_string(), &[]);
    None
}

/// The database at `url`, shown as `place`.
async fn inspect(url: &str, place: &str, report: &mut Report) -> Option<String> {
    let found = match Archive::inspect(url).await {
        Ok(found) => found,
        Err(error) => {
            unreachable(&error, place, report);
            return None;
        }
    };
    report.ok(DATABASE, &format!("{place}: PostgreSQL {}", found.server_version));
    if found.major < OLDEST_MAJOR {
        let problem =
            format!("PostgreSQL {} is too old: it must be {OLDEST_MAJOR} or newer", found.server_version);
        report.fail(78, DATABASE, &problem, &["upgrade it, or use another database"]);
    }
    if found.encoding != "UTF8" {
        let problem = format!("its encoding is {}, which cannot hold every message", found.encoding);
        let create =
            format!("create database backscroll encoding 'UTF8' template template0 owner {:?};", found.role);
        report.fail(78, DATABASE, &problem, &["as a superuser, make another one:", &create]);
    }
    if found.read_only {
        let problem = "nothing can be written to it: a standby, or default_transaction_read_only is on";
        report.fail(78, DATABASE, problem, &["name the primary server in database.url"]);
    }
    let versions =
        found.schema.as_ref().map(|schema| (schema.found, schema.known, schema.missing, schema.broken));
    schema(versions, found.foreign_schema, report);
    if !found.permitted && versions.is_some_and(|(.., missing, _)| missing == 0) {
        let problem = format!("role {:?} may not write to the archive", found.role);
        report.fail(77, SCHEMA, &problem, &["use the role that owns the archive"]);
    } else if !found.permitted {
        let problem = format!("role {:?} may not create the archive's schema and views", found.role);
        let grant = format!("alter database {:?} owner to {:?};", found.database, found.role);
        report.fail(
            77,
            SCHEMA,
            &problem,
            &["use the role that owns the archive, or as a superuser:", &grant],
        );
    }
    match &found.writer {
        Some((pid, since)) => report.ok(
            "daemon",
            &format!("Backscroll is at work (server process {pid}, connected since {since}); a second one is refused"),
        ),
        None => report.ok("daemon", "no Backscroll is at work on this database"),
    }
    found.account
}

/// `versions`: newest applied, newest known, how many are missing, one that is broken.
fn schema(versions: Option<(i64, i64, usize, Option<i64>)>, foreign: bool, report: &mut Report) {
    match versions {
        None if foreign => report.fail(
            78,
            SCHEMA,
            "the database has a schema `archive` that Backscroll did not make",
            &["use another database, or rename that schema"],
        ),
        None => report.ok(SCHEMA, "not there yet; the first run makes it"),
        Some((found, known, ..)) if found > known => report.fail(
            78,
            SCHEMA,
            &format!("version {found} is newer than this Backscroll, which knows {known}"),
            &["install the newer Backscroll that made it"],
        ),
        Some((.., Some(broken))) => report.fail(
            78,
            SCHEMA,
            &format!("migration {broken} is not the one that this Backscroll has, or was not finished"),
            &["use the Backscroll that made the archive, or restore a backup from before"],
        ),
        Some((found, known, missing, None)) if missing > 0 => report.ok(
            SCHEMA,
            &format!("version {found}, older than this Backscroll's {known}; `run` or `migrate` updates it"),
        ),
        Some((found, ..)) => report.ok(SCHEMA, &format!("version {found}, up to date")),
    }
}

/// What is wrong where there is no connection, and with which exit code.
fn unreachable(error: &archive::Error, place: &str, report: &mut Report) {
    let text = format!("{place}: failed to {error}");
    let (code, remedy) = match error {
        archive::Error::Database(sqlx::Error::Database(error)) => match error.code().as_deref() {
            Some("28P01" | "28000") => {
                (77, "correct user and password in database.url, or the server's pg_hba.conf")
            }
            Some("3D000") => (78, "make it: createdb, or `create database …` in psql"),
            Some("42501") => (77, "use the role that owns the archive"),
            Some("53300") => (69, "too many connections: raise max_connections, or end some"),
            _ => (69, "see the database server's log"),
        },
        archive::Error::Database(sqlx::Error::Configuration(_)) => (78, "correct database.url"),
        archive::Error::Database(sqlx::Error::Tls(_)) => {
            (69, "see that the server speaks TLS with a certificate that is trusted here, or set sslmode")
        }
        archive::Error::Database(_) => (69, "is the server running, and is database.url right?"),
        error => (error.exit_code(), "see `backscroll migrate`"),
    };
    report.fail(code, DATABASE, &text, &[remedy]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema_says(versions: Option<(i64, i64, usize, Option<i64>)>, foreign: bool) -> (String, u8) {
        let mut report = Report::kept(100);
        schema(versions, foreign, &mut report);
        let first = report.text().lines().next().unwrap_or_default().to_owned();
        (first, report.end())
    }

    #[test]
    fn a_schema_is_judged_by_its_migrations() {
        for (versions, foreign, verdict, code) in [
            (None, false, "ok    schema         not there yet", 0),
            (None, true, "FAIL  schema         the database has", 78),
            (Some((5, 5, 0, None)), false, "ok    schema         version 5, up to date", 0),
            (Some((4, 5, 1, None)), false, "ok    schema         version 4, older", 0),
            (Some((6, 5, 0, None)), false, "FAIL  schema         version 6 is newer", 78),
            (Some((5, 5, 0, Some(3))), false, "FAIL  schema         migration 3", 78),
        ] {
            let (text, exit) = schema_says(versions, foreign);
            assert!(text.starts_with(verdict), "{text}");
            assert_eq!(exit, code, "{text}");
        }
    }
}
