//! Which errors of the database pass by themselves. One list, for whatever is done with the database.
//!
//! The codes are those of PostgreSQL's appendix "Error Codes".

use std::time::Duration;

use crate::archive::Error;

/// How often a command tries, and the first pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The lock of the lease is held by no session: of `archive.begin_writing`.
pub(in crate::archive) const NO_SESSION: &str = "BS002";
/// Another writer has come: of the same.
pub(in crate::archive) const ANOTHER_EPOCH: &str = "BS001";

/// Connection (08), rollback such as for a deadlock (40), resources such as connections or room on the disk (53), the
/// operator's or a timeout's intervention, start and shutdown (57), what the system below failed in (58).
const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
/// A standby, or a server that was set to read only (25006); a transaction that was idle or has lasted too long (25P03, 25P04);
/// an object that others use (55006); a lock that was not to be had in time (55P03); a view or table that a migration has
/// changed under a prepared query (0A000 with the text that PostgreSQL has for it).
const CODES: [&str; 5] = ["25006", "25P03", "25P04", "55006", "55P03"];
/// PostgreSQL gives no code of its own for these.
const TEXTS: [(&str, &str); 2] =
    [("0A000", "cached plan must not change result type"), ("XX000", "tuple concurrently updated")];

/// Whether such an error passes.
pub(in crate::archive) fn passes(code: &str, message: &str) -> bool {
    CLASSES.iter().any(|class| code.starts_with(class))
        || CODES.contains(&code)
        || [NO_SESSION].contains(&code)
        || TEXTS.contains(&(code, message))
}

/// Whether it is of the session rather than of what was to be done: another session may have none. A server that only reads
/// may be a standby to which the address no longer leads.
fn is_of_the_session(code: &str, message: &str) -> bool {
    ["08", "57"].iter().any(|class| code.starts_with(class) && code != "57014")
        || ["25006", "25P03", "25P04"].contains(&code)
        || TEXTS[0] == (code, message)
}

/// Does a command's work again, a few times, where what it has met passes and nothing of it was done.
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

    /// Whether the database's error passes by itself.
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

    /// Whether the session that it came from is not to be used again.
    pub(in crate::archive) fn is_of_the_session(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_of_the_session(&code, error.message()))
            }
            // The way to the server, or what it says cannot be understood.
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => true,
            _ => false,
        }
    }

    /// Whether the server takes no writing, as a standby.
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
