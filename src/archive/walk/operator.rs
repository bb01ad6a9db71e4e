//! Opens a walk for `backscroll backfill`. A room that the archive does not have yet is added.
//!
//! A new room gets its row, its state and its first walk in one transaction. If the walk begins at a token, newer
//! events are a skipped gap, as with a configured `prev_batch`.

use sqlx::PgConnection;

use super::{
    NewWalk,
    gap::{self, NewGap},
};
use crate::{
    archive::{
        Account, Archive, Error, HistoryState, WalkKind, Writer,
        erasure::filter,
        room::{self, Room, current_state::Cause, history},
        timeline::position,
        walk,
        writer::lock_room,
    },
    config::Rooms,
    matrix::{Events, Membership, Token, room_state},
};

/// Where a walk begins and ends. Without tokens: at the newest event and at the room's start.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The token at which it begins.
    pub from: Option<&'a Token>,
    /// The token at which it ends.
    pub to: Option<&'a Token>,
}

impl Span<'_> {
    /// Whether it is the whole history. Only such a walk can make the history complete.
    fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// What the homeserver returns about a room.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Whether the account is in it.
    pub(crate) is_joined: bool,
    /// Its state, if the account may see it.
    pub(crate) state: Option<&'a Events>,
}

impl Archive {
    /// Whether `/sync` reports the room: the account is in it, and its state was stored.
    ///
    /// # Errors
    /// [`Error::ErasedRoom`] if it was erased.
    pub(crate) async fn is_followed(&self, room_id: &str) -> Result<bool, Error> {
        let mut connection = self.pool.acquire().await?;
        if filter::is_erased(&mut connection, room_id).await? {
            return Err(Error::ErasedRoom(room_id.to_owned()));
        }
        let room = room::find(&mut connection, room_id).await?;
        Ok(room.is_some_and(|room| room.bootstrapped && room.membership == Membership::Join))
    }
}

impl Writer {
    /// Opens a walk in a room. Adds the room if the archive does not have it.
    ///
    /// # Errors
    /// [`Error::ErasedRoom`] if the room was erased, [`Error::NotWatched`] if it is not to be archived.
    pub(crate) async fn open_operator_walk(
        &self,
        account: &Account,
        rooms: &Rooms,
        room_id: &str,
        span: Span<'_>,
        shown: Option<Shown<'_>>,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        if filter::is_erased(&mut transaction, room_id).await? {
            return Err(Error::ErasedRoom(room_id.to_owned()));
        }
        let found = room::find(&mut transaction, room_id).await?;
        if found.as_ref().is_some_and(|room| !room.watched) {
            return Err(Error::NotWatched(room_id.to_owned()));
        }
        let room = match (found, shown) {
            (Some(room), None) => room,
            (None, None) => return Err(Error::NoSuchRoom(room_id.to_owned())),
            (found, Some(shown)) => {
                let room = match found {
                    Some(room) => room,
                    None => create(&mut transaction, account, rooms, room_id, shown).await?,
                };
                self.take_up(&mut transaction, room, shown).await?
            }
        };
        open_walk(&mut transaction, &room, span).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Stores the room's state. A room that the account is in does not count as bootstrapped yet: the first `/sync`
    /// response that reports it has the current state, and opens the walk through the events that are new by then.
    async fn take_up(
        &self,
        connection: &mut PgConnection,
        mut room: Room,
        shown: Shown<'_>,
    ) -> Result<Room, Error> {
        lock_room(connection, &room.room_id).await?;
        let Some(state) = shown.state else { return Ok(room) };
        let before = room.clone();
        let create = state.events.iter().find(|event| event.is_state("m.room.create"));
        room.room_version = create.map(room_state::declared_version).or(room.room_version);
        room.bootstrapped |= !shown.is_joined;
        room::update(connection, &before, &room).await?;
        let cause = if before.bootstrapped { Cause::Reconcile } else { Cause::Bootstrap };
        self.store_state(connection, &room, state, cause).await?;
        Ok(room)
    }
}

/// The row of a room that is new to the archive, if the room is wanted.
async fn create(
    connection: &mut PgConnection,
    account: &Account,
    rooms: &Rooms,
    room_id: &str,
    shown: Shown<'_>,
) -> Result<Room, Error> {
    let events = shown.state.map(|state| state.events.as_slice()).unwrap_or_default();
    let alias = room_state::alias_contents(events).last();
    if !room::is_wanted(rooms, room_id, alias.into_iter()) {
        return Err(Error::NotWatched(room_id.to_owned()));
    }
    let own = || events.iter().find_map(|event| room_state::own_membership(event, &account.user_id));
    // A user who was never in a room counts as having left it (specification, "Room membership").
    let out = || own().filter(|membership| *membership != Membership::Join).unwrap_or(Membership::Leave);
    let membership = if shown.is_joined { Membership::Join } else { out() };
    room::create(connection, room_id, membership).await
}

async fn open_walk(connection: &mut PgConnection, room: &Room, span: Span<'_>) -> Result<(), Error> {
    let top = gap::top(connection, &room.room_id).await?;
    let is_new = top.position().is_none() && room.history_state == HistoryState::None;
    let is_below = is_new && span.from.is_some();
    if let Some(from) = span.from.filter(|_| is_below) {
        let hole = NewGap {
            reason: "`backscroll backfill` began at a token: what is newer was not asked for",
            lower_token: Some(from.as_str()),
            ..hole(&room.room_id, None)
        };
        gap::skip(connection, &hole).await?;
    }
    let is_history = span.is_whole() || (is_below && span.to.is_none());
    let walk = NewWalk {
        room_id: &room.room_id,
        gap_id: None,
        kind: if is_history { WalkKind::History } else { WalkKind::Operator },
        from_token: span.from.map(Token::as_str),
        to_token: span.to.map(Token::as_str),
        upper_position: is_below.then_some(0),
        delay_s: 0.0,
    };
    walk::open(connection, &walk).await?;
    if is_history {
        history::set(connection, &room.room_id, HistoryState::Walking, None).await?;
    }
    Ok(())
}

/// A gap above all events of the operator's walk, with space for all events that may be missing.
fn hole(room_id: &str, newest: Option<(String, i64)>) -> NewGap<'_> {
    let position = newest.as_ref().map(|(_, position)| *position);
    NewGap {
        room_id,
        reason: "`backscroll backfill` archived the room before it was followed: what is newer, up to the first sync",
        upper_token: None,
        lower_token: None,
        upper_event_id: None,
        upper_position: position::append(position, true).next(),
        from_position: None,
        lower: newest,
    }
}

/// Ends the operator's walks in a room in favour of the history walk from `now`, the token of its first response.
/// That walk passes the gap above the archived events, and everything that an unfinished walk has yet to pass.
pub(in crate::archive) async fn hand_over(
    connection: &mut PgConnection,
    room_id: &str,
    now: &str,
) -> Result<(), Error> {
    let top = gap::top(connection, room_id).await?;
    if top.position().is_none() {
        return Ok(());
    }
    walk::finish_all(connection, room_id).await?;
    if top.upper_edge.is_none() {
        let hole = NewGap { upper_token: Some(now), ..hole(room_id, top.newest) };
        return gap::skip(connection, &hole).await;
    }
    gap::begin_at(connection, room_id, now).await
}
