//! A sample, for homeservers that do not give the events' graph: what surrounds some of the archived events, and which
//! events the homeserver finds at some times. A list that leaves out an event is found out this way if the other
//! requests show the event. What agrees is no proof.

use ruma::RoomId;

use super::{candidates::Candidates, report::Report, room::Verifier};
use crate::{Error, archive::verification::VerifiedRoom, matrix::Event, text::count};

/// How many places of the room, and how many times, are compared.
const SAMPLE: i32 = 10;

/// Compares a sample, and notes what differs for a second look.
pub(super) async fn compare(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    room_id: &RoomId,
    candidates: &mut Candidates,
    report: &mut Report,
) -> Result<(), Error> {
    let (mut places, mut times, mut seen) = (0_u64, 0_u64, 0_u64);
    // A sample that fails is none: not every homeserver has these requests, and the list was read before.
    for event_id in verifier.archive.some_events(&room.room_id, SAMPLE).await? {
        let Ok(events) = verifier.client.surroundings(room_id, &event_id).await else { continue };
        places += 1;
        seen += events.len() as u64;
        for event in &events {
            note(verifier, room, event, candidates).await?;
        }
    }
    for time in verifier.archive.some_times(&room.room_id, SAMPLE).await? {
        let Ok(event_id) = verifier.client.event_at(room_id, time).await else { continue };
        let Ok(Some(event)) = verifier.client.event(room_id, &event_id).await else { continue };
        times += 1;
        seen += 1;
        note(verifier, room, &event, candidates).await?;
    }
    if seen > 0 {
        report.note(format!(
            "a sample of {} by other requests ({} of the room, {}) was compared as well",
            count(seen, "event"),
            count(places, "place"),
            count(times, "time")
        ));
    }
    Ok(())
}

async fn note(
    verifier: &Verifier<'_>,
    room: &VerifiedRoom,
    event: &Event,
    candidates: &mut Candidates,
) -> Result<(), Error> {
    let copy = verifier.archive.stored_copy(&room.room_id, &event.event_id).await?;
    candidates.note(room, event, copy.as_ref());
    Ok(())
}
