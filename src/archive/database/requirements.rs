//! The requirements for a database. `check` reports them, and `run`, `backfill` and `resequence` check them before
//! they begin, with the same texts and exit codes.

use std::fmt;

use super::inspect::{Access, ConnectionLimit, FEWEST_CONNECTIONS, Inspection, Limited, Schema};
use crate::{Exit, archive, text::escape};

/// The subject of a finding.
pub(crate) const DATABASE: &str = "database";
/// The same.
pub(crate) const SCHEMA: &str = "schema";

/// For `nulls not distinct`.
const OLDEST_MAJOR: i32 = 15;
/// At most this many names are shown.
const NAMED: usize = 5;

/// A problem, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The process's exit code. [`Exit::Unavailable`]: it may be temporary.
    pub(crate) exit: Exit,
    /// The subject.
    pub(crate) subject: &'static str,
    /// The problem.
    pub(crate) text: String,
    /// What to do, one line for each remedy.
    pub(crate) remedies: Vec<String>,
}

/// The error for a database that does not meet the requirements.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Unmet {
    /// At least one.
    problems: Vec<Problem>,
}

impl Unmet {
    /// The first problem's exit code.
    pub(crate) fn exit_code(&self) -> Exit {
        self.problems.first().map_or(Exit::Other, |problem| problem.exit)
    }

    /// Whether waiting may help.
    pub(crate) fn may_pass(&self) -> bool {
        self.problems.iter().all(|problem| problem.exit == Exit::Unavailable)
    }
}

impl From<Problem> for Unmet {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{}: {}", if number == 0 { "" } else { "\n" }, problem.subject, problem.text)?;
            for remedy in &problem.remedies {
                write!(f, "\n  {remedy}")?;
            }
        }
        Ok(())
    }
}

/// How many connections this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connections {
    /// In the pool.
    pub(crate) pool: u32,
    /// Rooms that are walked at once. Each may need one more connection.
    pub(crate) walks: u32,
}

/// Connections in addition to those of the walks: for the loops' own reads, `/sync`, the listener, and a reserve.
const SPARE: u32 = 4;

impl Connections {
    /// The connections for this many rooms at once.
    pub(crate) fn for_walks(walks: usize) -> Self {
        let walks = u32::try_from(walks).unwrap_or(u32::MAX - SPARE);
        Self { pool: walks + SPARE, walks }
    }

    /// The total: the pool, those for pages, and the lease.
    pub(crate) const fn total(self) -> u32 {
        self.pool + self.walks + 1
    }

    /// Reduces them to the limit.
    #[must_use]
    pub(crate) fn within(self, most: i64) -> Self {
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(FEWEST_CONNECTIONS);
        if self.total() <= most {
            return self;
        }
        // The lease and four in the pool come first, if there are that many. A walk waits for a connection if
        // necessary.
        let walks = most.saturating_sub(FEWEST_CONNECTIONS).clamp(1, self.walks);
        Self { walks, pool: (most - 1 - walks).min(self.pool) }
    }
}

/// Checks that the database meets the requirements.
///
/// # Errors
/// All problems.
pub(crate) fn judge(found: &Inspection) -> Result<(), Unmet> {
    let problems = problems(found);
    if problems.is_empty() { Ok(()) } else { Err(Unmet { problems }) }
}

/// All problems.
pub(crate) fn problems(found: &Inspection) -> Vec<Problem> {
    let of_the_server = [version(found), encoding(found), read_only(found), connections(found)];
    let of_the_schema = [schema(found), rights(found), taken(found)];
    of_the_server.into_iter().chain(of_the_schema).flatten().collect()
}

fn problem(
    exit: Exit,
    subject: &'static str,
    text: impl Into<String>,
    remedies: impl IntoIterator<Item = impl Into<String>>,
) -> Problem {
    Problem { exit, subject, text: text.into(), remedies: remedies.into_iter().map(Into::into).collect() }
}

