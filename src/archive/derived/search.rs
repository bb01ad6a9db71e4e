//! Queues what the search must read anew, removes from it what may no longer be found, and tells listeners of new events.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::archive::{Error, room::Room};

/// The rooms in which the search is outdated.
#[derive(Debug, Default)]
pub(super) struct Search(BTreeMap<String, InRoom>);

#[derive(Debug, Default)]
struct InRoom {
    /// The lowest and the highest position of the new events.
    range: Option<(i64, i64)>,
    is_live: bool,
    /// Stored events that have changed.
    changed: BTreeSet<String>,
}

impl Search {
    /// Notes that an event has this position from now on. `is_live`: `/sync` has reported it, so it is to be found soon.
    pub(super) fn note_placed(&mut self, room: &Room, position: i64, is_live: bool) {
        let room = self.room(room);
        let (lower, upper) = room.range.unwrap_or((position, position));
        room.range = Some((lower.min(position), upper.max(position)));
        room.is_live |= is_live;
    }

    /// Notes that a stored event was redacted or has other content now.
    pub(super) fn note_changed(&mut self, room: &Room, event_id: &str) {
        self.room(room).changed.insert(event_id.to_owned());
    }

    fn room(&mut self, room: &Room) -> &mut InRoom {
        self.0.entry(room.room_id.clone()).or_default()
    }

    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<(), Error> {
        let (mut room_ids, mut lowers, mut uppers, mut live) = (vec![], vec![], vec![], vec![]);
        for (room_id, room) in self.0 {
            if !room.changed.is_empty() {
                let changed: Vec<String> = room.changed.into_iter().collect();
                sqlx::query!("select archive.forget_searched_events($1, $2)", room_id, &changed)
                    .execute(&mut *connection)
                    .await?;
            }
            if let Some((lower, upper)) = room.range {
                room_ids.push(room_id);
                lowers.push(lower);
                uppers.push(upper);
                live.push(room.is_live);
            }
        }
        if room_ids.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "insert into archive.search_queue (room_id, lower, upper, is_live)
             select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[])",
            &room_ids,
            &lowers,
            &uppers,
            &live
        )
        .execute(&mut *connection)
        .await?;
        if live.contains(&true) {
            sqlx::query!("select archive.announce($1, $2, $3)", &room_ids, &lowers, &uppers)
                .execute(connection)
                .await?;
        }
        Ok(())
    }
}
