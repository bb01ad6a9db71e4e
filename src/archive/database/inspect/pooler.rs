//! Checks whether each connection has its own session. A pooler that assigns a session for each transaction
//! (PgBouncer's `pool_mode = transaction`, and similar modes of Odyssey, PgCat or RDS Proxy) keeps neither prepared
//! statements nor session settings nor session locks.
//!
//! All queries use the simple protocol, which such a pooler supports.

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{Error, text};

/// How often to try: a pooler with several sessions may assign the same one twice by chance.
const ROUNDS: usize = 4;

/// Opens a second connection and closes it again. `Some`: why the server refused it.
///
/// # Errors
/// [`Error::Pooler`] if the two share a session.
pub(super) async fn must_have_sessions(
    options: &PgConnectOptions,
    first: &mut PgConnection,
) -> Result<Option<String>, Error> {
    let mut second = match PgConnection::connect_with(options).await {
        Ok(second) => second,
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("53300") => {
            return Ok(Some(error.message().to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let shared = share(first, &mut second).await;
    let _ = second.close().await;
    shared.map(|()| None)
}

async fn share(first: &mut PgConnection, second: &mut PgConnection) -> Result<(), Error> {
    const PROCESS: &str = "select pg_backend_pid()::text";
    let pooler = |why: &str| Err(Error::Pooler(why.to_owned()));
    for _ in 0..ROUNDS {
        let before = text(first, PROCESS).await?;
        if let Err(error) = sqlx::raw_sql("begin").execute(&mut *second).await {
            return match error {
                // A pooler that assigns a session for each statement does not support transactions.
                sqlx::Error::Database(error) => pooler(error.message()),
                error => Err(error.into()),
            };
        }
        let beside = text(second, PROCESS).await?;
        let after = text(first, PROCESS).await?;
        sqlx::raw_sql("commit").execute(&mut *second).await?;
        if before == beside || after == beside {
            return pooler("two connections have shared a server process");
        }
        if before != after {
            return pooler("one connection has had two server processes");
        }
    }
    sqlx::raw_sql("set backscroll.probe = 'kept'").execute(&mut *first).await?;
    let kept = text(first, "select coalesce(current_setting('backscroll.probe', true), '')").await?;
    if kept == "kept" { Ok(()) } else { pooler("a setting of the session was lost") }
}