fn version(found: &Inspection) -> Option<Problem> {
    let text = format!("PostgreSQL {} is too old: it must be {OLDEST_MAJOR} or newer", found.server_version);
    (found.major < OLDEST_MAJOR)
        .then(|| problem(Exit::Configuration, DATABASE, text, ["upgrade it, or use another database"]))
}

fn encoding(found: &Inspection) -> Option<Problem> {
    let text = format!("its encoding is {}, which cannot hold every message", found.encoding);
    let create =
        format!("create database backscroll encoding 'UTF8' template template0 owner {:?};", found.role);
    (found.encoding != "UTF8")
        .then(|| problem(Exit::Configuration, DATABASE, text, ["as a superuser, make another one:", &create]))
}

fn read_only(found: &Inspection) -> Option<Problem> {
    match found.access {
        Access::Writable => None,
        Access::Standby => {
            let text = "nothing can be written to it: it is a standby, until it is promoted";
            Some(problem(Exit::Unavailable, DATABASE, text, ["name the primary server in database.url"]))
        }
        Access::ReadOnly => {
            let text = "nothing can be written to it: default_transaction_read_only is on";
            Some(problem(
                Exit::Configuration,
                DATABASE,
                text,
                ["turn it off for this role, or use another role"],
            ))
        }
    }
}

fn connections(found: &Inspection) -> Option<Problem> {
    let limit @ ConnectionLimit { most, of, .. } = &found.connections;
    let needs = format!("Backscroll needs {FEWEST_CONNECTIONS}, and more with backfill.concurrency");
    let fewest = i64::from(FEWEST_CONNECTIONS);
    let wanted = "connection limit 20;";
    if *most < fewest {
        let (whose, remedy) = match of {
            Limited::Role => {
                (format!("role {:?}", found.role), format!("alter role {:?} {wanted}", found.role))
            }
            Limited::Database => (
                format!("database {:?}", found.database),
                format!("alter database {:?} {wanted}", found.database),
            ),
            Limited::Server => {
                ("the server".to_owned(), "raise max_connections in postgresql.conf".to_owned())
            }
        };
        let text = format!("{whose} may have {most} connections at once: {needs}");
        return Some(problem(Exit::Configuration, DATABASE, text, [remedy]));
    }
    if found.lacks_free_connections() {
        let text = format!("of {most} connections {} are free: {needs}", limit.free());
        return Some(problem(Exit::Unavailable, DATABASE, text, ["end some, or raise the limit"]));
    }
    None
}

fn schema(found: &Inspection) -> Option<Problem> {
    let Some(schema) = &found.schema else {
        return found.foreign_schema.then(|| {
            let text = "the database has a schema `archive` that Backscroll did not make";
            problem(Exit::Configuration, SCHEMA, text, ["use another database, or rename that schema"])
        });
    };
    if schema.is_pre_release {
        return Some(of_error(&archive::Error::PreReleaseSchema));
    }
    if schema.found > schema.known {
        let error = archive::Error::NewerSchema { found: schema.found, known: schema.known };
        return Some(of_error(&error));
    }
    let broken = schema.broken?;
    let text = format!("migration {broken} is not the one that this Backscroll has, or was not finished");
    Some(problem(
        Exit::Configuration,
        SCHEMA,
        text,
        ["use the Backscroll that made the archive, or restore a backup from before"],
    ))
}

fn of_error(error: &archive::Error) -> Problem {
    problem(error.exit_code(), SCHEMA, format!("failed to {error}"), [""; 0])
}

fn taken(found: &Inspection) -> Option<Problem> {
    if found.taken.is_empty() || schema(found).is_some() {
        return None;
    }
    let named: Vec<_> = found.taken.iter().take(NAMED).map(|name| escape(name)).collect();
    let more = found.taken.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!("names that Backscroll needs are taken: {}{more}", named.join(", "));
    Some(problem(Exit::Configuration, SCHEMA, text, ["use a database of its own, or rename what has them"]))
}

