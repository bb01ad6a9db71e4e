//! `backscroll evidence`

mod collect;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ruma::{OwnedRoomId, RoomId};

use self::collect::Collection;
use crate::{
    Error, Exit,
    archive::{self, Archive},
    config::Config,
    daemon::Store,
    matrix::{
        Identity,
        proof::{
            KeyResponse,
            evidence::{self, Findings},
        },
    },
    text::{escape, print},
};

/// Prove a message to somebody else.
///
/// Writes one event as its server signed it, the events that allow it up to the room's create event, and the
/// servers' public keys. Whoever gets the file can check it without the archive, with `backscroll evidence
/// check FILE` or by what is said in the file. What is not in the archive is fetched from the homeserver,
/// which must give events as they were signed, as Synapse does.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Evidence {
    #[command(subcommand)]
    action: Option<Action>,
    /// The event, such as '$abc' (the column `event_id` of the view messages)
    #[arg(required = true)]
    event_id: Option<String>,
    /// The event's room, if the archive has the event in none or in several
    #[arg(long)]
    room: Option<OwnedRoomId>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check a file of `backscroll evidence`; needs no archive, no configuration and no network
    Check {
        /// The file
        file: PathBuf,
    },
}

impl Evidence {
    /// The file of `evidence check`.
    pub(super) fn file_to_check(&self) -> Option<&Path> {
        self.action.as_ref().map(|Action::Check { file }| file.as_path())
    }

    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_archive(config).await?;
        let done = self.write(config, &store.archive).await;
        store.close().await?;
        done
    }

    async fn write(&self, config: &Config, archive: &Archive) -> anyhow::Result<Exit> {
        archive.migrate().await.map_err(Error::from)?;
        let event_id = self.event_id.as_deref().unwrap_or_default();
        let room_id = match &self.room {
            Some(room_id) => room_id.clone(),
            None => find_room(archive, event_id).await?,
        };
        let client = log_in(config, archive).await?;
        let mut collection = Collection::new(&client, archive, &room_id).await?;
        let Some(event) = collection.event(event_id).await? else {
            return Ok(refuse(&format!(
                "{event_id} is not to be had as it was signed: {}",
                collection.why_missing()
            )));
        };
        let chain = collection.chain(&event).await?;
        let keys = collection.keys(chain.iter().chain([&event])).await?;
        if config.keep_evidence {
            keep(archive, config, &room_id, &collection, &keys).await?;
        }
        let text = evidence::write(room_id.as_str(), collection.room_version(), &event, &chain, &keys);
        match &self.output {
            Some(file) => fs::write(file, &text)
                .with_context(|| format!("failed to write {}", escape(&file.display().to_string())))?,
            None => print(&text)?,
        }
        // Whoever gets the file would find this out.
        let findings = evidence::check(&text)?;
        for problem in &findings.wrong {
            eprintln!("backscroll: {}", escape(problem));
        }
        Ok(if findings.wrong.is_empty() { Exit::Success } else { Exit::No })
    }
}

/// Checks a file and prints what it proves.
pub(super) fn check(file: &Path) -> anyhow::Result<Exit> {
    let name = escape(&file.display().to_string()).to_string();
    let bytes = fs::read(file).with_context(|| format!("failed to read {name}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let findings = match evidence::check(&text) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("backscroll: failed to read {name}: {error}");
            return Ok(Exit::Usage);
        }
    };
    print(&page(&findings))?;
    Ok(if findings.wrong.is_empty() { Exit::Success } else { Exit::No })
}

fn page(findings: &Findings) -> String {
    let mut page = String::new();
    let verdict = if findings.wrong.is_empty() { "This is proved:" } else { "This is NOT good evidence." };
    let _ = writeln!(page, "{verdict}");
    let sections = [
        ("", if findings.wrong.is_empty() { findings.proved.as_slice() } else { &[] }),
        ("This does not fit:", &findings.wrong),
        ("This is not proved:", &findings.not_proved),
    ];
    for (title, sentences) in sections {
        if !title.is_empty() && !sentences.is_empty() {
            let _ = writeln!(page, "\n{title}");
        }
        for sentence in sentences {
            let _ = writeln!(page, "* {}", escape(sentence));
        }
    }
    page
}

fn refuse(problem: &str) -> Exit {
    eprintln!("backscroll: {}", escape(problem));
    Exit::No
}

async fn find_room(archive: &Archive, event_id: &str) -> anyhow::Result<OwnedRoomId> {
    let rooms = archive.rooms_of_event(event_id).await.map_err(Error::from)?;
    let problem = match rooms.as_slice() {
        [room_id] => return RoomId::parse(room_id).context("the archived room id is no room id"),
        [] => "the archive does not have this event; name its room with --room",
        _ => "several rooms have an event with this id; name one with --room",
    };
    anyhow::bail!("{problem}")
}

async fn log_in(config: &Config, archive: &Archive) -> anyhow::Result<Identity> {
    // A login with a password reuses the daemon's device, so that no device is left over.
    let account = archive.account().await.map_err(Error::from)?;
    let device_id = account.and_then(|account| account.device_id);
    Ok(Identity::new(&config.homeserver, device_id).await.map_err(Error::from)?)
}

/// Stores what was fetched, unless another Backscroll writes.
async fn keep(
    archive: &Archive,
    config: &Config,
    room_id: &RoomId,
    collection: &Collection<'_>,
    keys: &[KeyResponse],
) -> Result<(), Error> {
    let writer = match archive.writer(config.redactions).await {
        Err(archive::Error::AnotherWriter { .. }) => {
            eprintln!(
                "backscroll: what was fetched is not kept in the archive, because another Backscroll writes to it"
            );
            return Ok(());
        }
        writer => writer?,
    };
    let kept = async {
        writer.keep_evidence(room_id.as_str(), &collection.fetched()).await?;
        writer.keep_server_keys(keys).await
    };
    let kept = kept.await;
    writer.release().await;
    Ok(kept?)
}
