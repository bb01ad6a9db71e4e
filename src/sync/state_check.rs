//! Compares the current state of stale rooms with the server's (`/state`) and stores the server's answer.
//!
//! A room's state is marked as stale where `/sync` may not have reported every change. The comparison runs beside
//! `/sync`, for several rooms at once: a server that returns a room's state slowly or never delays neither live
//! events nor other rooms.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use ruma::RoomId;

use super::{past_membership, wanted_rooms};
use crate::{
    Error,
    archive::StaleRoom,
    backoff::{Backoff, Retry, doubled},
    context::Context,
    matrix::{self, Events},
    telemetry::pulse,
};

/// How many states are requested at once. A response may be large, and one slow response should not delay all the
/// others.
const AT_ONCE: usize = 3;
/// How many stale rooms are read at once. Finding them reads all rooms.
const PORTION: usize = 100;
/// First retry delay for a room whose state could not be fetched twice; doubles each time. The first retry has no
/// delay.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest retry delay.
const AT_LAST: Duration = Duration::from_secs(60 * 60);
/// How often `--once` retries a state that could not be fetched.
const TRIES_ONCE: u32 = 4;
/// The longest that `--once` waits for the next retry, because it has other work to do.
const SOON: Duration = Duration::from_secs(60);

/// Compares the states of stale rooms until shutdown. With `--once`: until each was compared or given up.
///
/// # Errors
/// An error that a retry cannot fix.
pub(super) async fn run(context: &Context) -> Result<(), Error> {
    let mut checks = StateChecks {
        context,
        limited_until: None,
        limits: 0,
        postponed: HashMap::new(),
        queue: VecDeque::new(),
    };
    context.retry(async || checks.run().await).await?;
    Ok(())
}

struct StateChecks<'c> {
    context: &'c Context,
    /// Until when the server's rate limit applies. It is a limit of the account, so no room is requested meanwhile.
    limited_until: Option<Instant>,
    /// Rate-limited responses in a row.
    limits: u32,
    /// The rooms whose state could not be fetched.
    postponed: HashMap<String, Postponed>,
    /// Stale rooms that were read but not requested yet.
    queue: VecDeque<StaleRoom>,
}

/// A room whose state could not be fetched.
#[derive(Debug)]
struct Postponed {
    until: Instant,
    tries: u32,
    /// How often the homeserver has refused the state. A single refusal may be temporary, or come from a proxy.
    refusals: Backoff,
}

/// The result of requesting a room's state.
enum Checked {
    Done,
    /// The request failed. The room is retried later.
    Failed(matrix::Error),
    /// The homeserver refuses the state. The room is retried, until that counts as final.
    Refused(matrix::Error),
    /// The response is older than a state that `/sync` has reported meanwhile, or the stored room id is not valid.
    /// The room is retried later.
    Superseded,
    /// The daemon shuts down.
    Stopped,
}

