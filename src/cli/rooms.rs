//! `backscroll rooms`

use anyhow::Context as _;
use ruma::{OwnedRoomOrAliasId, RoomAliasId};

use crate::{
    Error, Exit,
    archive::{self, Archive, Change, ChosenRoom},
    config::Config,
    daemon::Store,
    matrix::Identity,
    text::{
        Canvas, cut, escape, print,
        table::{Cell, Column, lay_out},
        thousands,
    },
};

/// Choose rooms while Backscroll runs: list, add, remove, pause, resume.
///
/// A choice is kept in the database and goes before the configuration. A running Backscroll follows it at once, the next
/// one otherwise; nothing needs a restart. What is archived already always stays.
#[derive(Debug, clap::Args)]
pub(super) struct Rooms {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every room that the archive knows, and what is decided about it
    List {
        /// Print a JSON array, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Archive a room, whatever the configuration says
    Add {
        #[command(flatten)]
        room: Room,
        /// Let the account join the room if it is not in it: the room's members see that
        #[arg(long)]
        join: bool,
    },
    /// Archive a room no more; what is there stays
    Remove(Room),
    /// Fetch nothing of a room until it is resumed
    Pause(Room),
    /// Go on with a paused room, and fetch what was missed
    Resume(Room),
}

#[derive(Debug, clap::Args)]
struct Room {
    /// Room id or alias, such as '!abc:example.org' or '#abc:example.org'
    room: OwnedRoomOrAliasId,
}

impl Rooms {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = if let Action::Add { .. } = self.action {
            // What is missing then is found out before an archive is made.
            config.homeserver.url()?;
            Store::open(config).await?
        } else {
            Store::open_archive(config).await?
        };
        let done = self.action.act(config, &store.archive).await;
        store.close().await?;
        print(&done?)?;
        Ok(Exit::Success)
    }
}

impl Action {
    /// Does it and returns what to print.
    async fn act(self, config: &Config, archive: &Archive) -> anyhow::Result<String> {
        archive.migrate().await.map_err(Error::from)?;
        let (room, change) = match self {
            Self::List { json } => {
                let rooms = archive.chosen_rooms().await.map_err(Error::from)?;
                return if json {
                    Ok(serde_json::to_string(&rooms)? + "\n")
                } else {
                    Ok(table(&rooms, Canvas::stdout()))
                };
            }
            Self::Add { room, join } => {
                let room_id = find_joined(config, archive, &room.room, join).await?;
                return choose(archive, &room_id, Change::Add).await;
            }
            Self::Remove(room) => (room, Change::Remove),
            Self::Pause(room) => (room, Change::Pause),
            Self::Resume(room) => (room, Change::Resume),
        };
        let room_id = find(config, archive, &room.room).await?;
        if archive.is_joined(&room_id).await.map_err(Error::from)?.is_none() {
            return Err(Error::from(archive::Error::NoSuchRoom(room_id)).into());
        }
        choose(archive, &room_id, change).await
    }
}

async fn choose(archive: &Archive, room_id: &str, change: Change) -> anyhow::Result<String> {
    let changed = archive.choose_room(room_id, change).await.map_err(Error::from)?;
    let what = match change {
        Change::Add => "is archived",
        Change::Remove => "is not archived any more; what is there stays",
        Change::Pause => "is paused",
        Change::Resume => "is not paused",
    };
    let room_id = escape(room_id);
    Ok(if changed { format!("{room_id} {what}.\n") } else { format!("{room_id} {what} already.\n") })
}

/// The room's id: an alias is looked for in the archive, then at the homeserver.
async fn find(config: &Config, archive: &Archive, room: &OwnedRoomOrAliasId) -> anyhow::Result<String> {
    let Ok(alias) = <&RoomAliasId>::try_from(room.as_str()) else { return Ok(room.as_str().to_owned()) };
    if let Some(room_id) = archive.room_called(alias.as_str()).await.map_err(Error::from)? {
        return Ok(room_id);
    }
    let client = log_in(config, archive).await?;
    let found = client.resolve(alias).await.map_err(Error::from);
    Ok(found
        .with_context(|| format!("{alias} is no alias that the archive or the homeserver knows"))?
        .to_string())
}

/// The id of a room that the account is in, or has joined now because `join` says so.
async fn find_joined(
    config: &Config,
    archive: &Archive,
    room: &OwnedRoomOrAliasId,
    join: bool,
) -> anyhow::Result<String> {
    let room_id = find(config, archive, room).await?;
    if archive.is_erased(&room_id).await.map_err(Error::from)? {
        // Before the room's members see the account join for nothing.
        return Err(Error::from(archive::Error::ErasedRoom(room_id)).into());
    }
    if archive.is_joined(&room_id).await.map_err(Error::from)? == Some(true) {
        return Ok(room_id);
    }
    let client = log_in(config, archive).await?;
    let joined = client.joined_rooms().await.map_err(Error::from)?;
    if joined.iter().any(|joined| *joined == room_id) {
        return Ok(room_id);
    }
    if !join {
        return Err(Error::from(archive::Error::NotJoined(room_id)).into());
    }
    // By the alias, if that is what was given: it reports the homeserver whom to ask.
    Ok(client.join(room).await.map_err(Error::from)?.to_string())
}

async fn log_in(config: &Config, archive: &Archive) -> anyhow::Result<Identity> {
    // With a password: in the daemon's session, not in one more that nobody ends.
    let account = archive.account().await.map_err(Error::from)?;
    let device_id = account.and_then(|account| account.device_id);
    Ok(Identity::new(&config.homeserver, device_id).await.map_err(Error::from)?)
}

fn table(rooms: &[ChosenRoom], canvas: Canvas) -> String {
    if rooms.is_empty() {
        return "No rooms yet: `backscroll run --once` looks for them.\n".to_owned();
    }
    let column = |title, right, cell: &dyn Fn(&ChosenRoom) -> Cell| {
        // None gives way: of what the table is for, all is needed.
        Column { title, right, spare: 0, cells: rooms.iter().map(cell).collect() }
    };
    let columns = vec![
        column("Room", false, &|room| {
            Cell::new(cut(room.name.as_deref().unwrap_or_default(), usize::MAX), "")
        }),
        column("State", false, &|room| Cell::new(state(room), paint(room))),
        column("Events", true, &|room| Cell::new(thousands(room.event_count), "")),
        column("Room id", false, &|room| Cell::new(cut(&room.room_id, usize::MAX), "")),
    ];
    lay_out(columns, canvas)
}

fn paint(room: &ChosenRoom) -> &'static str {
    match state(room) {
        "archived" => "32",
        "added" => "36",
        "paused" => "35",
        _ => "2",
    }
}

fn state(room: &ChosenRoom) -> &'static str {
    match (room.paused, room.wanted, room.watched) {
        (true, ..) => "paused",
        (_, Some(false), _) => "removed",
        (.., true) => "archived",
        // The next answer of the homeserver makes it so.
        (_, Some(true), false) => "added",
        (_, None, false) => "left out",
    }
}