fn rights(found: &Inspection) -> Option<Problem> {
    let is_ours = |schema: &&Schema| schema.found <= schema.known && !schema.is_pre_release;
    let lacking = found.schema.as_ref().filter(is_ours).filter(|schema| schema.missing > 0);
    if let (Some(schema), Some(owner)) = (lacking, &found.foreign_owner) {
        let (role, owner) = (found.role.clone(), owner.clone());
        let error = archive::Error::OlderSchema { found: schema.found, known: schema.known, role, owner };
        return Some(of_error(&error));
    }
    if found.permitted || found.schema.as_ref().is_some_and(|schema| !is_ours(&schema)) {
        return None;
    }
    let (role, database) = (&found.role, &found.database);
    if found.schema.as_ref().is_some_and(|schema| schema.missing == 0) {
        let text = format!("role {role:?} may not write to the archive");
        return Some(problem(Exit::Refused, SCHEMA, text, ["use the role that owns the archive"]));
    }
    let text = format!("role {role:?} may not create the archive's schema and views");
    let grant = format!("alter database {database:?} owner to {role:?};");
    Some(problem(
        Exit::Refused,
        SCHEMA,
        text,
        ["use the role that owns the archive, or as a superuser:", &grant],
    ))
}

/// Why the connection failed, and what to do.
pub(crate) fn unreachable(error: &archive::Error) -> Problem {
    let (exit, remedy) = match error {
        archive::Error::Database(sqlx::Error::Database(error)) => {
            // PgBouncer's error: it supports only some parameters.
            let is_pooler = error.message().contains("startup parameter");
            match error.code().as_deref() {
                Some("28P01" | "28000") => {
                    (Exit::Refused, "correct user and password in database.url, or the server's pg_hba.conf")
                }
                Some("3D000") => (Exit::Configuration, "make it: createdb, or `create database …` in psql"),
                Some("42501") => (Exit::Refused, "use the role that owns the archive"),
                Some("53300") => (
                    Exit::Unavailable,
                    "end some connections, or raise the limit that is named: `alter role … connection limit 20`, max_connections",
                ),
                _ if is_pooler => {
                    (Exit::Configuration, "a connection pooler answers: connect to PostgreSQL itself")
                }
                _ => (Exit::Unavailable, "see the database server's log"),
            }
        }
        archive::Error::Database(sqlx::Error::Configuration(_)) => {
            (Exit::Configuration, "correct database.url")
        }
        archive::Error::Database(sqlx::Error::Tls(_)) => (
            Exit::Unavailable,
            "see that the server speaks TLS with a certificate that is trusted here, or set sslmode",
        ),
        archive::Error::Database(_) => {
            (Exit::Unavailable, "is the server running, and is database.url right?")
        }
        error @ archive::Error::Pooler(_) => {
            (error.exit_code(), "name PostgreSQL's own host and port in database.url")
        }
        error => (error.exit_code(), "see `backscroll migrate`"),
    };
    problem(exit, DATABASE, format!("failed to {error}"), [remedy])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Inspection {
        Inspection {
            server_version: "15.1".to_owned(),
            major: 15,
            database: "d".to_owned(),
            role: "r".to_owned(),
            encoding: "UTF8".to_owned(),
            access: Access::Writable,
            connections: ConnectionLimit { most: 97, used: 0, of: Limited::Server },
            no_second: None,
            taken: Vec::new(),
            schema: None,
            foreign_owner: None,
            foreign_schema: false,
            permitted: true,
            writer: None,
            wide_roles: Vec::new(),
            search_is_limited: false,
            account: None,
        }
    }

    fn of(found: usize, known: usize, missing: usize, broken: Option<i64>) -> Schema {
        let version = |number| i64::try_from(number).unwrap();
        Schema { found: version(found), known: version(known), missing, broken, is_pre_release: false }
    }

    #[test]
    fn each_requirement_has_its_words_and_code() {
        let limit = |most, used, of| ConnectionLimit { most, used, of };
        let cases = [
            (Inspection { major: 14, ..found() }, Exit::Configuration, "is too old"),
            (
                Inspection { encoding: "LATIN1".to_owned(), ..found() },
                Exit::Configuration,
                "its encoding is LATIN1",
            ),
            (Inspection { access: Access::Standby, ..found() }, Exit::Unavailable, "a standby"),
            (
                Inspection { access: Access::ReadOnly, ..found() },
                Exit::Configuration,
                "default_transaction_read_only",
            ),
            (
                Inspection { connections: limit(4, 0, Limited::Role), ..found() },
                Exit::Configuration,
                "role \"r\" may have 4",
            ),
            (
                Inspection { connections: limit(3, 0, Limited::Database), ..found() },
                Exit::Configuration,
                "database \"d\" may have 3",
            ),
            (
                Inspection { connections: limit(97, 94, Limited::Server), ..found() },
                Exit::Unavailable,
                "of 97 connections 3 are free",
            ),
            (Inspection { foreign_schema: true, ..found() }, Exit::Configuration, "did not make"),
            (
                Inspection { schema: Some(of(6, 5, 0, None)), ..found() },
                Exit::Configuration,
                "its schema is of version 6",
            ),
            (
                Inspection { schema: Some(of(5, 5, 0, Some(3))), ..found() },
                Exit::Configuration,
                "migration 3 is not",
            ),
            (
                Inspection { taken: vec!["table public.events".to_owned()], ..found() },
                Exit::Configuration,
                "table public.events",
            ),
            (
                Inspection {
                    schema: Some(of(4, 5, 1, None)),
                    foreign_owner: Some("o".to_owned()),
                    ..found()
                },
                Exit::Refused,
                "run `backscroll migrate` as the owner, \"o\"",
            ),
            (
                Inspection {
                    schema: Some(Schema { is_pre_release: true, ..of(40, 9, 9, Some(1)) }),
                    taken: vec!["table archive.rooms".to_owned()],
                    permitted: false,
                    ..found()
                },
                Exit::Configuration,
                "from before the first release",
            ),
            (Inspection { permitted: false, ..found() }, Exit::Refused, "may not create"),
            (
                Inspection { permitted: false, schema: Some(of(5, 5, 0, None)), ..found() },
                Exit::Refused,
                "may not write",
            ),
        ];
        for (found, exit, text) in cases {
            let unmet = judge(&found).unwrap_err();
            assert_eq!(unmet.exit_code(), exit, "{unmet}");
            assert!(unmet.to_string().contains(text), "{unmet}");
            assert_eq!(unmet.may_pass(), exit == Exit::Unavailable);
        }
        for fine in [
            found(),
            Inspection { schema: Some(of(4, 5, 1, None)), ..found() },
            Inspection {
                connections: limit(10, 9, Limited::Role),
                writer: Some((1, String::new())),
                ..found()
            },
        ] {
            judge(&fine).unwrap();
        }
    }

    #[test]
    fn few_connections_are_shared_out() {
        let full = Connections::for_walks(4);
        assert_eq!(full, Connections { pool: 8, walks: 4 });
        for most in 5..20 {
            let within = full.within(most);
            assert!(i64::from(within.total()) <= most, "{most}: {within:?}");
            assert!(within.pool >= 3 && within.walks >= 1, "{most}: {within:?}");
        }
        // As many as a role of `grant-writer` may have.
        assert_eq!(full.within(10), Connections { pool: 5, walks: 4 });
        assert_eq!(full.within(5), Connections { pool: 3, walks: 1 });
        assert_eq!(full.within(13), full);
        assert_eq!(full.within(100), full);
    }
}
