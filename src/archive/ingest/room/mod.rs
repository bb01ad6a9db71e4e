//! Stores one room's part of a `/sync` response. Runs inside the transactions of
//! [`Intake`](crate::archive::Intake).
//!
//! [`RoomSync::apply`] is the entry point. [`decision`] decides what is stored: for a room that is new to the
//! archive, events without positions and a history walk ([`bootstrap`]); for an archived room, the appended
//! timeline ([`append`]) and, if events are missing before it, a gap ([`gap`]); for any other room, its row at
//! most. Then the current state moves ([`current_state`]).

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

/// The storing of one room's part of a response.
pub(super) struct RoomSync<'a> {
    writer: &'a Writer,
    connection: &'a mut PgConnection,
    /// The loaded data of the rooms that are stored together, and their collected changes.
    portion: &'a mut Portion,
    response: &'a Response<'a>,
    /// The room's row before the response.
    before: Room,
    /// The room's row after it.
    room: Room,
    update: &'a RoomUpdate,
    /// Whether the account can see more of the room than at its last leave.
    rejoined: bool,
    /// What to do after the whole response was stored.
    afterwards: &'a mut Afterwards,
}

/// The result of storing a room's part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// Everything of it that should be stored is stored.
    Stored {
        /// Events that were new.
        event_count: usize,
    },
    /// The whole state is needed first. The response must not be stored: the same `since` is requested
    /// again with `full_state`.
    NeedFullState,
}

impl<'a> RoomSync<'a> {
    /// `(before, update)`: the room's row, which is locked, and its part of the response.
    pub(super) fn new(
        writer: &'a Writer,
        connection: &'a mut PgConnection,
        portion: &'a mut Portion,
        response: &'a Response<'a>,
        (before, update): (Room, &'a RoomUpdate),
        afterwards: &'a mut Afterwards,
    ) -> Self {
        let rejoined = has_rejoined(response, &before, update, portion.known(&before.room_id));
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
                // An invite that was taken back does not show whether the room is wanted. While it counts as
                // watched, a later response without its create event leads to `NeedFullState`.
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

    /// Stores the stripped state of a wanted invite or knock. Deletes it once the invite or knock is over.
    async fn replace_stripped_state(&mut self, decision: Decision) -> Result<(), Error> {
        let shown = match decision {
            Decision::Invited { is_wanted: true } => self.update.stripped.as_slice(),
            Decision::Invited { is_wanted: false } => &[],
            _ if self.before.membership.is_pending() => &[],
            _ => return Ok(()),
        };
        stripped::set_stripped(self.connection, &self.room, shown).await
    }

    /// Stores the row of a room with an invite or a knock. Its events are not archived.
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

    /// Stores only the account's membership, because the room is not archived.
    async fn keep_membership(&mut self, watched: bool) -> Result<(), Error> {
        if self.before.membership.is_pending() && self.update.section == Section::Leave {
            // `/sync` reported the invite or knock instead of an earlier membership, so the account may have
            // been in the room before. Only the room's state and history show it.
            let (rooms, room) = (self.response.rooms, &self.room);
            choice::mark_left_room_stale(self.connection, rooms, &room.room_id).await?;
        }
        self.room.watched = watched;
        self.portion.changes.set(&self.room);
        Ok(())
    }

    /// Stores the row of an archived room. Reopens walks that were refused while the account was invited or
    /// banned.
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
            walk::reopen_stalled(self.connection, Some(&self.room.room_id)).await?;
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
