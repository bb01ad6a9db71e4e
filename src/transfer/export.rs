//! Writes rooms into files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
};

use futures_util::TryStreamExt as _;

use super::{
    Bad, EVENTS, FILES, HEADER, Header, MANIFEST, VERSION,
    files::{Described, Lines, RoomFiles, io_error, make_dir, read_json, room_dir, write_json},
    line,
};
use crate::{
    Error,
    archive::{
        Archive,
        transfer::{Period, Snapshot, TABLES, Table},
    },
    verify::seal::manifest::{self, InOrder},
};

/// What happened to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exported {
    /// So many events were written.
    Written(u64),
    /// An earlier, interrupted run had written it.
    There,
}

/// Begins an export, or continues one. `period`: the times as they were given.
pub(crate) fn begin(directory: &Path, period: &Period) -> Result<(), Bad> {
    make_dir(&directory.join(super::ROOMS))?;
    let header =
        Header { backscroll_export: VERSION, since: period.since.clone(), until: period.until.clone() };
    let path = directory.join(HEADER);
    if !path.exists() {
        return write_json(&path, &header);
    }
    let there: Header = read_json(&path)?;
    if there == header {
        return Ok(());
    }
    let problem = "the directory has an export of another version or period; choose another".to_owned();
    Err(Bad::File { file: super::files::named(&path), problem })
}

/// Writes a room, unless it is there. It has its name only once it is whole, so that an interrupted export can go on.
/// `progress` gets the number of events.
pub(crate) async fn export(
    archive: &Archive,
    room_id: &str,
    period: &Period,
    directory: &Path,
    progress: impl Fn(u64),
) -> anyhow::Result<Exported> {
    let place = room_dir(directory, room_id);
    if place.exists() {
        return Ok(Exported::There);
    }
    let draft = PathBuf::from(format!("{}.part", place.display()));
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&draft)(error).into()),
        _ => make_dir(&draft)?,
    }
    let mut snapshot = archive.snapshot(room_id, period).await.map_err(Error::from)?;
    // A part of a room is not what its seals are about.
    let mut manifest = period.is_all().then(|| InOrder::new(draft.join("manifest.sorting")));
    let mut files = write_tables(&mut snapshot, room_id, &draft, manifest.as_mut(), progress).await?;
    if let Some(manifest) = manifest {
        let written = write_manifest(manifest, room_id, &draft)?;
        files.extend(written.map(|described| (MANIFEST.to_owned(), described)));
    }
    snapshot.close().await.map_err(Error::from)?;
    write_json(&draft.join(FILES), &files)?;
    sync_dir(&draft)?;
    fs::rename(&draft, &place).map_err(io_error(&place))?;
    sync_dir(&directory.join(super::ROOMS))?;
    Ok(Exported::Written(files.get(EVENTS).map_or(0, |events| events.lines)))
}

async fn write_tables(
    snapshot: &mut Snapshot,
    room_id: &str,
    draft: &Path,
    manifest: Option<&mut InOrder>,
    progress: impl Fn(u64),
) -> anyhow::Result<RoomFiles> {
    let mut files = RoomFiles::new();
    let events = write_events(snapshot, room_id, draft, manifest, progress).await?;
    files.extend(events.map(|described| (EVENTS.to_owned(), described)));
    for table in &TABLES {
        let rows = write_rows(snapshot, table, draft).await?;
        files.extend(rows.map(|described| (table.name.to_owned(), described)));
    }
    Ok(files)
}

fn write_manifest(manifest: InOrder, room_id: &str, draft: &Path) -> Result<Option<Described>, Bad> {
    let mut lines = Lines::create(draft, MANIFEST)?;
    let mut to = lines.writer();
    let written = manifest::begin(&mut to).and_then(|()| manifest.write(room_id, &mut to));
    written.map_err(io_error(draft))?;
    lines.finish()
}

async fn write_events(
    snapshot: &mut Snapshot,
    room_id: &str,
    draft: &Path,
    mut manifest: Option<&mut InOrder>,
    progress: impl Fn(u64),
) -> anyhow::Result<Option<Described>> {
    let mut lines = Lines::create(draft, EVENTS)?;
    let (mut text, mut written) = (String::new(), 0);
    let mut events = pin!(snapshot.events());
    while let Some(event) = events.try_next().await.map_err(Error::from)? {
        line::write(room_id, &event, &mut text);
        lines.line(text.as_bytes())?;
        if let Some(manifest) = &mut manifest {
            let added =
                manifest.add(event.day(), &event.event_id, &event.stable_sha256, event.position.is_some());
            added.map_err(io_error(draft))?;
        }
        written += 1;
        if written % 1024 == 0 {
            progress(written);
        }
    }
    Ok(lines.finish()?)
}

async fn write_rows(
    snapshot: &mut Snapshot,
    table: &Table,
    draft: &Path,
) -> anyhow::Result<Option<Described>> {
    let mut lines = Lines::create(draft, table.name)?;
    let mut rows = pin!(snapshot.rows(table));
    while let Some(row) = rows.try_next().await.map_err(Error::from)? {
        lines.line(row.as_bytes())?;
    }
    Ok(lines.finish()?)
}

/// Writes what belongs to no room: the keys of homeservers, and the erasures of users who are in these rooms.
pub(crate) async fn export_common(
    archive: &Archive,
    room_ids: &[String],
    directory: &Path,
) -> anyhow::Result<()> {
    let keys = archive.exported_server_keys().await.map_err(Error::from)?;
    let erasures = archive.exported_erasures(room_ids).await.map_err(Error::from)?;
    for (name, rows) in [(super::SERVER_KEYS, keys), (super::ERASURES, erasures)] {
        let mut lines = Lines::create(directory, name)?;
        for row in rows {
            lines.line(row.as_bytes())?;
        }
        lines.finish()?;
    }
    Ok(())
}

/// Writes the names in a directory to the disk.
fn sync_dir(path: &Path) -> Result<(), Bad> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error(path))
}
