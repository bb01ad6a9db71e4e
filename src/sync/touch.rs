//! Whether the server is the one that answered before.

use crate::{Error, Retry, archive::Account, daemon::Context, matrix};

/// Whether what came last is an answer of the server. After a failure, and at first, another server may answer than did
/// before, or the same one from a backup.
#[derive(Debug)]
pub(super) struct Touch {
    /// How often it may still be tried to find out.
    tries: u32,
}

impl Touch {
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

    /// Takes it up again: where the server does not know any more what it told, it was rolled back, and takes `since` for a
    /// token of the future without a word (P23). Then that is given up, and the next response is an initial one.
    pub(super) async fn regain(&mut self, context: &Context, account: &mut Account) -> Result<(), Error> {
        if !self.is_lost() {
            return Ok(());
        }
        let is_last = self.tries == 1;
        let rolled_back = was_rolled_back(context, is_last).await;
        if matches!(rolled_back, Err(Error::Matrix(_))) {
            self.tries -= 1;
        }
        if rolled_back? && account.since.is_some() {
            tracing::warn!(
                "the homeserver does not know any more what it told, as after coming back from a backup; starting over, \
                 with a gap in every room"
            );
            *account = context.writer.forget_since(account).await?;
        }
        self.tries = 0;
        Ok(())
    }
}

/// Whether the server knows a room and not the event that it told of it last, though older ones of its kind, if there are
/// any: what has grown old may have been removed. That it fails to say is no proof; it is an error unless this `is_last`
/// try.
async fn was_rolled_back(context: &Context, is_last: bool) -> Result<bool, Error> {
    let archive = context.writer.archive();
    for anchor in archive.anchors().await? {
        let Ok(room_id) = anchor.room_id.as_str().try_into() else { continue };
        let knows = async |event_id: &str| match context
            .unless_stopped(context.client.event(room_id, event_id))
            .await
        {
            Some(Ok(_)) => Ok(Some(true)),
            Some(Err(error)) if error.is_not_found() => Ok(Some(false)),
            Some(Err(error)) if !is_last && error.retry() != Retry::Never => Err(error),
            Some(Err(_)) | None => Ok(None),
        };
        if knows(&anchor.event_id).await? != Some(false)
            || knows(&anchor.create_event_id).await? != Some(true)
        {
            continue;
        }
        let older = archive.older(&anchor).await?;
        let mut still_there = older.is_empty();
        for event_id in &older {
            still_there = still_there || knows(event_id).await? == Some(true);
        }
        if still_there {
            return Ok(true);
        }
    }
    Ok(false)
}
