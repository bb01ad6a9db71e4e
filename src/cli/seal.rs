//! `backscroll seal`

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ruma::OwnedRoomOrAliasId;

use super::verify::{findings, heading};
use crate::{
    Error, Exit,
    archive::{Archive, Writer, verification::VerifiedRoom},
    config::Config,
    daemon::Store,
    text::{Canvas, count, escape, print},
    verify::seal::{self, Sealed, manifest, tree::hex},
};

/// Seal the archive: store a hash over the events of each room and day, so that a later change of any of them shows.
///
/// `backscroll verify` compares the events with their seals. Each seal continues the chain of the room's seals, and the
/// end of the chain is printed: keep it elsewhere, for nobody can alter an event or a seal without changing it. A day
/// whose events have changed for a known reason is sealed again. Exit code 1: something has changed without one.
///
/// Stop the daemon first, or let it seal what it verifies: verify.seal = true.
#[derive(Debug, clap::Args)]
pub(super) struct Seal {
    /// Rooms: ids or aliases [default: all]
    rooms: Vec<OwnedRoomOrAliasId>,
    /// Write a manifest of all events, to compare another archive with this one, or this one later, with `backscroll
    /// verify --manifest`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also seal days again whose events have changed without a known reason, such as by `backscroll resequence`
    #[arg(long)]
    accept: bool,
}

impl Seal {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let store = Store::open_archive(config).await?;
        let sealed = self.seal(config, &store.archive).await;
        store.close().await?;
        sealed
    }

    async fn seal(&self, config: &Config, archive: &Archive) -> anyhow::Result<Exit> {
        archive.migrate().await.map_err(Error::from)?;
        let mut room_ids = Vec::new();
        for room in &self.rooms {
            room_ids.push(super::archived_room(archive, room).await?);
        }
        let rooms = archive.rooms_to_verify(&room_ids).await.map_err(Error::from)?;
        let writer = archive.writer(config.redactions).await.map_err(Error::from)?;
        let sealed = self.seal_rooms(&writer, &rooms).await;
        writer.release().await;
        if let Some(file) = &self.output {
            write_manifest(archive, &rooms, file).await?;
        }
        sealed
    }

    async fn seal_rooms(&self, writer: &Writer, rooms: &[VerifiedRoom]) -> anyhow::Result<Exit> {
        let mut exit = Exit::Success;
        for room in rooms {
            let sealed = seal::seal(writer, &room.room_id, self.accept).await?;
            if !sealed.findings.is_empty() {
                exit = Exit::No;
            }
            print(&section(room, &sealed, self.accept, Canvas::stdout()))?;
        }
        Ok(exit)
    }
}

async fn write_manifest(archive: &Archive, rooms: &[VerifiedRoom], file: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to write {}", escape(&file.display().to_string()));
    // It has the ids of all events.
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(file);
    let mut to = BufWriter::new(opened.with_context(failed)?);
    manifest::begin(&mut to).with_context(failed)?;
    for room in rooms {
        let events = archive.sealed_events(&room.room_id);
        manifest::write_room(events, &room.room_id, &mut to).await.with_context(failed)?;
    }
    to.flush().with_context(failed)
}

fn section(room: &VerifiedRoom, sealed: &Sealed, accept: bool, canvas: Canvas) -> String {
    let is_good = sealed.findings.is_empty();
    let mark = if is_good { canvas.paint("32", "✓") } else { canvas.paint("31", "✗") };
    let mut section = heading(&mark, room.name.as_deref(), &room.room_id, canvas);
    let days = |number: usize| count(number as i128, "day");
    let mut sentence = match (sealed.days, sealed.unsealed) {
        (0, new) => format!("Sealed: {}.", days(new)),
        (old, 0) => format!("Sealed: {}, none of which has changed.", days(old)),
        (old, new) => {
            format!("Sealed: {}, new or changed since {} were sealed before.", days(new), days(old))
        }
    };
    if !is_good {
        sentence = if accept {
            "Sealed, although something has changed without a known reason:".to_owned()
        } else {
            "Something has changed without a known reason; those days are not sealed again:".to_owned()
        };
    }
    section.push_str(&canvas.hang("  ", 2, &sentence));
    section.push_str(&findings(&sealed.findings, canvas));
    if let Some(chain) = &sealed.chain {
        let _ = writeln!(section, "  {} {}", canvas.paint("2", "chain"), hex(chain));
    }
    section.push('\n');
    section
}
