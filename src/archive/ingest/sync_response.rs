//! Stores a `/sync` response, part by part.
//!
//! A later response is stored in one transaction, together with its token. Only a first response is stored in several
//! transactions, each with complete rooms, so that its data is visible early and only one part is in memory. Nothing
//! depends on these parts until the last one is stored. If it is interrupted, the whole response is requested again,
//! and storing a part twice changes nothing.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{
    portion::Portion,
    response::{Afterwards, Response},
    room::{
        Applied, RoomSync,
        claim::{Claimed, claim_rooms},
    },
    unreadable_rooms::open_gaps_everywhere,
};
use crate::{
    archive::{
        Account, Error, OwnDevice, Writer, account,
        encryption::device,
        event::quarantine,
        rollback_probe::Latest,
        room::{self, Room},
        walk::{history, operator},
        writer::transaction::WriteTransaction,
    },
    config::Rooms,
    matrix::{PublishedKeys, RoomUpdate, SyncBatch, Token},
};

/// The most rooms that are stored together.
const ROOMS: usize = 500;

/// The result of storing a `/sync` response.
#[derive(Debug, Default)]
pub struct SyncOutcome {
    /// The response lacks the whole state of a room that is new to the archive, or whose new alias may change whether
    /// it is wanted; or the choice of rooms has changed since the request. The token has not moved: send the same
    /// `since` again with `full_state`.
    pub(crate) needs_full_state: bool,
    /// The number of new events.
    pub(crate) event_count: usize,
    /// The number of rooms in the response.
    pub(crate) room_count: usize,
    /// Whether it has to-device events for the archive's own device.
    pub(crate) has_to_device_events: bool,
    /// Whether sessions were queued whose messages were stored before.
    pub(crate) has_queued_sessions: bool,
    /// What the homeserver has of the device's keys. `None`: it does not say.
    pub(crate) published_keys: Option<PublishedKeys>,
}

/// A `/sync` response that is being stored. A response that is not the first is only committed by
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Intake<'a> {
    writer: &'a Writer,
    account: &'a Account,
    rooms: &'a Rooms,
    full: bool,
    own_device: Option<&'a OwnDevice>,
    /// The transaction of a later response, once a part was added.
    transaction: Option<WriteTransaction<'a>>,
    latest: Latest,
    afterwards: Afterwards,
    outcome: SyncOutcome,
}

impl Writer {
    /// Begins to store a response. `account.since` must be the `since` of its request. `full`: the request had
    /// `full_state`, or no `since`. `own_device`: the device whose to-device events are stored, too.
    pub(crate) fn take_in<'a>(
        &'a self,
        account: &'a Account,
        rooms: &'a Rooms,
        full: bool,
        own_device: Option<&'a OwnDevice>,
    ) -> Intake<'a> {
        let (latest, afterwards, outcome) = Default::default();
        Intake {
            writer: self,
            account,
            rooms,
            full,
            own_device,
            transaction: None,
            latest,
            afterwards,
            outcome,
        }
    }
}