impl StateChecks<'_> {
    /// Runs until shutdown. With `--once`: until nothing is left to do.
    async fn run(&mut self) -> Result<(), Error> {
        let context = self.context;
        let mut asked = FuturesUnordered::new();
        let mut asked_ids = HashSet::new();
        loop {
            self.forget_no_longer_stale().await?;
            for room in self.next_rooms(&asked_ids).await? {
                if asked_ids.insert(room.room_id.clone()) {
                    let postponed = self.postponed.get(&room.room_id);
                    let is_refused = postponed.is_some_and(|it| context.retries.is_believed(&it.refusals));
                    let check = async move {
                        let checked = check(context, &room, is_refused).await;
                        (room, checked)
                    };
                    // Each request sets its own limit for the watchdog, so each check is watched separately.
                    asked.push(context.health.watch("a state check", check));
                }
            }
            let pause = self.next_due(&asked_ids).map(|due| due.saturating_duration_since(Instant::now()));
            if context.once && asked.is_empty() && pause.is_none_or(|pause| pause > SOON) {
                return Ok(());
            }
            let has_place = asked.len() < AT_ONCE;
            pulse::resting();
            tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                Some((room, checked)) = asked.next(), if !asked.is_empty() => {
                    asked_ids.remove(&room.room_id);
                    self.note(&room, checked?);
                }
                () = context.states_marked_stale.notified(), if has_place => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() && has_place => {}
            }
        }
    }

    fn is_limited(&self) -> bool {
        self.limited_until.is_some_and(|until| until > Instant::now())
    }

    /// Removes the postponed rooms that are no longer stale.
    async fn forget_no_longer_stale(&mut self) -> Result<(), Error> {
        if self.postponed.is_empty() {
            return Ok(());
        }
        let postponed: Vec<String> = self.postponed.keys().cloned().collect();
        for room_id in self.context.writer.archive().no_longer_stale(&postponed).await? {
            self.postponed.remove(&room_id);
        }
        Ok(())
    }

    /// The rooms to request now, besides those of `asked_ids`, which are requested already.
    async fn next_rooms(&mut self, asked_ids: &HashSet<String>) -> Result<Vec<StaleRoom>, Error> {
        let places = AT_ONCE.saturating_sub(asked_ids.len());
        if places == 0 || self.is_limited() {
            return Ok(Vec::new());
        }
        if self.queue.len() < places {
            self.queue = self.read_stale_rooms(asked_ids).await?.into();
        }
        let next = self.queue.len().min(places);
        Ok(self.queue.drain(..next).collect())
    }

    /// Reads the next stale rooms, without those that are being requested or wait for a retry.
    async fn read_stale_rooms(&self, asked_ids: &HashSet<String>) -> Result<Vec<StaleRoom>, Error> {
        let is_given_up = |room: &Postponed| self.context.once && room.tries > TRIES_ONCE;
        let waits = |room: &Postponed| room.until > Instant::now() || is_given_up(room);
        let waiting = self.postponed.iter().filter(|(_, room)| waits(room)).map(|(room_id, _)| room_id);
        let except: Vec<String> = waiting.chain(asked_ids).cloned().collect();
        Ok(self.context.writer.archive().stale_rooms(&except, PORTION).await?)
    }

    /// When the next postponed room is due. `None`: no room waits.
    fn next_due(&self, asked_ids: &HashSet<String>) -> Option<Instant> {
        let once = self.context.once;
        let rooms = self.postponed.iter().filter(|(room_id, _)| !asked_ids.contains(room_id.as_str()));
        let rooms = rooms.map(|(_, room)| room).filter(|room| !once || room.tries <= TRIES_ONCE);
        let limited = self.limited_until.filter(|until| *until > Instant::now());
        let limited = limited.filter(|_| !once || self.limits <= TRIES_ONCE);
        limited.or_else(|| rooms.map(|room| room.until).min())
    }

    fn note(&mut self, room: &StaleRoom, checked: Checked) {
        match checked {
            Checked::Done => {
                self.limits = 0;
                self.postponed.remove(&room.room_id);
            }
            Checked::Stopped => {}
            Checked::Superseded => {
                self.postpone(&room.room_id);
            }
            Checked::Failed(error @ matrix::Error::RateLimited { .. }) => {
                let pause = if let Retry::After(pause) = error.retry() { pause } else { AGAIN };
                tracing::info!(
                    retry_in_s = pause.as_secs(),
                    "the homeserver limits the rate of requests for room states"
                );
                self.limits += 1;
                self.limited_until = Some(Instant::now() + pause.max(AGAIN));
            }
            Checked::Refused(error) => {
                let again = self.postpone(&room.room_id);
                if let Some(postponed) = self.postponed.get_mut(&room.room_id) {
                    postponed.refusals.fail();
                }
                tracing::info!(
                    room.id = %room.room_id, %error, retry_in_s = again.as_secs(),
                    "the homeserver refuses the room's state"
                );
            }
            Checked::Failed(error) => {
                let again = self.postpone(&room.room_id);
                tracing::warn!(
                    room.id = %room.room_id, %error, retry_in_s = again.as_secs(),
                    "failed to compare the current state with the homeserver's"
                );
            }
        }
    }

    /// Schedules a retry for the room: at once the first time, later with a growing delay. Returns the delay.
    fn postpone(&mut self, room_id: &str) -> Duration {
        let now = Instant::now();
        let new = || Postponed { until: now, tries: 0, refusals: Backoff::default() };
        let room = self.postponed.entry(room_id.to_owned()).or_insert_with(new);
        let pause = room.tries.checked_sub(1).map_or(Duration::ZERO, |times| doubled(AGAIN, times, AT_LAST));
        room.until = now + pause;
        room.tries += 1;
        pause
    }
}

/// Requests the state of a room and stores it. `is_refused`: whether earlier refusals were so many, over so long a
/// time, that another one counts as final. The state then stays as it is.
async fn check(context: &Context, room: &StaleRoom, is_refused: bool) -> Result<Checked, Error> {
    // An earlier version stored an id that is not a valid room id: it cannot be requested.
    let Ok(room_id) = RoomId::parse(&room.room_id) else { return Ok(Checked::Superseded) };
    let Some(mut account) = context.writer.archive().account().await? else { return Ok(Checked::Done) };
    let request = context.writer.state_order().ask(&room.room_id);
    let state = context.unless_stopped(state_of(context, &account.user_id, room, &room_id)).await;
    let state = match state {
        None => return Ok(Checked::Stopped),
        // Every room has a create event. Without one, this is not the room's state, whatever the server means by it.
        Some(Ok(Some(state))) if room.is_archived() && !has_create(&state) => {
            if !is_refused {
                return Ok(Checked::Refused(matrix::Error::Malformed("/state: no m.room.create".to_owned())));
            }
            None
        }
        Some(Ok(state)) => state,
        Some(Err(error)) if error.is_forbidden() || (!room.is_archived() && error.is_not_found()) => {
            if !is_refused {
                return Ok(Checked::Refused(error));
            }
            None
        }
        Some(Err(error)) => return Ok(Checked::Failed(error)),
    };
    match state {
        // The server no longer shows the state to this account: keep the stored one.
        None if room.watched => {
            if !context.writer.keep_state(&room.room_id, &request).await? {
                return Ok(Checked::Superseded);
            }
        }
        // The usual case: replace the stored state.
        Some(state) if room.is_archived() => {
            if !context.writer.reconcile(&room.room_id, &request, &state).await? {
                return Ok(Checked::Superseded);
            }
        }
        // Nothing of the room is archived: its state decides whether it is wanted.
        state => {
            let rooms = wanted_rooms(context, &mut account).await?;
            let state = state.as_ref();
            if !context.writer.take_up_left_room(&account, &rooms, &room.room_id, &request, state).await? {
                return Ok(Checked::Superseded);
            }
            context.walks_opened.notify_one();
        }
    }
    Ok(Checked::Done)
}

fn has_create(state: &Events) -> bool {
    state.events.iter().any(|event| event.is_state("m.room.create"))
}

/// The state of a room. `None`: the account was never in it, and nothing of it is archived.
async fn state_of(
    context: &Context,
    user_id: &str,
    room: &StaleRoom,
    room_id: &RoomId,
) -> Result<Option<Events>, matrix::Error> {
    let state = context.client.state(room_id).await?;
    let is_declined = room.watched && !room.is_archived();
    if is_declined && !past_membership::was_in(&context.client, user_id, room_id).await? {
        return Ok(None);
    }
    Ok(Some(state))
}
