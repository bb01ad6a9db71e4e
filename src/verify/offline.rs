//! The archive by itself.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use super::{report::Report, seal};
use crate::{
    Error,
    archive::{
        Archive,
        verification::{Finding, VerifiedRoom},
    },
};

/// Verifies these rooms of the archive by themselves. `all`: they are all rooms. `since`: only events that were sent then or
/// later, in milliseconds since 1970, are compared with their hashes. `progress` gets the number of events
/// that were checked.
pub(crate) async fn offline(
    archive: &Archive,
    rooms: &[VerifiedRoom],
    all: bool,
    since: Option<i64>,
    progress: impl Fn(u64),
) -> Result<Vec<Report>, Error> {
    let start = Instant::now();
    let room_ids: Vec<String> = rooms.iter().map(|room| room.room_id.clone()).collect();
    let asked = (!all).then_some(room_ids.as_slice());
    let mut reports: Vec<Report> = rooms.iter().map(Report::new).collect();
    let places: HashMap<&str, usize> =
        rooms.iter().enumerate().map(|(place, room)| (room.room_id.as_str(), place)).collect();
    // Of rooms that have events, but are not among the rooms.
    let unknown: RefCell<BTreeMap<String, Report>> = RefCell::default();
    let found = RefCell::new(&mut reports);
    let find = |room_id: &str, finding: Finding| {
        let mut reports = found.borrow_mut();
        match places.get(room_id).and_then(|place| reports.get_mut(*place)) {
            Some(report) => report.find(finding),
            None => unknown
                .borrow_mut()
                .entry(room_id.to_owned())
                .or_insert_with(|| Report::new(&VerifiedRoom::unknown(room_id)))
                .find(finding),
        }
    };
    let mut checked = 0;
    let check = |room_id: &str, finding: Option<Finding>| {
        checked += 1;
        if checked % 1024 == 0 {
            progress(checked);
        }
        if let Some(finding) = finding {
            find(room_id, finding);
        }
    };
    // Side by side: the database compares the tables, and this process the hashes.
    tokio::try_join!(
        async {
            archive.find_inconsistencies(asked, &find).await?;
            archive.check_evidence(asked, &find).await
        },
        archive.check_events(asked, since, check)
    )?;
    progress(checked);
    check_seals(archive, &mut reports).await?;
    for (report, room) in reports.iter_mut().zip(rooms) {
        if room.unfinished > 0 {
            report.note("the archive is not finished: gaps or walks are open");
        } else if room.history_state != "complete" {
            report.note("the room's beginning is not archived");
        }
        report.conclude(false, start.elapsed());
    }
    let unknown = unknown.into_inner().into_values();
    reports.extend(unknown.map(|mut report| {
        report.conclude(false, start.elapsed());
        report
    }));
    Ok(reports)
}

/// Compares the events of the rooms that have seals with them.
async fn check_seals(archive: &Archive, reports: &mut [Report]) -> Result<(), Error> {
    let sealed_rooms: HashSet<String> = archive.sealed_rooms().await?.into_iter().collect();
    for report in reports.iter_mut().filter(|report| sealed_rooms.contains(&report.room_id)) {
        let sealed = seal::check(archive, &report.room_id).await?;
        for finding in sealed.findings {
            report.find(finding);
        }
    }
    Ok(())
}
