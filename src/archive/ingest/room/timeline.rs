//! Where the events of a timeline go.

use super::{
    super::overlap::{self, Overlap},
    RoomSync,
};
use crate::{
    archive::{
        Error,
        event::{lookup, row::distinct},
        timeline::position,
        walk::gap::Top,
    },
    matrix::{Event, Section},
};

/// A timeline whose events have got their places.
pub(super) struct Timeline<'a> {
    pub(super) events: Vec<&'a Event>,
    /// One for each event.
    pub(super) positions: Vec<Option<i64>>,
    /// Where it begins: what is missing before it is below that.
    pub(super) begins_at: Option<i64>,
    /// The newest event that the archive had before it, and that one's position.
    pub(super) newest_before: Option<(String, i64)>,
}

impl<'a> RoomSync<'a> {
    /// Gives the timeline's events their places: those of the part that overlaps with what the archive has
    /// stand between what is known, the others on top.
    pub(super) async fn place_timeline(&mut self, top: &Top, has_hole: bool) -> Result<Timeline<'a>, Error> {
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
        let mut free = position::append(top.position(), has_hole).peekable();
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
