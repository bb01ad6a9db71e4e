//! One room, compared with the homeserver.

use std::time::{Duration, Instant};

use super::{
    candidates::{self, Candidates},
    graph,
    report::{Level, Report},
    sample,
    signatures::Signatures,
    state,
    walk::{self, Found, Walked},
};
use crate::{
    Error,
    archive::{
        Archive, Writer,
        verification::{Finding, Running, VerifiedRoom, moved},
    },
    context::RetryPolicy,
    matrix::{self, Identity},
};

/// What a verification needs.
#[derive(Clone, Copy)]
pub(crate) struct Verifier<'v> {
    pub(crate) archive: &'v Archive,
    pub(crate) client: &'v Identity,
    pub(crate) retries: RetryPolicy,
    /// Stores the events as they were signed, and the keys of the signatures that are checked (`evidence.keep`).
    pub(crate) keeper: Option<&'v Writer>,
    /// Stores which events the homeserver lists no more.
    pub(crate) recorder: Option<&'v Writer>,
    /// From when on the homeserver's list is compared, in milliseconds since 1970. `None`: all of it.
    pub(crate) since: Option<i64>,
    /// The most events of a page.
    pub(crate) page_size: u32,
}

impl Verifier<'_> {
    /// Asks until it is answered.
    ///
    /// # Errors
    /// An error that a retry cannot fix.
    pub(super) async fn ask<T>(
        &self,
        request: impl AsyncFn() -> Result<T, matrix::Error>,
    ) -> Result<T, Error> {
        let answered = self.retries.retry(async || match request().await {
            // It is not there, or the account may not see it: that is an answer.
            Err(error) if error.is_not_found() || error.is_forbidden() => Ok(Err(error)),
            answered => answered.map(Ok),
        });
        Ok(answered.await??)
    }
}

/// Whether the homeserver says that it is not there, or that the account may not see it.
pub(super) fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Matrix(error) if error.is_not_found() || error.is_forbidden())
}

/// Compares a room with what the homeserver lists, with its state and, if the homeserver gives it, with its graph.
/// `report`: what [`super::offline()`] has found. `signatures`: `None`, if they are not to be checked. `progress` gets
/// the number of events that were listed.
///
/// # Errors
/// An error that a retry cannot fix.
pub(crate) async fn online(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    mut report: Report,
    mut signatures: Option<&mut Signatures>,
    progress: impl Fn(i64),
) -> Result<Report, Error> {
    let start = Instant::now();
    let offline = Duration::from_secs_f64(report.seconds);
    let Ok(room_id) = ruma::RoomId::parse(&room.room_id) else {
        report.cannot_tell("the room's id is not valid, so the homeserver cannot be asked for it");
        report.conclude(false, offline);
        return Ok(report);
    };
    report.level = Level::Walk;
    let mut running = verifier.archive.begin_verification(room).await?;
    let mut candidates = Candidates::default();
    let compared: Result<bool, Error> = async {
        let mut found =
            Found { candidates: &mut candidates, report: &mut report, signatures: signatures.as_deref_mut() };
        let walked = walk::walk(verifier, room, &room_id, &mut running, &mut found, progress).await;
        let walked = match walked {
            Err(error) if is_denied(&error) => {
                report.cannot_tell(format!("the homeserver does not list the room: {error}"));
                return Ok(false);
            }
            walked => walked?,
        };
        report.listed_count = verifier.archive.listed_count(&running).await?;
        if !walked.graph.is_given() && verifier.since.is_none() {
            sample::compare(verifier, room, &room_id, &mut candidates, &mut report).await?;
        }
        candidates::settle(verifier, room, &room_id, candidates, &mut report).await?;
        compare_order(verifier, &running, &walked, &mut report).await?;
        let extras = candidates::extras(verifier, room, &room_id, &running, &mut report);
        extras.await?;
        state::compare(verifier, room, &room_id, &mut report).await?;
        let is_closed = close_graph(verifier, room, &room_id, &running, &walked, &mut report).await?;
        note_limits(verifier, room, &walked, &mut report);
        let are_checked = signatures.is_some_and(|signatures| signatures.conclude(&mut report));
        if are_checked && walked.graph.is_given() {
            report.level = Level::Signatures;
        }
        Ok(is_closed)
    }
    .await;
    // Also after an error.
    verifier.archive.end_verification(&running).await?;
    report.conclude(compared?, offline + start.elapsed());
    Ok(report)
}

/// The order of the events. Events that arrived late may have another place in the archive than on the homeserver. But
/// in no order does an event come before its ancestors.
async fn compare_order(
    verifier: &Verifier<'_>,
    running: &Running,
    walked: &Walked,
    report: &mut Report,
) -> Result<(), Error> {
    let displaced = verifier.archive.displaced(running).await?;
    let moved = moved(&displaced);
    if moved.is_empty() {
        return Ok(());
    }
    if walked.graph.is_given() && !walked.graph.contradicts_order() {
        report.note(format!(
            "{} events have another place than on the homeserver, but none is before its ancestors: they arrived late, or \
             on another branch; `backscroll resequence` gives the room the homeserver's order",
            moved.len()
        ));
        return Ok(());
    }
    for event_id in moved {
        report.find(Finding::new("event in the wrong place", event_id, None));
    }
    Ok(())
}

/// Looks for ancestors that neither the homeserver lists nor the archive has. Returns whether the graph is closed.
async fn close_graph(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &ruma::RoomId,
    running: &Running,
    walked: &Walked,
    report: &mut Report,
) -> Result<bool, Error> {
    if !walked.graph.is_given() {
        report
            .note("the homeserver does not give the events' graph, so nothing shows that its list is whole");
        return Ok(false);
    }
    report.level = Level::Graph;
    if verifier.since.is_some() {
        return Ok(false);
    }
    walked.graph.flush(verifier.archive, running).await?;
    let left = verifier.archive.ancestors_left(running).await?;
    let may_be_hidden = room.may_hide_history || !walked.create_reached;
    let mut hidden = left.count - i64::try_from(left.some.len()).unwrap_or(i64::MAX);
    for (ancestor, descendant) in &left.some {
        if verifier.archive.stored_copy(&room.room_id, ancestor).await?.is_some() {
            continue;
        }
        let asked = verifier.ask(async || verifier.client.event(room_id, ancestor).await).await;
        match asked {
            Err(error) if is_denied(&error) && may_be_hidden => hidden += 1,
            Err(error) if !is_denied(&error) => return Err(error),
            Ok(_) | Err(_) => report.find(Finding::new(
                graph::ANCESTOR_MISSING,
                ancestor,
                Some(format!("{descendant} follows it or is allowed by it")),
            )),
        }
    }
    if hidden > 0 {
        report.note(format!("the account may not see {hidden} ancestors of the events"));
    }
    Ok(left.count == 0 && walked.create_reached && walked.graph.is_decided())
}

fn note_limits(verifier: &Verifier<'_>, room: &VerifiedRoom, walked: &Walked, report: &mut Report) {
    if verifier.since.is_some() {
        report.note("only what was sent since the given time was compared with the homeserver");
    } else if !walked.create_reached {
        report.note("the account may not see the room's beginning, or it was purged");
    }
    if walked.unreadable > 0 {
        report.note(format!(
            "{} events that the homeserver lists are not valid; they are in archive.quarantine",
            walked.unreadable
        ));
    }
    if walked.graph.undecided() > 0 {
        report.note(format!("of {} events the id and the hash cannot be computed", walked.graph.undecided()));
    }
    if room.unfinished > 0 {
        report.note("the archive is not finished: gaps or walks are open");
    }
}
