//! Decides which errors of the database are temporary. All users of the database share this list.
//!
//! The codes are those of PostgreSQL's appendix "Error Codes".

use std::time::Duration;

use crate::archive::Error;

/// How often a command tries, and the first pause between two tries.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// `archive.begin_writing`: no session holds the lock of the lease.
pub(in crate::archive) const NO_SESSION: &str = "BS002";
/// `archive.begin_writing`: there is another writer now.
pub(in crate::archive) const ANOTHER_EPOCH: &str = "BS001";

/// Classes of temporary errors: connection (08), rollback such as after a deadlock (40), insufficient resources such
/// as connections or disk space (53), operator intervention, timeouts, start and shutdown (57), system errors (58).
const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
/// Codes of temporary errors: a standby, or a server that was set to read-only (25006); a transaction that was idle
/// or took too long (25P03, 25P04); an object in use (55006); a lock that was not available in time (55P03). And
/// 0A000 with PostgreSQL's text for a view or table that a migration has changed after a query was prepared.
const CODES: [&str; 5] = ["25006", "25P03", "25P04", "55006", "55P03"];
/// PostgreSQL gives no code of its own for these.
const TEXTS: [(&str, &str); 2] =
    [("0A000", "cached plan must not change result type"), ("XX000", "tuple concurrently updated")];

/// Whether such an error is temporary.
pub(in crate::archive) fn passes(code: &str, message: &str) -> bool {
    CLASSES.iter().any(|class| code.starts_with(class))
        || CODES.contains(&code)
        || [NO_SESSION].contains(&code)
        || TEXTS.contains(&(code, message))
}

/// Whether the error concerns the session, not the statement, so that a new session may work. A read-only server may
/// be a standby to which the address no longer leads.
fn is_of_the_session(code: &str, message: &str) -> bool {
    ["08", "57"].iter().any(|class| code.starts_with(class) && code != "57014")
        || ["25006", "25P03", "25P04"].contains(&code)
        || TEXTS[0] == (code, message)
}

/// Retries a command's work a few times, if the error is temporary and nothing was done.
pub(in crate::archive) async fn again<T>(work: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match work().await {
            Err(error) if error.passes() => tracing::debug!(%error, "trying again"),
            done => return done,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    work().await
}

impl Error {
    /// The SQLSTATE, if the database gave one.
    pub(in crate::archive) fn code(&self) -> Option<&str> {
        let Self::Database(sqlx::Error::Database(error)) = self else { return None };
        error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().map(sqlx::postgres::PgDatabaseError::code)
    }

    /// Whether the error is temporary.
    pub(in crate::archive) fn passes(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| passes(&code, error.message()))
            }
            Self::Database(
                sqlx::Error::Configuration(_) | sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. },
            ) => false,
            Self::Database(_) => true,
            _ => false,
        }
    }

    /// Whether the session must not be used again.
    pub(in crate::archive) fn is_of_the_session(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_of_the_session(&code, error.message()))
            }
            // The connection failed, or the server's response could not be parsed.
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => true,
            _ => false,
        }
    }

    /// Whether the server is read-only, such as a standby.
    pub(in crate::archive) fn is_read_only(&self) -> bool {
        self.code() == Some("25006")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_distinguished_from_what_does_not() {
        for code in [
            "08006", "40001", "40P01", "53300", "53100", "57014", "57P01", "57P03", "57P05", "25006",
            "25P03", "25P04", "55P03", "55006", "58030", "BS002",
        ] {
            assert!(passes(code, ""), "{code}");
        }
        for code in ["23505", "22021", "42501", "42P01", "28P01", "3D000", "0A000", "XX000", "25P02", "BS001"]
        {
            assert!(!passes(code, ""), "{code}");
        }
        assert!(passes("0A000", "cached plan must not change result type"));
        assert!(passes("XX000", "tuple concurrently updated"));
    }

    #[test]
    fn a_session_is_given_up_for_what_is_its_own_fault() {
        for code in ["08006", "57P01", "57P03", "25006", "25P03", "25P04"] {
            assert!(is_of_the_session(code, ""), "{code}");
        }
        for code in ["40P01", "57014", "55P03", "23505", "53100"] {
            assert!(!is_of_the_session(code, ""), "{code}");
        }
    }
}
