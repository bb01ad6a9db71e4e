//! `backscroll erase`

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
};

use ruma::OwnedRoomId;

use crate::{
    Error, Exit,
    archive::{Erased, Subject, Writer},
    config::Config,
    daemon::Store,
    text::print,
};

/// Erase the content of a user's events, or a whole room, and never archive it again.
///
/// With --user: removes the content of every event that the user sent and of their memberships, in every table, as a
/// redaction would. Events that they send later are archived without content too. Quotations by other users stay.
/// With --room: removes all rows of the room. Nothing changes on the homeserver or in backups. Stop the daemon first.
#[derive(Debug, clap::Args)]
pub(super) struct Erase {
    #[command(flatten)]
    subject: Whom,

    /// Only print how many rows of each table would be erased
    #[arg(long)]
    dry_run: bool,

    /// Do not ask for confirmation on a terminal
    #[arg(long, short)]
    yes: bool,
}

/// Where erased rows still exist in PostgreSQL.
const TRACES: &str = "Queries no longer return it. The old rows stay in the database's files until the tables are \
                      rewritten: run 'vacuum full' on the tables of the schema archive. The write-ahead log, replicas \
                      and backups keep the old rows until they are replaced.";

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Erase the content of this user's events, such as @user:example.org (the column sender of the view events)
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Erase this room, such as '!abc:example.org'
    #[arg(long, value_name = "ROOM")]
    room: Option<OwnedRoomId>,
}

impl Erase {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_archive(config).await?;
        let erased = self.erase(&store, config).await;
        store.close().await?;
        erased
    }

    async fn erase(&self, store: &Store, config: &Config) -> anyhow::Result<Exit> {
        store.archive.migrate().await.map_err(Error::from)?;
        let writer = store.archive.writer(config.redactions).await.map_err(Error::from)?;
        let erased = self.erase_with(&writer).await;
        writer.release().await;
        erased
    }

    async fn erase_with(&self, writer: &Writer) -> anyhow::Result<Exit> {
        let subject = self.subject();
        if self.dry_run {
            let erased = writer.erase(&subject, true).await.map_err(Error::from)?;
            print(&table(&erased, "would be erased"))?;
            return Ok(Exit::Success);
        }
        if !self.yes && std::io::stdin().is_terminal() && !confirmed(writer, &subject).await? {
            eprintln!("Nothing was erased.");
            return Ok(Exit::No);
        }
        let erased = writer.erase(&subject, false).await.map_err(Error::from)?;
        print(&table(&erased, "erased"))?;
        if erased.values().any(|rows| *rows > 0) {
            eprintln!("{TRACES}");
        }
        Ok(Exit::Success)
    }

    fn subject(&self) -> Subject {
        match (&self.subject.user, &self.subject.room) {
            (Some(user_id), _) => Subject::User(user_id.clone()),
            (None, Some(room_id)) => Subject::Room(room_id.to_string()),
            (None, None) => unreachable!("clap requires one of the two"),
        }
    }
}

async fn confirmed(writer: &Writer, subject: &Subject) -> anyhow::Result<bool> {
    let erased = writer.erase(subject, true).await.map_err(Error::from)?;
    eprint!("{}Erase this for good? [y/N] ", table(&erased, "to be erased"));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// One line for each table: the number of rows.
fn table(erased: &Erased, what: &str) -> String {
    let width = erased.keys().map(String::len).max().unwrap_or_default();
    let mut table = String::new();
    for (place, rows) in erased {
        let _ = writeln!(table, "{place:width$}  {rows:>9} {what}");
    }
    if erased.is_empty() {
        table.push_str("Nothing is left of it.\n");
    }
    table
}
