//! `backscroll grant-reader` and `grant-writer`

use ruma::OwnedRoomId;

use crate::{
    Error, Exit, archive,
    config::Config,
    daemon::Store,
    text::{escape, print},
};

/// The longest name that PostgreSQL does not truncate.
const LONGEST_NAME: usize = 63;
/// Keywords that SQL accepts in place of a role's name.
const NO_ROLES: [&str; 6] = ["public", "none", "current_user", "current_role", "session_user", "user"];

/// Let a database role read the views of the archive, and nothing else.
///
/// Creates the role if it does not exist, without a password: set one with `\password NAME` in `backscroll psql`.
/// With --room the role sees only these rooms. Granting again replaces the earlier grant. To undo: `drop owned by
/// NAME; drop role NAME`.
///
/// The role cannot write anything. By default PostgreSQL lets every role create temporary tables, large objects and
/// the like. This command revokes these rights from all roles in this database, except from those that own something
/// else in it; it names the rights that it could not revoke. The reader's transactions are read-only and its queries
/// end after a minute, but these are defaults that it can change. A role with more rights is refused, such as a
/// superuser or a member of `pg_read_all_data`.
#[derive(Debug, clap::Args)]
pub(super) struct GrantReader {
    /// Name of the role
    #[arg(value_parser = role)]
    name: String,

    /// A room that the role may see, such as '!abc:example.org'; repeat for more [default: all]
    #[arg(long, value_name = "ROOM")]
    room: Vec<OwnedRoomId>,
}

/// Let a database role run the daemon: it can write rows, but cannot create, alter, truncate or drop a table.
///
/// Creates the role if it does not exist, without a password. Migrations need the owner of the tables: run
/// `backscroll migrate` with the owner's database.url after each upgrade. As with grant-reader, rights are revoked
/// from all roles, and a role with more rights is refused.
#[derive(Debug, clap::Args)]
pub(super) struct GrantWriter {
    /// Name of the role
    #[arg(value_parser = role)]
    name: String,
}

impl GrantReader {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let rooms: Vec<_> = self.room.iter().map(ToString::to_string).collect();
        let rooms = (!rooms.is_empty()).then_some(rooms.as_slice());
        let left = grant(config, async |archive| archive.grant_reader(&self.name, rooms).await).await?;
        let rooms =
            rooms.map_or_else(|| "every room".to_owned(), |rooms| escape(&rooms.join(", ")).into_owned());
        print(&format!("{} may read {rooms}.\n", escape(&self.name)))?;
        warn(&self.name, &left);
        Ok(Exit::Success)
    }
}

impl GrantWriter {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let left = grant(config, async |archive| archive.grant_writer(&self.name).await).await?;
        print(&format!("{} may run the daemon.\n", escape(&self.name)))?;
        warn(&self.name, &left);
        Ok(Exit::Success)
    }
}

async fn grant(
    config: &Config,
    grant: impl AsyncFnOnce(&archive::Archive) -> Result<Vec<String>, archive::Error>,
) -> anyhow::Result<Vec<String>> {
    let store = Store::open_archive(config).await?;
    let granted = async {
        store.archive.migrate().await?;
        grant(&store.archive).await
    };
    let granted = granted.await;
    store.close().await?;
    Ok(granted.map_err(Error::from)?)
}

/// Prints the rights that the role has in addition, because they could not be revoked.
fn warn(name: &str, left: &[String]) {
    for left in left {
        eprintln!("backscroll: warning: {}: {}", escape(name), escape(left));
    }
}

fn role(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(format!("a role's name has 1 to {LONGEST_NAME} bytes"));
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("pg_") || NO_ROLES.contains(&lower.as_str()) {
        return Err(format!("PostgreSQL reserves the name {name}: choose another"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_sql_is_no_role() {
        for name in NO_ROLES.into_iter().chain(["PUBLIC", "pg_monitor", "PG_x", "", &"x".repeat(64)]) {
            assert!(role(name).is_err(), "{name}");
        }
        for name in ["reader", "Reader", "a public", "nobody", "pgx", &"x".repeat(63)] {
            assert_eq!(role(name).as_deref(), Ok(name));
        }
    }
}
