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

/// Erase what a user has said, or a room, and never archive it again.
///
/// Of a user: the content of every event that they sent and of their memberships, wherever it went, as a redaction
/// would; what they send later is archived without content too. What others quoted of it stays theirs. Of a room: all
/// of its rows. The homeserver is not touched, nor are backups. No daemon may be at work on the archive.
#[derive(Debug, clap::Args)]
pub(super) struct Erase {
    #[command(flatten)]
    subject: Whom,

    /// Only print how many rows of each table would be concerned
    #[arg(long)]
    dry_run: bool,

    /// Do not ask, on a terminal, whether this is meant
    #[arg(long, short)]
    yes: bool,
}

/// Where PostgreSQL keeps what no query shows any more.
const TRACES: &str = "No query shows it any more. The old rows stay in the database's files until they are written anew: run \
                      'vacuum full' on the tables of the schema archive. Its write-ahead log, replicas and backups keep \
                      theirs until they are replaced.";

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Erase the content of this user's events, such as @user:example.org, as the view events shows the sender
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
            return Ok(Exit::Declined);
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

/// One line for each place: how many rows.
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
