//! Forwards: follows `/sync` from `since`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    Error, Retry,
    archive::{Account, SyncOutcome},
    backoff::Backoff,
    config::Rooms,
    daemon::Context,
    edits,
    health::{self, Homeserver},
    matrix::{self, SyncBatch, SyncRequest},
    metrics, vanished,
};

/// How often the current state of every room is compared with the server's while the daemon runs; and when it starts.
const COMPARE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the rooms that the account is in are; and when it starts.
const LOOK_AFTER: Duration = Duration::from_secs(60);
/// Which answer in a row that tells nothing and comes early is the first to be followed by a pause: Synapse gives single
/// ones, where there is news of no room.
const EARLY: u32 = 3;
/// An answer that took this long is not early, however long the server was asked to wait.
const UNHURRIED: Duration = Duration::from_secs(1);
/// What storing the state of every room of a large account may take.
const FULL_STORE: Duration = Duration::from_secs(15 * 60);

/// Whether what came last is an answer of the server. After a failure, and at first, another server may answer than did
/// before, or the same one from a backup.
#[derive(Debug)]
struct Touch {
    /// How often it may still be tried to find out.
    tries: u32,
}

impl Touch {
    fn lost() -> Self {
        Self { tries: 3 }
    }

    fn failed(&mut self, error: &Error) {
        if matches!(error, Error::Matrix(error) if !matches!(error, matrix::Error::RateLimited { .. })) {
            *self = Self::lost();
        }
    }

    fn is_lost(&self) -> bool {
        self.tries > 0
    }
}

/// Gives a rest to a server, or a proxy before it, that answers at once where it was to wait for news: each answer is a
/// request and a commit.
#[derive(Debug, Default)]
struct Pace {
    /// Answers in a row that told nothing and came early.
    early: u32,
}

impl Pace {
    /// The pause after an answer that took so long, from a server that was to wait for up to `timeout`. `told`: of a room.
    fn pause(&mut self, told: bool, timeout: Duration, took: Duration) -> Duration {
        let rest = timeout.min(UNHURRIED).saturating_sub(took);
        if told || rest.is_zero() {
            self.early = 0;
            return Duration::ZERO;
        }
        self.early = self.early.saturating_add(1);
        if self.early < EARLY { Duration::ZERO } else { rest }
    }
}

/// Follows the account's rooms until shutdown.
///
/// # Errors
/// One that no retry helps against.
pub async fn follow(context: &Context, mut account: Account) -> Result<(), Error> {
    let timeout = context.config.homeserver.sync_timeout;
    let (mut compared, mut looked) = (None, None);
    let mut touch = Touch::lost();
    let mut pace = Pace::default();
    let is_due = |last: Option<Instant>, after| last.is_none_or(|at| at.elapsed() >= after);
    while !context.shutdown.is_cancelled() {
        if is_due(compared, COMPARE_AFTER) {
            doubt_states(context, &account).await?;
            compared = Some(Instant::now());
        }
        if is_due(looked, LOOK_AFTER) {
            look(context, &mut account, timeout, &mut touch, &mut pace).await?;
            looked = Some(Instant::now());
        } else {
            step(context, &mut account, timeout, &mut touch, &mut pace).await?;
        }
    }
    Ok(())
}

/// Takes what is new, once.
///
/// # Errors
/// One that no retry helps against.
pub async fn once(context: &Context, mut account: Account) -> Result<(), Error> {
    doubt_states(context, &account).await?;
    look(context, &mut account, Duration::ZERO, &mut Touch::lost(), &mut Pace::default()).await
}

/// Takes a response, and looks for rooms that it should have told of and did not.
async fn look(
    context: &Context,
    account: &mut Account,
    timeout: Duration,
    touch: &mut Touch,
    pace: &mut Pace,
) -> Result<(), Error> {
    let suspects = vanished::suspects(context).await;
    let timeout = if suspects.is_empty() { timeout } else { Duration::ZERO };
    step(context, account, timeout, touch, pace).await?;
    vanished::confirm(context, account, &suspects).await;
    Ok(())
}

