//! `backscroll grant-reader` and `grant-writer`

use ruma::OwnedRoomId;

use crate::{
    Error, Exit, archive,
    config::Config,
    daemon::Store,
    text::{escape, print},
};

/// The longest name that PostgreSQL does not cut.
const LONGEST_NAME: usize = 63;
/// What stands in SQL where a role's name might, and is none: everybody, nobody, oneself.
const NO_ROLES: [&str; 6] = ["public", "none", "current_user", "current_role", "session_user", "user"];

/// Let a database role read the archive: the views, and nothing else.
///
/// Makes the role if there is none, without a password: set one with `\password NAME` in `backscroll psql`. With --room it
/// sees these rooms only. Granting again replaces what was granted. To undo: `drop owned by NAME; drop role NAME`.
///
/// It has no right to write anything. Temporary tables, large objects and the like are everybody's by default: they are taken
/// from everybody in this database, but from roles that own something else here; what this role may not take is named. That
/// the reader's transactions are read-only and its queries end after a minute are defaults, which it can change. A role
/// that has other rights, as a superuser or a member of `pg_read_all_data` has, is refused.
#[derive(Debug, clap::Args)]
pub(super) struct GrantReader {
    /// Name of the role
    #[arg(value_parser = role)]
    name: String,

    /// A room that it may see, such as '!abc:example.org'; repeat for more [default: all]
    #[arg(long, value_name = "ROOM")]
    room: Vec<OwnedRoomId>,
}

/// Let a database role run the daemon: write rows, but neither make, change, empty nor drop a table.
///
/// Makes the role if there is none, without a password. Migrations then need their owner: `backscroll migrate` with the
/// owner's database.url, after each upgrade. What is taken from everybody, and who is refused, is as with grant-reader.
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

/// Names what the role may do beside what it is for, because it could not be taken from it.
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
        return Err(format!("PostgreSQL keeps the name {name} for itself: it is no role; name another"));
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