impl Intake<'_> {
    /// Stores a part of the response, with complete rooms. `next_batch` must be known unless this is a first response.
    pub(crate) async fn add(&mut self, batch: &SyncBatch, next_batch: Option<&Token>) -> Result<(), Error> {
        self.outcome.room_count += batch.rooms.len();
        if self.outcome.needs_full_state {
            return Ok(());
        }
        self.writer.state_order().note_response(&batch.rooms);
        let is_first = self.account.since.is_none();
        let mut transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.writer.begin().await?,
        };
        if is_first {
            // If a crash loses it, the response is requested again.
            sqlx::query!("set local synchronous_commit = off").execute(&mut *transaction).await?;
        }
        let next_batch = next_batch.filter(|_| !is_first).map(Token::as_str);
        if let Some(next_batch) = next_batch.filter(|_| batch.rooms_unreadable) {
            open_gaps_everywhere(&mut transaction, self.account, next_batch).await?;
        }
        quarantine::keep_roomless(&mut transaction, &batch.set_aside).await?;
        self.receive_keys(&mut transaction, batch).await?;
        self.store(&mut transaction, &batch.rooms, next_batch).await?;
        if is_first {
            transaction.commit().await?;
        } else {
            self.transaction = Some(transaction);
        }
        Ok(())
    }

    /// Stores the keys that other devices have sent. They come before the messages of the same response, which are then
    /// decrypted at once.
    async fn receive_keys(&mut self, connection: &mut PgConnection, batch: &SyncBatch) -> Result<(), Error> {
        self.outcome.published_keys = batch.published_keys.or(self.outcome.published_keys);
        let Some(own_device) = self.own_device.filter(|_| !batch.to_device.is_empty()) else { return Ok(()) };
        self.outcome.has_to_device_events = true;
        let rooms: BTreeSet<&str> = batch.rooms.iter().map(|room| room.room_id.as_str()).collect();
        let rooms: Vec<&str> = rooms.into_iter().collect();
        // Boxed because the future is large, and few responses have to-device events.
        let receiving = device::receive(connection, own_device, &batch.to_device, &rooms);
        self.outcome.has_queued_sessions |= Box::pin(receiving).await?;
        Ok(())
    }

    /// What was stored so far.
    pub(crate) fn outcome(&self) -> &SyncOutcome {
        &self.outcome
    }

    async fn store(
        &mut self,
        connection: &mut PgConnection,
        update: &[RoomUpdate],
        next_batch: Option<&str>,
    ) -> Result<(), Error> {
        let Self { writer, account, rooms, full, .. } = *self;
        let response = Response { account, next_batch, rooms, full };
        let Claimed { update: mut rest, made } = claim_rooms(connection, &response, update).await?;
        self.latest.add(rest.iter().map(|(room, batch)| (room, *batch)));
        while !rest.is_empty() {
            // A room is listed twice if the account was kicked from it and invited again.
            let (update, again) = take_each_once(&mut rest);
            let mut portion = Portion::load(connection, &update, &made).await?;
            for room in update {
                let afterwards = &mut self.afterwards;
                let sync = RoomSync::new(writer, connection, &mut portion, &response, room, afterwards);
                match sync.apply().await? {
                    Applied::Stored { event_count } => self.outcome.event_count += event_count,
                    Applied::NeedFullState => {
                        self.outcome.needs_full_state = true;
                        return Ok(());
                    }
                }
            }
            portion.write(connection).await?;
            if let Some((room, _)) = rest.first_mut().filter(|_| again) {
                *room = room::get(connection, &room.room_id).await?;
            }
        }
        Ok(())
    }

    /// Moves `since` to the response's `next_batch`, does what follows a first response, and commits. Returns the
    /// account as it is now.
    ///
    /// # Errors
    /// [`Error::CheckpointMoved`] if another process has moved `since`.
    pub(crate) async fn finish(mut self, next_batch: &Token) -> Result<(SyncOutcome, Account), Error> {
        let Self { writer, account, rooms, full, .. } = self;
        if self.outcome.needs_full_state {
            if let Some(transaction) = self.transaction.take() {
                transaction.undo(None).await;
            }
            return Ok((self.outcome, account.clone()));
        }
        let mut transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => writer.begin().await?,
        };
        self.latest.remember(&mut transaction).await?;
        follow_up(&mut transaction, rooms, &self.afterwards, next_batch.as_str()).await?;
        // A choice made since the request would otherwise count as applied. This is the last check, because it locks
        // the account's row, and `backscroll rooms` waits for that lock.
        if full && !account::is_up_to_date(&mut transaction, account).await? {
            transaction.undo(None).await;
            self.outcome.needs_full_state = true;
            return Ok((self.outcome, account.clone()));
        }
        let filter = full.then(|| rooms.fingerprint());
        account::advance(&mut transaction, account, next_batch.as_str(), filter.as_deref()).await?;
        transaction.commit().await?;
        let since = Some(next_batch.as_str().to_owned());
        let rooms_filter = filter.or_else(|| account.rooms_filter.clone());
        Ok((self.outcome, Account { since, rooms_filter, ..account.clone() }))
    }
}

/// Does what must wait for the end of a first response, because it needs `next_batch`: opens the history walks.
async fn follow_up(
    connection: &mut PgConnection,
    rooms: &Rooms,
    afterwards: &Afterwards,
    next_batch: &str,
) -> Result<(), Error> {
    let Afterwards { begun, begun_by_operator, handed_over, partial } = afterwards;
    for room_id in handed_over {
        operator::hand_over(connection, room_id, next_batch).await?;
    }
    let by_operator: Vec<&str> = begun_by_operator.iter().map(|room| room.room_id.as_str()).collect();
    for room_ids in [&ids(begun), &by_operator] {
        if !room_ids.is_empty() {
            room::mark_bootstrapped(connection, room_ids).await?;
        }
    }
    for room in begun_by_operator {
        history::begin(connection, rooms, room, next_batch).await?;
    }
    for room_ids in [&ids(begun), &ids(partial)] {
        if !room_ids.is_empty() {
            history::open_all(connection, room_ids, next_batch).await?;
        }
    }
    Ok(())
}

fn ids(rooms: &[String]) -> Vec<&str> {
    rooms.iter().map(String::as_str).collect()
}

type Updates<'b> = Vec<(Room, &'b RoomUpdate)>;

/// Takes rooms from `rest`, which is ordered by room, until a room would be taken twice. Returns whether that is the
/// reason why it stopped.
fn take_each_once<'b>(rest: &mut Updates<'b>) -> (Updates<'b>, bool) {
    let is_same = |pair: &[(Room, &RoomUpdate)]| matches!(pair, [(left, _), (right, _)] if left.room_id == right.room_id);
    let again = rest.windows(2).position(is_same).map(|last| last + 1);
    let most = ROOMS.min(rest.len());
    let len = again.map_or(most, |again| again.min(most));
    (rest.drain(..len).collect(), again == Some(len))
}
