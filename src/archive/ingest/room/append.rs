//! A later response of a room that the archive has: its timeline is appended.

use super::{
    super::overlap::{self, Overlap},
    RoomSync,
    gap::Hole,
};
use crate::{
    archive::{
        Error,
        event::{lookup, row::distinct},
        redaction,
        timeline::position,
        walk::{self, gap::Top},
    },
    matrix::{Event, Section, room_update::after},
};

/// A timeline whose events have got their places.
pub(super) struct Timeline<'a> {
    events: Vec<&'a Event>,
    /// One for each event.
    pub(super) positions: Vec<Option<i64>>,
    /// Where it begins: what is missing before it is below that.
    pub(super) begins_at: Option<i64>,
    /// The newest event that the archive had before it, and that one's position.
    pub(super) newest_before: Option<(String, i64)>,
}

impl<'a> RoomSync<'a> {
    /// Appends the timeline. A hole before it becomes a gap. Returns how many events were new.
    pub(super) async fn append(&mut self) -> Result<usize, Error> {
        let (room_key, update) = (self.room.room_key, self.update);
        // Before anything of the response is stored.
        let top = self.portion.top(room_key);
        let may_repeat = self.may_repeat();
        let hole = self.find_hole(&top).await?;
        let removals = redaction::removals(update.state.events.iter().chain(after(update)));
        let mut unnamed = redaction::names_no_target(&self.room, &removals, self.portion.known(room_key));

        let mut new = self.store_state().await?;
        let timeline = self.place_timeline(&top, hole).await?;
        unnamed |= redaction::names_no_target(&self.room, &timeline.events, self.portion.known(room_key));
        new += self.gather(&timeline.events, &timeline.positions).await?;

        if unnamed {
            walk::rewalk_now(self.connection, room_key).await?;
        }
        if update.section == Section::Join && (hole.is_some() || may_repeat) {
            // Refused while the account was out of the room, which may be reported only by what is missing
            // here.
            walk::reopen_stalled(self.connection, Some(room_key)).await?;
        }
        if let Some(hole) = hole {
            self.open_gap(hole, may_repeat, &top, &timeline).await?;
        }
        self.walk_partial_history(hole.is_some()).await?;
        Ok(new)
    }

    /// Stores the events of the response's state, which have no place in the timeline. Returns how many were
    /// new.
    async fn store_state(&mut self) -> Result<usize, Error> {
        let state = distinct(self.update.state.events.iter().chain(after(self.update)));
        let new = self.gather(&state, &[]).await?;
        self.portion.found(self.room.room_key).note_unplaced(&state);
        Ok(new)
    }

    /// Gives the timeline's events their places: those of the part that overlaps with what the archive has
    /// stand between what is known, the others on top.
    async fn place_timeline(&mut self, top: &Top, hole: Option<Hole>) -> Result<Timeline<'a>, Error> {
        let room_key = self.room.room_key;
        let events = distinct(&self.update.timeline.events);
        let places = lookup::places(&events, self.portion.known(room_key));
        let newest = top.newest.clone();
        let (overlap, newest_before) = if self.has_graph_order() {
            (Some(Overlap::of_all(&places)), newest)
        } else {
            overlap::ahead(self.connection, room_key, newest, &events, &places).await?
        };
        let (again, fresh) = places.split_at(overlap.as_ref().map_or(0, |overlap| overlap.len));
        let mut positions = match &overlap {
            Some(overlap) => overlap.place(self.connection, room_key, again).await?,
            None => Vec::new(),
        };
        let lowest = overlap.and_then(|overlap| overlap.lowest(&positions));
        let mut free = position::append(top.position(), hole.is_some()).peekable();
        let begins_at = lowest.or(free.peek().copied());
        // A known event in what arrived since `since` is one that a walk has met before and placed where it
        // belongs.
        positions.extend(fresh.iter().map(|place| place.position().or_else(|| free.next())));
        Ok(Timeline { events, positions, begins_at, newest_before })
    }

    /// Whether the timeline has the graph's order, as an initial one has, and that of a room that the account
    /// is back in: what arrived late but sorts early is neither in it nor below its `prev_batch` (P160). In
    /// any other what is new may come as it arrived, also where the account has left again, or has left and
    /// returned (Synapse gives the graph's order there too): what came late says nothing about where its
    /// neighbours belong.
    fn has_graph_order(&self) -> bool {
        self.response.is_first() || (self.rejoined && self.update.section == Section::Join)
    }
}