/// Takes up touch with the server again: where it does not know any more what it told, it was rolled back, and takes
/// `since` for a token of the future without a word (P23). Then the next response is an initial one.
async fn regain(touch: &mut Touch, context: &Context, account: &mut Account) -> Result<(), Error> {
    if !touch.is_lost() {
        return Ok(());
    }
    let is_last = touch.tries == 1;
    let rolled_back = was_rolled_back(context, is_last).await;
    if matches!(rolled_back, Err(Error::Matrix(_))) {
        touch.tries -= 1;
    }
    if rolled_back? && account.since.is_some() {
        tracing::warn!(
            "the homeserver does not know any more what it told, as after coming back from a backup; starting over, \
             with a gap in every room"
        );
        *account = context.writer.forget_since(account).await?;
    }
    touch.tries = 0;
    Ok(())
}

/// Whether the server knows a room and not the event that it told of it last. That it fails to say is no proof; it is an
/// error unless this `is_last` try.
async fn was_rolled_back(context: &Context, is_last: bool) -> Result<bool, Error> {
    for anchor in context.writer.archive().anchors().await? {
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
        if knows(&anchor.event_id).await? == Some(false)
            && knows(&anchor.create_event_id).await? == Some(true)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Has the current states compared with the server's after the next response: a state reset leaves no event, and a key
/// that has lost its event is in no answer but a whole state (P93). A first response is one.
async fn doubt_states(context: &Context, account: &Account) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    while account.since.is_some() && !context.shutdown.is_cancelled() {
        match context.writer.doubt_states().await {
            Ok(()) => break,
            Err(error) => context.recover(error.into(), &mut backoff).await?,
        }
    }
    Ok(())
}

/// Takes one `/sync` response into the archive, whatever number of tries that takes. Returns early on shutdown.
///
/// # Errors
/// One that no retry helps against.
async fn step(
    context: &Context,
    account: &mut Account,
    timeout: Duration,
    touch: &mut Touch,
    pace: &mut Pace,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    let mut full_state = false;
    while !context.shutdown.is_cancelled() {
        let start = Instant::now();
        match take(context, account, full_state, timeout, touch).await {
            // To be stopped, or to be asked for other rooms, or from the start.
            Ok(None) => {}
            Ok(Some(outcome)) if outcome.needs_full_state => full_state = true,
            Ok(Some(outcome)) => {
                context.pause(pace.pause(outcome.room_count > 0, timeout, start.elapsed())).await;
                return Ok(());
            }
            Err(error) => {
                context.abreast.store(false, Ordering::Relaxed);
                let unsure = matches!(error, Error::Archive(_));
                if let Error::Matrix(error) = &error {
                    context.health.homeserver_is(Homeserver::Fails(format!("failed to {error}")));
                }
                context.recover(error, &mut backoff).await?;
                // The commit may have gone through although its answer did not: the database knows.
                if unsure && let Ok(Some(stored)) = context.writer.archive().account().await {
                    *account = stored;
                }
            }
        }
    }
    Ok(())
}

/// One try at that. `None` also if the server refused `since`: it is given up, and the next response is an initial one.
async fn take(
    context: &Context,
    account: &mut Account,
    full_state: bool,
    timeout: Duration,
    touch: &mut Touch,
) -> Result<Option<SyncOutcome>, Error> {
    regain(touch, context, account).await?;
    let taken = try_step(context, account, full_state, timeout).await;
    match taken.inspect_err(|error| touch.failed(error)) {
        Err(Error::Matrix(error)) if error.is_bad_token() && account.since.is_some() => {
            tracing::warn!(%error, "the homeserver refuses the sync token; starting over, with a gap in every room");
            *account = context.writer.forget_since(account).await?;
            Ok(None)
        }
        taken => taken,
    }
}

/// Whether the next response must hold the state of every room: at the first, and when other rooms are wanted than
/// before, which no token tells (P41).
fn wants_full_state(account: &Account, rooms: &Rooms) -> bool {
    account.since.is_none() || account.rooms_filter != Some(rooms.fingerprint())
}

/// The rooms that are wanted now. A decision of any process outdates the account's filter, so that is read too.
async fn wanted_rooms(context: &Context, account: &mut Account) -> Result<Rooms, Error> {
    let (choices, rooms_filter) = context.writer.archive().choices(account.account_key).await?;
    account.rooms_filter = rooms_filter;
    Ok(context.config.rooms.with_choices(choices))
}

/// Returns once something was decided about rooms since `account` was read, even if it was taken back.
async fn others_wanted(context: &Context, account: &Account) {
    loop {
        context.rooms_chosen.notified().await;
        // What cannot be read now is read before the next request.
        let chosen = context.writer.archive().choices(account.account_key).await;
        if chosen.is_ok_and(|(_, rooms_filter)| rooms_filter != account.rooms_filter) {
            return;
        }
    }
}

/// The answer to a request; `None` if the daemon is to stop, or other rooms were chosen while it waited for news.
async fn ask(
    context: &Context,
    request: &SyncRequest<'_>,
    account: &Account,
) -> Result<Option<SyncBatch>, Error> {
    let answer = async {
        let mut batch = context.client.sync(request).await?;
        edits::undo_in_rooms(context, &mut batch.rooms).await?;
        Ok(batch)
    };
    tokio::select! {
        answer = context.unless_stopped(answer) => answer.transpose(),
        () = others_wanted(context, account) => Ok(None),
    }
}

async fn try_step(
    context: &Context,
    account: &mut Account,
    full_state: bool,
    timeout: Duration,
) -> Result<Option<SyncOutcome>, Error> {
    let rooms = wanted_rooms(context, account).await?;
    let full_state = full_state || wants_full_state(account, &rooms);
    if full_state && account.since.is_some() {
        context.writer.doubt_left_rooms(&rooms).await?;
    }
    let request = SyncRequest { since: account.since.as_deref(), full_state, timeout };
    let Some(batch) = ask(context, &request, account).await? else { return Ok(None) };
    let start = Instant::now();
    context.health.homeserver_is(Homeserver::Answers);
    let store = context.writer.apply_sync(account, &batch, &rooms, full_state);
    let outcome = if full_state {
        health::within(FULL_STORE);
        store.await?
    } else {
        context.turns.live(store).await?
    };
    if outcome.needs_full_state {
        return Ok(Some(outcome));
    }
    metrics::stored_sync(outcome.event_count, start.elapsed());
    if outcome.room_count > 0 {
        let room_count = context.writer.archive().followed_rooms().await?;
        let before = context.live_events.fetch_add(outcome.event_count as u64, Ordering::Relaxed);
        context.progress.following(room_count, before + outcome.event_count as u64);
    }
    if outcome.event_count > 0 {
        tracing::info!(
            room_count = outcome.room_count,
            event_count = outcome.event_count,
            duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "stored a sync response"
        );
    }
    context.abreast.store(true, Ordering::Relaxed);
    // What the response opened is read from the database; this only wakes the reader.
    context.walks_opened.notify_one();
    reconcile(context, account, &rooms).await?;
    Ok(Some(outcome))
}

/// Asks for the state of rooms where there is reason to doubt the archive's, before the next response is taken: what
/// changes meanwhile comes with that. A room that is not reached now is asked for with the next response.
async fn reconcile(context: &Context, account: &Account, rooms: &Rooms) -> Result<(), Error> {
    for (room_key, room_id, is_watched) in context.writer.archive().suspect_rooms().await? {
        let Ok(parsed) = room_id.as_str().try_into() else { continue };
        let Some(state) = context.unless_stopped(context.client.state(parsed)).await else { return Ok(()) };
        let state = match state {
            Ok(state) => Some(state),
            Err(error) if error.is_forbidden() || (!is_watched && error.is_not_found()) => None,
            Err(error) => {
                tracing::warn!(room.id = %room_id, %error, "the current state could not be compared with the server's");
                continue;
            }
        };
        match (state, is_watched) {
            (state, false) => {
                context.writer.take_up_left_room(account, rooms, room_key, state.as_ref()).await?;
                context.walks_opened.notify_one();
            }
            (Some(state), true) => context.writer.reconcile(room_key, &state).await?,
            (None, true) => context.writer.leave_state(room_key).await?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_millis(100);

    #[test]
    fn a_server_that_does_not_wait_is_given_the_rest_of_a_second() {
        let mut pace = Pace::default();
        let pauses = [(); 5].map(|()| pace.pause(false, TIMEOUT, SOON));
        let rest = UNHURRIED.saturating_sub(SOON);
        assert_eq!(pauses, [Duration::ZERO, Duration::ZERO, rest, rest, rest]);
    }

    #[test]
    fn what_tells_of_a_room_or_has_waited_is_followed_at_once() {
        for (told, timeout, took) in [
            (true, TIMEOUT, SOON),
            (false, TIMEOUT, UNHURRIED),
            (false, SOON, SOON),
            (false, Duration::ZERO, SOON),
        ] {
            let mut pace = Pace { early: 10 };
            assert_eq!(pace.pause(told, timeout, took), Duration::ZERO);
            assert_eq!(pace.pause(false, TIMEOUT, SOON), Duration::ZERO, "one early answer is none too many");
        }
    }
}
