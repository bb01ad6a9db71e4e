//! Lists a room's events from the newest down, and compares each with the archive's copy.

use std::{collections::HashSet, time::Instant};

use ruma::RoomId;

use super::{candidates::Candidates, graph::Graph, report::Report, room::Verifier, signatures::Signatures};
use crate::{
    Error,
    archive::verification::{Listed, Running, VerifiedRoom},
    backoff::Backoff,
    fetch::page_size::PageSize,
    matrix::{self, Event, FederationPage, MessagesRequest},
};

/// How often a page without `end` is requested before the result counts.
const ASK_AGAIN: u32 = 3;

/// What the list has shown.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) graph: Graph,
    /// Whether the list reaches down to the create event.
    pub(super) create_reached: bool,
    /// How many events in it are not valid.
    pub(super) unreadable: usize,
}

/// Where the list is compared to.
pub(super) struct Found<'f> {
    /// What differs, for a second look.
    pub(super) candidates: &'f mut Candidates,
    pub(super) report: &'f mut Report,
    /// `None`: the signatures are not checked.
    pub(super) signatures: Option<&'f mut Signatures>,
}

/// Reads the whole list. Only what differs is kept in memory.
///
/// # Errors
/// An error that a retry cannot fix.
pub(super) async fn walk(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
    running: &mut Running,
    found: &mut Found<'_>,
    progress: impl Fn(i64),
) -> Result<Walked, Error> {
    let mut walked = Walked::default();
    let mut size = PageSize::new(verifier.page_size);
    let mut seen = HashSet::new();
    let (mut from, mut asked_again) = (None::<String>, 0);
    let mut page = fetch(verifier, room_id, None, &mut size).await?;
    loop {
        let end = page.page.end.as_ref().map(|end| end.as_str().to_owned());
        let is_new = end.as_ref().is_some_and(|end| from.as_ref() != Some(end) && seen.insert(end.clone()));
        let compare = compare(verifier, room, running, &page, &mut walked, found);
        if is_new {
            from = end;
            asked_again = 0;
            // The next page is fetched while this one is compared.
            let (next, compared) =
                tokio::join!(fetch(verifier, room_id, from.as_deref(), &mut size), compare);
            compared?;
            progress(running.listed());
            if is_before(&page, verifier.since) {
                return Ok(walked);
            }
            page = next?;
            continue;
        }
        compare.await?;
        progress(running.listed());
        if end.is_some() {
            let leads_back = "/messages: its tokens lead back to where they began".to_owned();
            return Err(matrix::Error::Malformed(leads_back).into());
        }
        asked_again += 1;
        if walked.create_reached || asked_again >= ASK_AGAIN {
            return Ok(walked);
        }
        // A server may answer so too early. What is listed again is not noted again.
        page = fetch(verifier, room_id, from.as_deref(), &mut size).await?;
    }
}

/// Whether all events of a page were sent before this time. Single clocks may be wrong.
fn is_before(page: &FederationPage, since: Option<i64>) -> bool {
    let events = &page.page.chunk.events;
    let is_before = |event: &Event| event.origin_server_ts.is_some_and(|sent| Some(sent) < since);
    !events.is_empty() && events.iter().all(is_before)
}

async fn fetch(
    verifier: &Verifier<'_>,
    room_id: &RoomId,
    from: Option<&str>,
    size: &mut PageSize,
) -> Result<FederationPage, Error> {
    let mut backoff = Backoff::default();
    loop {
        let request = MessagesRequest {
            room_id,
            from,
            to: None,
            limit: size.limit(false),
            most_bytes: size.most_bytes(),
            filter: None,
        };
        let start = Instant::now();
        let error = match verifier.client.federation_messages(&request).await {
            Ok(page) => {
                size.after_page(&page.page, start.elapsed());
                return Ok(page);
            }
            Err(error) if error.is_forbidden() || error.is_not_found() => return Err(error.into()),
            Err(error) if size.after_error(&error) => continue,
            Err(error) => error.into(),
        };
        match verifier.retries.pause(&error, &mut backoff) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

async fn compare(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    running: &mut Running,
    page: &FederationPage,
    walked: &mut Walked,
    found: &mut Found<'_>,
) -> Result<(), Error> {
    let Found { candidates, report, signatures } = found;
    let events = &page.page.chunk.events;
    walked.unreadable += page.page.chunk.malformed.len();
    let listed: Vec<Listed<'_>> = events
        .iter()
        .map(|event| Listed { event_id: &event.event_id, is_message: event.state_key.is_none() })
        .collect();
    let copies = verifier.archive.note_listed(running, &listed).await?;
    let mut signed = Vec::new();
    for (event, raw) in events.iter().zip(&page.raws) {
        let copy = copies.get(&event.event_id);
        walked.create_reached |= is_create(event);
        candidates.note(room, event, copy);
        let position = copy.and_then(|copy| copy.position);
        let read = walked.graph.note(room, event, raw, position, report);
        signed.extend(read.filter(|_| signatures.is_some() || verifier.keeper.is_some()));
    }
    if let Some(keeper) = verifier.keeper {
        keeper.keep_evidence(&room.room_id, &signed).await?;
    }
    if let Some(signatures) = signatures {
        signatures.check(verifier, &signed, report).await?;
    }
    walked.graph.spill(verifier.archive, running).await
}

fn is_create(event: &Event) -> bool {
    event.is_state("m.room.create")
}
