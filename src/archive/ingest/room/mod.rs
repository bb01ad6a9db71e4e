//! Stores one room's part of a `/sync` response. Runs inside the transactions of
//! [`Intake`](crate::archive::Intake).
//!
//! [`RoomSync::apply`] is the whole of it. First it is decided what is to become of the part ([`decision`]):
//! a bootstrap at first sight ([`bootstrap`]), an appended timeline later ([`append`]), in other cases less.
//! Events that were left out become a gap ([`gap`]). Last, the current state moves ([`current_state`]).

mod append;
mod bootstrap;
pub(super) mod claim;
mod current_state;
mod decision;
mod gap;
mod rejoin;
mod timeline;

use sqlx::PgConnection;

use self::{decision::Decision, rejoin::has_rejoined};
use super::{
    portion::Portion,
    response::{Afterwards, Response},
};
use crate::{
    archive::{
        Error, Writer,
        event::quarantine,
        room::{Room, choice, stripped},
        walk,
    },
    matrix::{
        Event, Membership, RoomUpdate, Section, room_state,
        room_update::{membership, state_events},
    },
};

/// One room's part of a response, with all that is known of it while it is stored.
pub(super) struct RoomSync<'a> {
    writer: &'a Writer,
    connection: &'a mut PgConnection,
    /// What the archive has of the rooms that are stored together, and what is to be written of them.
    portion: &'a mut Portion,
    response: &'a Response<'a>,
    /// The room's row before the response.
    before: Room,
    /// The room's row after it.
    room: Room,
    update: &'a RoomUpdate,
    /// Whether the account can see more of the room than at its last leave.
    rejoined: bool,
    /// What is to be done once the response is stored as a whole.
    afterwards: &'a mut Afterwards,
}

/// What has become of a room's part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is stored, as far as it is to be.
    Stored {
        /// Events that were new.
        event_count: usize,
    },
    /// The whole state is needed first. The response must not be stored: the same `since` is requested
    /// again with `full_state`.
    NeedFullState,
}

impl<'a> RoomSync<'a> {
    /// `room`: its row, which is locked, and what the response has of it.
    pub(super) fn new(
        writer: &'a Writer,
        connection: &'a mut PgConnection,
        portion: &'a mut Portion,
        response: &'a Response<'a>,
        (before, update): (Room, &'a RoomUpdate),
        afterwards: &'a mut Afterwards,
    ) -> Self {
        let rejoined = has_rejoined(response, &before, update, portion.known(before.room_key));
        let mut room = before.clone();
        room.membership = membership(update, &response.account.user_id);
        if room.membership == Membership::Join {
            room.left_since = None;
        } else if before.membership == Membership::Join || rejoined {
            room.left_since.clone_from(&response.account.since);
        }
        Self { writer, connection, portion, response, before, room, update, rejoined, afterwards }
    }

    /// Stores the room's part of the response.
    pub(super) async fn apply(mut self) -> Result<Applied, Error> {
        let decision = Decision::of(self.response, &self.before, self.update);
        self.replace_stripped_state(decision).await?;
        let event_count = match decision {
            Decision::NeedFullState => return Ok(Applied::NeedFullState),
            Decision::Invited { is_wanted } => {
                self.keep_invite(is_wanted).await?;
                0
            }
            Decision::NeverJoined | Decision::NotWatched => {
                self.keep_membership(decision == Decision::NeverJoined).await?;
                0
            }
            Decision::Bootstrap => {
                self.keep_row().await?;
                self.keep_unreadable().await?;
                let event_count = self.bootstrap().await?;
                self.move_state();
                event_count
            }
            Decision::Append => {
                self.keep_row().await?;
                self.keep_unreadable().await?;
                let event_count = self.append().await?;
                self.move_state();
                event_count
            }
        };
        Ok(Applied::Stored { event_count })
    }

    /// An invite or a knock shows what the room is called; once it is over, that is dropped.
    async fn replace_stripped_state(&mut self, decision: Decision) -> Result<(), Error> {
        let shown = match decision {
            Decision::Invited { is_wanted: true } => self.update.stripped.as_slice(),
            Decision::Invited { is_wanted: false } => &[],
            _ if self.before.membership.is_pending() => &[],
            _ => return Ok(()),
        };
        stripped::set_stripped(self.connection, &self.room, shown).await
    }

    /// An invite or a knock: the room is not archived, but known.
    async fn keep_invite(&mut self, is_wanted: bool) -> Result<(), Error> {
        if is_wanted {
            let policy = self.writer.policy();
            quarantine::keep(self.connection, policy, &self.room, &self.update.set_aside).await?;
        }
        if !self.before.bootstrapped {
            self.room.watched = is_wanted;
        }
        self.portion.changes.set(&self.room);
        Ok(())
    }

    /// Of a room that is not archived only the account's membership is stored.
    async fn keep_membership(&mut self, watched: bool) -> Result<(), Error> {
        if self.before.membership.is_pending() && self.update.section == Section::Leave {
            // `/sync` reported the invite or knock instead of an earlier membership, so the account may have
            // been in the room before. Only the room's state and history show it.
            let (rooms, room) = (self.response.rooms, &self.room);
            choice::mark_left_room_stale(self.connection, rooms, room.room_key, &room.room_id).await?;
        }
        self.room.watched = watched;
        self.portion.changes.set(&self.room);
        Ok(())
    }

    /// The room is archived: its row, and walks that were refused while the account was invited or banned.
    async fn keep_row(&mut self) -> Result<(), Error> {
        self.room.watched = true;
        if let Some(create) = state_events(self.update).find(|event| event.is_state("m.room.create")) {
            self.room.room_version = Some(room_state::declared_version(create));
        }
        // A room of a first response counts as bootstrapped only after the whole response is stored.
        self.room.bootstrapped |= !self.response.is_first();
        self.portion.changes.set(&self.room);
        let was_refused = self.before.membership.is_pending() || self.before.membership == Membership::Ban;
        if was_refused && self.room.membership == Membership::Leave {
            // The server refuses the history to an invited or banned account. One that has left may read it
            // again.
            walk::reopen_stalled(self.connection, Some(self.room.room_key)).await?;
        }
        Ok(())
    }

    /// Stores unreadable parts in quarantine.
    async fn keep_unreadable(&mut self) -> Result<(), Error> {
        let (policy, update) = (self.writer.policy(), self.update);
        quarantine::keep(self.connection, policy, &self.room, &update.set_aside).await?;
        let sections = [Some(&update.state), Some(&update.timeline), update.state_after.as_ref()];
        for section in sections.into_iter().flatten() {
            quarantine::keep(self.connection, policy, &self.room, &section.malformed).await?;
        }
        Ok(())
    }

    /// Stores events of the room, with positions or without, and counts them. Returns how many were new.
    async fn gather(&mut self, events: &[&Event], positions: &[Option<i64>]) -> Result<usize, Error> {
        self.writer.gather(self.connection, self.portion, &self.room, events, positions).await
    }
}
