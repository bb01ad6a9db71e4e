//! Whether the server is the one that answered before.

use std::time::Duration;

use futures_util::future::join_all;
use ruma::{RoomId, UserId};

use crate::{Error, archive::Account, backoff::Retry, context::Context, matrix};

/// How long the server may take to say whether it knows an event: `/sync` waits for that.
const LIMIT: Duration = Duration::from_secs(15);

/// Whether what came last is an answer of the server. After a failure, and at first, another server may answer than did
/// before, or the same one from a backup.
#[derive(Debug)]
pub(super) struct RollbackCheck {
    /// How often it may still be tried to find out.
    tries: u32,
}

impl RollbackCheck {
    pub(super) fn lost() -> Self {
        Self { tries: 3 }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        if matches!(error, Error::Matrix(error) if !matches!(error, matrix::Error::RateLimited { .. })) {
            *self = Self::lost();
        }
    }

    fn is_lost(&self) -> bool {
        self.tries > 0
    }

    /// Takes it up again: where the server does not know any more what it reported, it was rolled back, and takes `since` for a
    /// token of the future without a word (P23). Then that is given up, and the next response is an initial one.
    pub(super) async fn run(&mut self, context: &Context, account: &mut Account) -> Result<(), Error> {
        if !self.is_lost() {
            return Ok(());
        }
        let is_last = self.tries == 1;
        let rolled_back = is_proven(context, account, is_last).await;
        if matches!(rolled_back, Err(Error::Matrix(_))) {
            self.tries -= 1;
        }
        if rolled_back? && account.since.is_some() {
            tracing::warn!(
                "the homeserver does not know any more what it sent, as after coming back from a backup; starting over, \
                 with a gap in every room"
            );
            *account = context.writer.forget_since(account).await?;
        }
        self.tries = 0;
        Ok(())
    }
}

/// Whether the server has said again and again, for a while, that it [was rolled back](was_rolled_back): one that answers from
/// several machines may lack for a moment what it has just reported.
async fn is_proven(context: &Context, account: &Account, is_last: bool) -> Result<bool, Error> {
    let lacks = async || {
        let lacks = was_rolled_back(context, account, is_last).await?;
        Ok(lacks && account.since.is_some() && !context.shutdown.is_cancelled())
    };
    context.is_repeated(lacks, |lacks| context.retries.is_believed_soon(lacks)).await
}

/// Whether the server knows a room, and not the last event that it served there. Where the archive has older events of that
/// event's kind, the server must know one of them: else all may have been removed by age. A request that fails is no proof; it
/// is an error unless this `is_last` try.
async fn was_rolled_back(context: &Context, account: &Account, is_last: bool) -> Result<bool, Error> {
    let archive = context.writer.archive();
    let knows = async |room_id: &str, event_id: &str| knows(context, room_id, event_id, is_last).await;
    let anchors = archive.anchors().await?;
    // At once, so that a server which lets each wait does not hold up `/sync` for all of them together.
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
        // All that a user has sent is hidden from an account that ignores them, and nothing of others.
        let others = if ignores(context, account, &anchor.sender).await { Vec::new() } else { others };
        for event in own.into_iter().chain(others) {
            if knows(&anchor.room_id, &event.event_id).await? == Some(true) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the server knows an event; `None`: it did not say.
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

/// Whether the server knows what it was asked for; `None`: it did not say.
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

/// Whether the account ignores a user, or may.
async fn ignores(context: &Context, account: &Account, sender: &str) -> bool {
    let Ok(user_id) = <&UserId>::try_from(account.user_id.as_str()) else { return true };
    match context.unless_stopped(context.client.ignored_users(user_id)).await {
        Some(Ok(ignored)) => ignored.contains(sender),
        Some(Err(_)) | None => true,
    }
}
