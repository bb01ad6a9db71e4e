//! The newest events that `/sync` reported. A server that does not know them any more may have been rolled back, and takes
//! `since` for a token of the future without a word (P23).

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Archive, Error, room::Room};
use crate::matrix::{RoomBatch, Section};

/// Rooms of a response that are remembered: enough for one to be among what a rollback took.
const ROOMS: usize = 8;

/// Among how many events before an anchor older ones are looked for.
const LOOK_BACK: i64 = 10_000;

/// An event that the server has reported, and the room's create event, which it knows if it knows the room.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The room.
    pub room_id: String,
    /// The event.
    pub event_id: String,
    /// Its sender.
    pub sender: String,
    /// The create event.
    pub create_event_id: String,
}

/// An event from before an anchor.
#[derive(Clone, Debug)]
pub struct Older {
    /// The event.
    pub event_id: String,
    /// Whether it is of the anchor's sender.
    pub is_own: bool,
}

impl Archive {
    /// What the last response reported, of rooms that the account is in.
    pub async fn anchors(&self) -> Result<Vec<Anchor>, Error> {
        let anchors = sqlx::query_as!(
            Anchor,
            "select r.room_id, a.event_id, e.sender, c.event_id as create_event_id
             from archive.anchors a
             join archive.rooms r using (room_key)
             join archive.events e using (room_key, event_id)
             join archive.current_state c on c.room_key = a.room_key and c.type = 'm.room.create' and c.state_key = ''
             where r.membership = 'join' and a.event_id <> c.event_id
             order by r.room_key"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(anchors)
    }

    /// Events of the anchor's kind, state or not, from before it, ever older: what a server that was rolled back still has, and
    /// one that has removed it by age (retention, a purge) has not. Those of the same sender first.
    pub async fn older(&self, anchor: &Anchor) -> Result<Vec<Older>, Error> {
        let older = sqlx::query_as!(
            Older,
            r#"select older.event_id as "event_id!", older.is_own as "is_own!"
               from (
                   select e.event_id, e.sender = a.sender as is_own,
                          row_number() over (partition by e.sender = a.sender order by e.position desc) as place,
                          count(*) over (partition by e.sender = a.sender) as oldest
                   from archive.rooms r
                   join archive.events a using (room_key)
                   cross join lateral (
                       select event_id, sender, position from archive.events
                       where room_key = r.room_key and position < a.position and (state_key is null) = (a.state_key is null)
                         and redacted_by is null and type <> 'm.room.create'
                       order by position desc
                       limit $3
                   ) e
                   where r.room_id = $1 and a.event_id = $2
               ) older
               where older.place in (1, 10, 100, 1000, older.oldest)
               order by older.is_own desc, older.place"#,
            anchor.room_id,
            anchor.event_id,
            LOOK_BACK
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(older)
    }
}

/// The last events of a response, of the rooms where they are the newest.
#[derive(Debug, Default)]
pub(super) struct Latest(Vec<(Option<i64>, i32, String)>);

impl Latest {
    /// Adds those of some of its rooms.
    pub(super) fn add<'b>(&mut self, update: impl Iterator<Item = (&'b Room, &'b RoomBatch)>) {
        let followed = update.filter(|(room, batch)| room.watched && batch.section == Section::Join);
        let last = followed.filter_map(|(room, batch)| Some((room.room_key, batch.timeline.events.last()?)));
        self.0
            .extend(last.map(|(room_key, event)| (event.origin_server_ts, room_key, event.event_id.clone())));
        // The time is the sender's word, but only the choice depends on it.
        self.0.sort_by(|(left, ..), (right, ..)| right.cmp(left));
        // A room that is reported twice counts once, with what came last.
        let mut seen = HashSet::new();
        self.0.retain(|(_, room_key, _)| seen.insert(*room_key));
        self.0.truncate(ROOMS);
    }

    /// Remembers them, if there are any, in place of those before.
    pub(super) async fn remember(self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (room_keys, event_ids): (Vec<i32>, Vec<String>) =
            self.0.into_iter().map(|(_, room_key, event_id)| (room_key, event_id)).unzip();
        sqlx::query!(
            "with forgotten as (delete from archive.anchors where room_key <> all($1))
             insert into archive.anchors (room_key, event_id) select * from unnest($1::int[], $2::text[])
             on conflict (room_key) do update set event_id = excluded.event_id",
            &room_keys,
            &event_ids
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Forgets them: nothing is expected of the server any more.
pub(super) async fn forget(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("delete from archive.anchors").execute(connection).await?;
    Ok(())
}
