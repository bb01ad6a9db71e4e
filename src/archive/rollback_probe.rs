//! The newest events that `/sync` reported. A server that lacks them may have been rolled back. It then takes `since`
//! for a token of the future, without an error (P23).

use std::collections::HashSet;

use sqlx::PgConnection;

use super::{Archive, Error, room::Room};
use crate::matrix::{RoomUpdate, Section};

/// How many rooms of a response are remembered. In at least one of them a rollback will have removed the event.
const ROOMS: usize = 8;

/// How many events before an anchor are searched for older ones.
const LOOK_BACK: i64 = 10_000;

/// An event that the server has reported, and the room's create event. A server that has the room has its create event.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The room.
    pub(crate) room_id: String,
    /// The event.
    pub(crate) event_id: String,
    /// Its sender.
    pub(crate) sender: String,
    /// The create event.
    pub(crate) create_event_id: String,
}

/// An event from before an anchor.
#[derive(Clone, Debug)]
pub(crate) struct Older {
    /// The event.
    pub(crate) event_id: String,
    /// Whether its sender is that of the anchor.
    pub(crate) is_own: bool,
}

impl Archive {
    /// The newest events of the last response, in rooms that the account is in.
    pub(crate) async fn anchors(&self) -> Result<Vec<Anchor>, Error> {
        let anchors = sqlx::query_as!(
            Anchor,
            "select r.room_id, a.event_id, e.sender, c.event_id as create_event_id
             from archive.anchors a
             join archive.rooms r using (room_id)
             join archive.events e using (room_id, event_id)
             join archive.current_state c on c.room_id = a.room_id and c.type = 'm.room.create' and c.state_key = ''
             where r.membership = 'join' and a.event_id <> c.event_id
             order by r.room_id"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(anchors)
    }

    /// Older and older events before the anchor, of the same kind: state or not. A server that was rolled back still
    /// has them. A server that purges events by age does not. Those of the same sender come first.
    pub(crate) async fn older(&self, anchor: &Anchor) -> Result<Vec<Older>, Error> {
        let older = sqlx::query_as!(
            Older,
            r#"select older.event_id as "event_id!", older.is_own as "is_own!"
               from (
                   select e.event_id, e.sender = a.sender as is_own,
                          row_number() over (partition by e.sender = a.sender order by e.position desc) as place,
                          count(*) over (partition by e.sender = a.sender) as oldest
                   from archive.rooms r
                   join archive.events a using (room_id)
                   cross join lateral (
                       select event_id, sender, position from archive.events
                       where room_id = r.room_id and position < a.position and (state_key is null) = (a.state_key is null)
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

/// The last events of a response, in the rooms with the newest ones.
#[derive(Debug, Default)]
pub(super) struct Latest(Vec<(Option<i64>, String, String)>);

impl Latest {
    /// Adds the last events of some rooms.
    pub(super) fn add<'b>(&mut self, update: impl Iterator<Item = (&'b Room, &'b RoomUpdate)>) {
        let followed = update.filter(|(room, batch)| room.watched && batch.section == Section::Join);
        let last = followed.filter_map(|(room, batch)| Some((&room.room_id, batch.timeline.events.last()?)));
        self.0.extend(
            last.map(|(room_id, event)| (event.origin_server_ts, room_id.clone(), event.event_id.clone())),
        );
        // Senders choose `origin_server_ts`, but it only decides which rooms are remembered.
        self.0.sort_by(|(left, ..), (right, ..)| right.cmp(left));
        // A room that is reported twice counts once, with its later event.
        let mut seen = HashSet::new();
        self.0.retain(|(_, room_id, _)| seen.insert(room_id.clone()));
        self.0.truncate(ROOMS);
    }

    /// Stores them in place of the earlier ones, if there are any.
    pub(super) async fn remember(self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (room_ids, event_ids): (Vec<String>, Vec<String>) =
            self.0.into_iter().map(|(_, room_id, event_id)| (room_id, event_id)).unzip();
        sqlx::query!("delete from archive.anchors where room_id <> all($1)", &room_ids)
            .execute(&mut *connection)
            .await?;
        sqlx::query!(
            "insert into archive.anchors (room_id, event_id) select * from unnest($1::text[], $2::text[])
             on conflict (room_id) do update set event_id = excluded.event_id",
            &room_ids,
            &event_ids
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Removes them, so that the next check finds nothing to compare.
pub(super) async fn forget(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("delete from archive.anchors").execute(connection).await?;
    Ok(())
}
