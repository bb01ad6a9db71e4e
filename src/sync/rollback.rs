//! Detects that the homeserver was rolled back, for example restored from a backup.
//!
//! After a rollback the server lacks events that it has served before. It takes `since` for a token of the future and
//! reports nothing until it has caught up, without an error (P23). So the archive's newest events are looked up on
//! the server; if it lacks one, `since` is dropped and `/sync` starts over with a gap in every room.

use std::time::Duration;

use futures_util::future::join_all;
use ruma::{RoomId, UserId};

use crate::{Error, archive::Account, backoff::Retry, context::Context, matrix};

/// How long one look-up of an event may take. `/sync` waits for it.
const LIMIT: Duration = Duration::from_secs(15);

/// Whether the check is due. It is due at start and after each failed request: the server may have been replaced or
/// restored meanwhile.
#[derive(Debug)]
pub(super) struct RollbackCheck {
    /// How many tries of the check are left. 0: the check is not due.
    tries: u32,
}

impl RollbackCheck {
    pub(super) fn due() -> Self {
        Self { tries: 3 }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        if matches!(error, Error::Matrix(error) if !matches!(error, matrix::Error::RateLimited { .. })) {
            *self = Self::due();
        }
    }

    fn is_due(&self) -> bool {
        self.tries > 0
    }

    /// Runs the check if it is due. If the server was rolled back, drops `since`, so that the next response is an
    /// initial one.
    pub(super) async fn run(&mut self, context: &Context, account: &mut Account) -> Result<(), Error> {
        if !self.is_due() {
            return Ok(());
        }
        let is_last = self.tries == 1;
        let rolled_back = is_proven(context, account, is_last).await;
        if matches!(rolled_back, Err(Error::Matrix(_))) {
            self.tries -= 1;
        }
        if rolled_back? && account.since.is_some() {
            tracing::warn!(
                "the homeserver lacks events that it has sent before: it was probably restored from a backup; starting \
                 over, with a gap in every room"
            );
            *account = context.writer.forget_since(account).await?;
        }
        self.tries = 0;
        Ok(())
    }
}

/// Whether repeated checks over a period all find that the server [was rolled back](was_rolled_back). A single one
/// proves nothing: a server that runs on several machines may lack a new event for a moment.
async fn is_proven(context: &Context, account: &Account, is_last: bool) -> Result<bool, Error> {
    let lacks = async || {
        let lacks = was_rolled_back(context, account, is_last).await?;
        Ok(lacks && account.since.is_some() && !context.shutdown.is_cancelled())
    };
    context.is_repeated(lacks, |lacks| context.retries.is_believed_soon(lacks)).await
}

/// Whether the server knows a room but lacks the newest event that it served there. If the archive has older events
/// of the same kind, the server must still have one of them; otherwise it may have purged them all by age. A failed
/// request proves nothing: it is returned as an error, or ignored if this `is_last` try.
async fn was_rolled_back(context: &Context, account: &Account, is_last: bool) -> Result<bool, Error> {
    let archive = context.writer.archive();
    let knows = async |room_id: &str, event_id: &str| knows(context, room_id, event_id, is_last).await;
    let anchors = archive.anchors().await?;
    // All at once: on a slow server, `/sync` then waits for one request and not for all in turn.
    let answers = join_all(anchors.iter().map(|anchor| knows(&anchor.room_id, &anchor.event_id))).await;
    for (anchor, is_known) in anchors.iter().zip(answers) {
        if is_known? != Some(false) || knows(&anchor.room_id, &anchor.create_event_id).await? != Some(true) {
            continue;
        }
        let older = archive.older(anchor).await?;
        if older.is_empty() {
            return Ok(true);
        }
        let (own, others): (Vec<_>, Vec<_>) = older.into_iter().partition(|event| event.is_own);
        // The server hides the events of an ignored sender. Then only an older event of the same sender is proof.
        let others = if ignores(context, account, &anchor.sender).await { Vec::new() } else { others };
        for event in own.into_iter().chain(others) {
            if knows(&anchor.room_id, &event.event_id).await? == Some(true) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the server has an event. `None`: unknown.
async fn knows(
    context: &Context,
    room_id: &str,
    event_id: &str,
    is_last: bool,
) -> Result<Option<bool>, Error> {
    let Ok(room_id) = RoomId::parse(room_id) else { return Ok(None) };
    let limit_s = LIMIT.as_secs();
    let event = tokio::time::timeout(LIMIT, context.client.event(&room_id, event_id));
    let event = context.unless_stopped(event).await;
    let event = event.map(|event| event.unwrap_or(Err(matrix::Error::Timeout { path: "/event", limit_s })));
    known(event.map(|event| event.map(|_| ())), is_last)
}

/// The same, from the response to a request. `None`: unknown.
fn known(answer: Option<Result<(), matrix::Error>>, is_last: bool) -> Result<Option<bool>, Error> {
    match answer {
        Some(Ok(())) => Ok(Some(true)),
        Some(Err(error)) if error.is_not_found() => Ok(Some(false)),
        Some(Err(error)) if !is_last && !matches!(error.retry(), Retry::Never | Retry::Refused) => {
            Err(error.into())
        }
        Some(Err(_)) | None => Ok(None),
    }
}

/// Whether the account ignores a user. True if that is unknown.
async fn ignores(context: &Context, account: &Account, sender: &str) -> bool {
    let Ok(user_id) = <&UserId>::try_from(account.user_id.as_str()) else { return true };
    match context.unless_stopped(context.client.ignored_users(user_id)).await {
        Some(Ok(ignored)) => ignored.contains(sender),
        Some(Err(_)) | None => true,
    }
}
