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

/// A timeline whose events have positions.
pub(super) struct Timeline<'a> {
    pub(super) events: Vec<&'a Event>,
    /// One for each event.
    pub(super) positions: Vec<Option<i64>>,
    /// The newest event that the archive had before it, and that one's position.
    pub(super) newest_before: Option<(String, i64)>,
}

impl Timeline<'_> {
    /// The first event above the newest one that the archive had before, and its position. A timeline may begin below
    /// that: after a return to a room, it repeats what is archived. Events that are missing are between the two.
    pub(super) fn first_above_newest_before(&self) -> Option<(&str, i64)> {
        let newest = self.newest_before.as_ref().map(|(_, position)| *position);
        let placed = self.events.iter().zip(&self.positions);
        placed
            .filter_map(|(event, position)| Some((event.event_id.as_str(), (*position)?)))
            .find(|(_, position)| Some(*position) > newest)
    }
}

impl<'a> RoomSync<'a> {
    /// Gives the timeline's events their positions. The part that overlaps with the archive goes
    /// between the known events, the rest on top.
    pub(super) async fn place_timeline(&mut self, top: &Top, has_hole: bool) -> Result<Timeline<'a>, Error> {
        let room_id = &self.room.room_id;
        let events = distinct(&self.update.timeline.events);
        let places = lookup::places(&events, self.portion.known(room_id));
        let newest = top.newest.clone();
        let (overlap, newest_before) = if self.has_graph_order() {
            (Some(Overlap::of_all(&places)), newest)
        } else {
            overlap::ahead(self.connection, room_id, newest, &events, &places).await?
        };
        let (again, fresh) = places.split_at(overlap.as_ref().map_or(0, |overlap| overlap.len));
        let mut positions = match &overlap {
            Some(overlap) => overlap.place(self.connection, room_id, again).await?,
            None => Vec::new(),
        };
        let mut free = position::append(top.position(), has_hole);
        // A known event in the rest of the timeline was placed by an earlier walk. It keeps its position.
        positions.extend(fresh.iter().map(|place| place.position().or_else(|| free.next())));
        Ok(Timeline { events, positions, newest_before })
    }

    /// Whether the timeline is in graph order. An initial timeline is, and that of a room that the
    /// account has rejoined. Late events that sort early are neither in it nor below its `prev_batch`
    /// (P160). Any other timeline may be in the order of arrival, also if the account has left again,
    /// or has left and returned in between (although Synapse uses graph order there). In such a
    /// timeline, the neighbours of a late event need not be its neighbours in the room.
    fn has_graph_order(&self) -> bool {
        self.response.is_first() || (self.rejoined && self.update.section == Section::Join)
    }
}
