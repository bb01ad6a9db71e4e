//! A `/sync` response, portion by portion.
//!
//! A later response is in one transaction as a whole, with the token that accounts for it. Only a first one
//! is stored in portions of whole rooms, each in a transaction of its own, so that what is there can be seen,
//! and memory holds a portion: until the last one nothing counts on it, and if that does not come, all is
//! asked for again, and a repeat changes nothing.

use sqlx::PgConnection;

use super::{
    portion::Portion,
    response::{Afterwards, Response},
    room::{
        Applied, RoomSync,
        claim::{Claimed, claim_rooms},
    },
    unread_rooms::open_gaps_everywhere,
};
use crate::{
    archive::{
        Account, Error, Writer, account,
        event::quarantine,
        rollback_probe::Latest,
        room::{self, Room},
        walk::{history, operator},
        writer::transaction::WriteTransaction,
    },
    config::Rooms,
    matrix::{RoomBatch, SyncBatch, Token},
};

/// Most rooms that are stored together.
const ROOMS: usize = 500;

/// What is to be done after a `/sync` response.
#[derive(Debug, Default)]
pub struct SyncOutcome {
    /// The response does not hold the whole state of a room that is new to the archive, or whose new alias
    /// decides about it; or it was asked for before the last decision about rooms. The token has not moved:
    /// the same `since` must be asked again with `full_state`.
    pub needs_full_state: bool,
    /// Events that were new.
    pub event_count: usize,
    /// Rooms that were reported.
    pub room_count: usize,
}

/// A `/sync` response on its way into the archive. Nothing of a later one is stored but by
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Intake<'a> {
    writer: &'a Writer,
    account: &'a Account,
    rooms: &'a Rooms,
    full: bool,
    /// That of a later response, once something was added.
    transaction: Option<WriteTransaction<'a>>,
    latest: Latest,
    afterwards: Afterwards,
    outcome: SyncOutcome,
}

impl Writer {
    /// Begins to take in a response. `account.since` must be the `since` that was asked with; `full`: with
    /// `full_state`, or without a `since`.
    pub fn take_in<'a>(&'a self, account: &'a Account, rooms: &'a Rooms, full: bool) -> Intake<'a> {
        let (latest, afterwards, outcome) = Default::default();
        Intake { writer: self, account, rooms, full, transaction: None, latest, afterwards, outcome }
    }
}

impl Intake<'_> {
    /// Stores a part of the response: rooms, each with all that the response has of it. `next_batch` must be
    /// known unless this is a first response.
    pub async fn add(&mut self, batch: &SyncBatch, next_batch: Option<&Token>) -> Result<(), Error> {
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
            // What a crash takes of it is asked for again.
            sqlx::query!("set local synchronous_commit = off").execute(&mut *transaction).await?;
        }
        let next_batch = next_batch.filter(|_| !is_first).map(Token::as_str);
        if let Some(next_batch) = next_batch.filter(|_| batch.rooms_unread) {
            open_gaps_everywhere(&mut transaction, self.account, next_batch).await?;
        }
        quarantine::keep_roomless(&mut transaction, &batch.set_aside).await?;
        self.store(&mut transaction, &batch.rooms, next_batch).await?;
        if is_first {
            transaction.commit().await?;
        } else {
            self.transaction = Some(transaction);
        }
        Ok(())
    }

    /// What was stored so far.
    pub fn outcome(&self) -> &SyncOutcome {
        &self.outcome
    }

    async fn store(
        &mut self,
        connection: &mut PgConnection,
        update: &[RoomBatch],
        next_batch: Option<&str>,
    ) -> Result<(), Error> {
        let Self { writer, account, rooms, full, .. } = *self;
        let response = Response { account, next_batch, rooms, full };
        let Claimed { update: mut rest, made } = claim_rooms(connection, &response, update).await?;
        self.latest.add(rest.iter().map(|(room, batch)| (room, *batch)));
        while !rest.is_empty() {
            // A room that the account was kicked from and invited to again is reported twice.
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
                *room = room::get(connection, room.room_key).await?;
            }
        }
        Ok(())
    }

    /// Moves `since` to `next_batch`, the response's own, with all that is to be done then. Returns the
    /// account as it is now.
    ///
    /// # Errors
    /// [`Error::CheckpointMoved`] if `since` was moved by somebody else.
    pub async fn finish(mut self, next_batch: &Token) -> Result<(SyncOutcome, Account), Error> {
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
        // Else what was decided meanwhile would count as applied. Asked last, because commands wait from here
        // on.
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

/// What a first response has left to its end: the histories are walked from where it ends.
async fn follow_up(
    connection: &mut PgConnection,
    rooms: &Rooms,
    afterwards: &Afterwards,
    next_batch: &str,
) -> Result<(), Error> {
    let Afterwards { begun, begun_by_operator, handed_over, partial } = afterwards;
    for room_key in handed_over {
        operator::hand_over(connection, *room_key, next_batch).await?;
    }
    let by_operator: Vec<i32> = begun_by_operator.iter().map(|room| room.room_key).collect();
    for room_keys in [begun, &by_operator] {
        if !room_keys.is_empty() {
            room::begin_all(connection, room_keys).await?;
        }
    }
    for room in begun_by_operator {
        history::begin(connection, rooms, room, next_batch).await?;
    }
    for room_keys in [begun, partial] {
        if !room_keys.is_empty() {
            history::open_all(connection, room_keys, next_batch).await?;
        }
    }
    Ok(())
}

type Updates<'b> = Vec<(Room, &'b RoomBatch)>;

/// Takes some of `rest`, which is in the order of the rooms, up to the first that was taken already. Returns
/// whether it came to one.
fn take_each_once<'b>(rest: &mut Updates<'b>) -> (Updates<'b>, bool) {
    let is_same = |pair: &[(Room, &RoomBatch)]| matches!(pair, [(left, _), (right, _)] if left.room_key == right.room_key);
    let again = rest.windows(2).position(is_same).map(|last| last + 1);
    let most = ROOMS.min(rest.len());
    let len = again.map_or(most, |again| again.min(most));
    (rest.drain(..len).collect(), again == Some(len))
}
