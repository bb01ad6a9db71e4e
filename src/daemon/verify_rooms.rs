//! Verifies one room after the other beside the loops, each at intervals of `verify.every`.

use std::time::{Duration, Instant};

use crate::{
    Error, archive,
    archive::verification::VerifiedRoom,
    context::Context,
    verify::{
        self, Report, Verdict, Verifier,
        seal::{self, tree::hex},
    },
};

/// How often it looks for a room that is due.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long it rests after a room, as a multiple of the time that the room took, so that the homeserver and the database
/// are left to the loops.
const REST: u32 = 3;

/// Runs until shutdown. Returns at once if `verify.every` is not set. A room that cannot be verified ends nothing else.
///
/// # Errors
/// Another Backscroll has become the writer.
pub(super) async fn verify(context: &Context) -> Result<(), Error> {
    let Some(every) = context.config.verify_every else { return Ok(()) };
    while !context.shutdown.is_cancelled() {
        let begun = Instant::now();
        let pause = match context.unless_stopped(verify_next(context, every)).await {
            None => return Ok(()),
            Some(Ok(true)) => begun.elapsed() * REST,
            Some(Ok(false)) => LOOK_AGAIN.min(every),
            Some(Err(error @ Error::Archive(archive::Error::LeaseTaken { .. }))) => return Err(error),
            Some(Err(error)) => {
                tracing::warn!(%error, "a room could not be verified; it is tried again later");
                LOOK_AGAIN
            }
        };
        if context.unless_stopped(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// Verifies the room that is due for the longest time. False: none is due.
async fn verify_next(context: &Context, every: Duration) -> Result<bool, Error> {
    let archive = context.writer.archive();
    let Some(room_id) = archive.room_due_for_verification(every).await? else { return Ok(false) };
    let rooms = archive.rooms_to_verify(&[room_id]).await?;
    for room in &rooms {
        let report = Box::pin(verify_room(context, room)).await?;
        context.writer.record_verification(&report.recorded()).await?;
        log(&report);
        if context.config.seal_verified && report.verdict != Verdict::Findings {
            let sealed = seal::seal(&context.writer, &report.room_id, false).await?;
            let chain = sealed.chain.map(|chain| hex(&chain)).unwrap_or_default();
            tracing::info!(room.id = %report.room_id, days = sealed.unsealed, chain, "sealed a room");
        }
    }
    Ok(true)
}

async fn verify_room(context: &Context, room: &VerifiedRoom) -> Result<Report, Error> {
    let archive = context.writer.archive();
    let verifier = Verifier {
        archive,
        client: &context.client,
        retries: context.retries,
        recorder: Some(&context.writer),
        since: None,
        keeper: context.config.keep_evidence.then_some(&context.writer),
        page_size: context.config.backfill.page_size.into(),
    };
    let mut reports = verify::offline(archive, std::slice::from_ref(room), false, None, |_| {}).await?;
    let report = reports.pop().unwrap_or_else(|| Report::new(room));
    Box::pin(verify::online(&verifier, room, report, None, |_| {})).await
}

fn log(report: &Report) {
    let (room_id, event_count, finding_count) = (&report.room_id, report.event_count, report.finding_count);
    match report.verdict {
        Verdict::Findings => tracing::error!(
            room.id = %room_id, event_count, finding_count,
            "the verification has found that something is wrong; `backscroll verify` and the view verifications say what"
        ),
        verdict => tracing::info!(
            room.id = %room_id, event_count, verdict = verdict.as_str(), "verified a room"
        ),
    }
}
