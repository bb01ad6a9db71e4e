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
/// The choice is stored in the database and takes precedence over the configuration. A running Backscroll applies it
/// at once, without a restart. What is archived already always stays.
#[derive(Debug, clap::Args)]
pub(super) struct Rooms {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every known room and whether it is archived
    List {
        /// Print a JSON array, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Archive a room even if the configuration excludes it
    Add {
        #[command(flatten)]
        room: Room,
        /// Join the room if the account is not in it; the room's members see that
        #[arg(long)]
        join: bool,
    },
    /// Stop archiving a room; what is archived stays
    Remove(Room),
    /// Stop archiving a room until it is resumed
    Pause(Room),
    /// Resume a paused room and fetch what was missed
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
            // Check the settings for the login first, before an archive is created.
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
    /// Runs the action and returns the text to print.
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
        Change::Remove => "is no longer archived; what is archived stays",
        Change::Pause => "is paused",
        Change::Resume => "is not paused",
    };
    let room_id = escape(room_id);
    Ok(if changed { format!("{room_id} {what}.\n") } else { format!("{room_id} {what} already.\n") })
}

/// The room's id. An alias is looked up in the archive, then on the homeserver.
async fn find(config: &Config, archive: &Archive, room: &OwnedRoomOrAliasId) -> anyhow::Result<String> {
    let Ok(alias) = <&RoomAliasId>::try_from(room.as_str()) else { return Ok(room.as_str().to_owned()) };
    if let Some(room_id) = archive.room_called(alias.as_str()).await.map_err(Error::from)? {
        return Ok(room_id);
    }
    let client = log_in(config, archive).await?;
    let found = client.resolve(alias).await.map_err(Error::from);
    Ok(found
        .with_context(|| format!("neither the archive nor the homeserver knows the alias {alias}"))?
        .to_string())
}

/// The id of a room that the account is in. With `join`, it joins the room first if necessary.
async fn find_joined(
    config: &Config,
    archive: &Archive,
    room: &OwnedRoomOrAliasId,
    join: bool,
) -> anyhow::Result<String> {
    let room_id = find(config, archive, room).await?;
    if archive.is_erased(&room_id).await.map_err(Error::from)? {
        // Check this first: otherwise the room's members would see the account join in vain.
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
    // Join by the alias if one was given: the homeserver needs its server name to find the room.
    Ok(client.join(room).await.map_err(Error::from)?.to_string())
}

async fn log_in(config: &Config, archive: &Archive) -> anyhow::Result<Identity> {
    // A login with a password reuses the daemon's device, so that no device is left over.
    let account = archive.account().await.map_err(Error::from)?;
    let device_id = account.and_then(|account| account.device_id);
    Ok(Identity::new(&config.homeserver, device_id).await.map_err(Error::from)?)
}

fn table(rooms: &[ChosenRoom], canvas: Canvas) -> String {
    if rooms.is_empty() {
        return "No rooms yet: `backscroll run --once` finds them.\n".to_owned();
    }
    let column = |title, right, cell: &dyn Fn(&ChosenRoom) -> Cell| {
        // No column is dropped on a narrow terminal, because all are needed.
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
        // The next `/sync` response makes it archived.
        (_, Some(true), false) => "added",
        (_, None, false) => "left out",
    }
}
