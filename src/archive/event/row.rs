//! Converts events to and from rows of `archive.events`.

use foldhash::{HashMap, HashMapExt as _};

use crate::matrix::Event;

/// The columns of a stored event that a redaction needs.
#[derive(Debug)]
pub(in crate::archive) struct StoredEvent {
    pub(in crate::archive) event_id: String,
    pub(in crate::archive) event_type: String,
    pub(in crate::archive) sender: String,
    pub(in crate::archive) state_key: Option<String>,
    pub(in crate::archive) origin_server_ts: Option<i64>,
    pub(in crate::archive) redacts: Option<String>,
    pub(in crate::archive) redacted_by: Option<String>,
    pub(in crate::archive) relates_to: Option<String>,
    pub(in crate::archive) rel_type: Option<String>,
    pub(in crate::archive) content: String,
}

impl StoredEvent {
    pub(in crate::archive) fn into_event(self) -> Event {
        let event = Event {
            event_id: self.event_id,
            event_type: self.event_type,
            sender: self.sender,
            state_key: self.state_key,
            origin_server_ts: self.origin_server_ts,
            content: self.content,
            ..Event::default()
        };
        event.with_uncommon(|it| {
            (it.redacts, it.redacted_by) = (self.redacts, self.redacted_by);
            (it.relates_to, it.rel_type) = (self.relates_to, self.rel_type);
        })
    }
}

/// An event and its future position. `None`: it stays unplaced.
#[derive(Clone, Copy, Debug)]
pub(in crate::archive) struct Placed<'a> {
    pub(in crate::archive) event: &'a Event,
    pub(in crate::archive) position: Option<i64>,
}

/// Removes duplicates from a response (P35). Of two copies of an event, the redacted one is kept.
pub(in crate::archive) fn distinct<'e>(events: impl IntoIterator<Item = &'e Event>) -> Vec<&'e Event> {
    let events = events.into_iter();
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(events.size_hint().0);
    let mut distinct: Vec<&Event> = Vec::with_capacity(events.size_hint().0);
    for event in events {
        match seen.get(event.event_id.as_str()) {
            None => {
                seen.insert(&event.event_id, distinct.len());
                distinct.push(event);
            }
            Some(&index) if event.uncommon().redacted_by.is_some() => {
                if let Some(copy) =
                    distinct.get_mut(index).filter(|copy| copy.uncommon().redacted_by.is_none())
                {
                    *copy = event;
                }
            }
            Some(_) => {}
        }
    }
    distinct
}

/// Pairs events with positions. Events beyond the end of the list have none.
pub(in crate::archive) fn with_positions<'a>(
    events: &[&'a Event],
    positions: &[Option<i64>],
) -> Vec<Placed<'a>> {
    let positions = positions.iter().copied().chain(std::iter::repeat(None));
    events.iter().zip(positions).map(|(&event, position)| Placed { event, position }).collect()
}
