//! The rows of rooms: the account's membership, the state of the history, and whether the room is archived.

pub(super) mod choice;
pub(super) mod current_state;
pub(super) mod history;
pub(super) mod members;
pub(super) mod state_order;
pub(super) mod stripped;

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use self::history::HistoryState;
use super::{Archive, Error, StateRequest, Writer, writer::lock_room};
use crate::{
    config::Rooms,
    matrix::{
        Event, Membership,
        room_state::{aliases, declared_version},
    },
};

/// A row of `archive.rooms`, with the columns that the writer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) room_id: String,
    pub(super) room_version: Option<String>,
    /// The account's membership.
    pub(super) membership: Membership,
    /// Whether the room is archived: it is wanted and not paused.
    pub(super) watched: bool,
    /// Whether its whole state was stored. Only then may a timeline be appended (P28).
    pub(super) bootstrapped: bool,
    /// The `since` of the response that reported the account's leave. `None` while the account is in the room.
    pub(super) left_since: Option<String>,
    pub(super) history_state: HistoryState,
    /// The erased users, which are the same for every room.
    pub(super) erased_users: Vec<String>,
    /// Whether it has imported events, which give way to the homeserver's copies.
    pub(super) has_imports: bool,
}

/// The room's row, if there is one.
pub(super) async fn find(connection: &mut PgConnection, room_id: &str) -> Result<Option<Room>, Error> {
    Ok(get_all(connection, &[room_id]).await?.remove(room_id))
}

/// The room's row, which must exist.
pub(super) async fn get(connection: &mut PgConnection, room_id: &str) -> Result<Room, Error> {
    find(connection, room_id).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// The rows of rooms that exist, by room id.
pub(super) async fn get_all(
    connection: &mut PgConnection,
    room_ids: &[&str],
) -> Result<HashMap<String, Room>, Error> {
    let rooms = sqlx::query_as!(
        Room,
        r#"select room_id, room_version, membership as "membership: Membership", watched, bootstrapped, left_since,
                  history_state as "history_state: HistoryState",
                  array(select user_id from archive.erasures where user_id is not null) as "erased_users!",
                  exists (select from archive.imported_events i where i.room_id = r.room_id) as "has_imports!"
           from archive.rooms r where room_id = any($1)"#,
        room_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rooms.into_iter().map(|room| (room.room_id.clone(), room)).collect())
}

/// Creates the row of a room that has none.
pub(super) async fn create(
    connection: &mut PgConnection,
    room_id: &str,
    membership: Membership,
) -> Result<Room, Error> {
    create_all(connection, &[room_id], &[membership]).await?;
    get(connection, room_id).await
}

/// Inserts the rows of new rooms, with ids and memberships.
pub(super) async fn create_all(
    connection: &mut PgConnection,
    room_ids: &[&str],
    memberships: &[Membership],
) -> Result<(), Error> {
    if room_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into archive.rooms (room_id, membership) select * from unnest($1::text[], $2::text[])",
        room_ids as &[&str],
        memberships as &[Membership]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether each of these rooms has a row. Erased rooms are left out.
pub(super) async fn have_rows(
    connection: &mut PgConnection,
    room_ids: &[&str],
) -> Result<HashMap<String, bool>, Error> {
    let rooms = sqlx::query!(
        r#"select asked.room_id as "room_id!", r.room_id is not null as "has_row!"
           from unnest($1::text[]) as asked (room_id)
           left join archive.rooms r on r.room_id = asked.room_id
           where not exists (select from archive.erasures e where e.room_id = asked.room_id)"#,
        room_ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rooms.into_iter().map(|row| (row.room_id, row.has_row)).collect())
}

/// Writes the changes of the room's row since `before`, under the room's lock.
pub(super) async fn update(connection: &mut PgConnection, before: &Room, room: &Room) -> Result<(), Error> {
    if room == before {
        return Ok(());
    }
    sqlx::query!(
        "update archive.rooms
         set room_version = $2, membership = $3, watched = $4, bootstrapped = $5, left_since = $6
         where room_id = $1",
        room.room_id,
        room.room_version,
        room.membership as _,
        room.watched,
        room.bootstrapped,
        room.left_since
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Collected changes to the rows of rooms, whose locks the transaction holds.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<String, Change>);

#[derive(Debug)]
struct Change {
    room: Room,
    /// The number of new events.
    new: i64,
    is_stale: bool,
}

impl Changes {
    /// Sets the room's row.
    pub(super) fn set(&mut self, room: &Room) {
        self.of(room).room.clone_from(room);
    }

    /// Counts new events of the room.
    pub(super) fn count(&mut self, room: &Room, new: usize) {
        self.of(room).new += i64::try_from(new).expect("an answer holds fewer events than that");
    }

    /// Marks the room's state as stale.
    pub(super) fn stale(&mut self, room: &Room) {
        self.of(room).is_stale = true;
    }

    fn of(&mut self, room: &Room) -> &mut Change {
        let change = || Change { room: room.clone(), new: 0, is_stale: false };
        self.0.entry(room.room_id.clone()).or_insert_with(change)
    }

    /// Writes the changes.
    pub(super) async fn write(&self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let rooms = || self.0.values().map(|change| &change.room);
        let room_ids: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let versions: Vec<Option<&str>> = rooms().map(|room| room.room_version.as_deref()).collect();
        let memberships: Vec<Membership> = rooms().map(|room| room.membership).collect();
        let watched: Vec<bool> = rooms().map(|room| room.watched).collect();
        let bootstrapped: Vec<bool> = rooms().map(|room| room.bootstrapped).collect();
        let left_since: Vec<Option<&str>> = rooms().map(|room| room.left_since.as_deref()).collect();
        let new: Vec<i64> = self.0.values().map(|change| change.new).collect();
        let stale: Vec<bool> = self.0.values().map(|change| change.is_stale).collect();
        sqlx::query!(
            "update archive.rooms r
             set room_version = c.room_version, membership = c.membership, watched = c.watched,
                 bootstrapped = c.bootstrapped, left_since = c.left_since, event_count = r.event_count + c.new,
                 state_suspect = r.state_suspect or c.suspect
             from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::boolean[], $6::text[], $7::bigint[],
                         $8::boolean[])
                 as c (room_id, room_version, membership, watched, bootstrapped, left_since, new, suspect)
             where r.room_id = c.room_id
               and ((r.room_version, r.membership, r.watched, r.bootstrapped, r.left_since)
                    is distinct from (c.room_version, c.membership, c.watched, c.bootstrapped, c.left_since)
                    or c.new > 0 or (c.suspect and not r.state_suspect))",
            &room_ids as &[&str],
            versions.as_slice() as &[Option<&str>],
            &memberships as &[Membership],
            &watched,
            &bootstrapped,
            left_since.as_slice() as &[Option<&str>],
            &new,
            &stale
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Records for these watched rooms that all of a first response is stored, including their whole states. Their states
/// are marked as stale, and their histories are to be walked.
pub(super) async fn mark_bootstrapped(connection: &mut PgConnection, room_ids: &[&str]) -> Result<(), Error> {
    sqlx::query!(
        "update archive.rooms set bootstrapped = true, state_suspect = true
         where room_id = any($1) and watched and not bootstrapped",
        room_ids as &[&str]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets whether the room's state is stale.
pub(super) async fn set_stale(
    connection: &mut PgConnection,
    room_id: &str,
    stale: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "update archive.rooms set state_suspect = $2 where room_id = $1 and state_suspect <> $2",
        room_id,
        stale
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks the state of every room that the account is in as stale.
pub(super) async fn mark_states_stale(connection: &mut PgConnection) -> Result<(), Error> {
    let fresh = sqlx::query_scalar!(
        "select room_id from archive.rooms
         where watched and bootstrapped and membership = 'join' and not state_suspect"
    )
    .fetch_all(&mut *connection)
    .await?;
    // Ordered as in other transactions that lock several rooms.
    sqlx::query!("select archive.lock_rooms($1)", &fresh).execute(&mut *connection).await?;
    sqlx::query!(
        "update archive.rooms set state_suspect = true
         where room_id = any($1) and watched and bootstrapped and membership = 'join' and not state_suspect",
        &fresh
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Archive {
    /// The rooms that the account is in, according to the responses so far.
    pub(crate) async fn joined_rooms(&self) -> Result<Vec<String>, Error> {
        let rooms = sqlx::query_scalar!(
            "select room_id from archive.rooms where membership = 'join' order by room_id"
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rooms)
    }
}

impl Writer {
    /// Records that the account is no longer in a room, which no `/sync` up to `since` has reported. Returns false if
    /// a response has reported the room since the request, or if it was recorded already.
    pub(crate) async fn lose_room(
        &self,
        room_id: &str,
        request: &StateRequest<'_>,
        since: Option<&str>,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let Some(room) = find(&mut transaction, room_id).await? else {
            transaction.undo(None).await;
            return Ok(false);
        };
        lock_room(&mut transaction, &room.room_id).await?;
        if request.is_outdated() {
            transaction.undo(None).await;
            return Ok(false);
        }
        let lost = sqlx::query!(
            "update archive.rooms set membership = 'leave', left_since = $2, state_suspect = false
             where room_id = $1 and membership = 'join'",
            room_id,
            since
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(lost.rows_affected() > 0)
    }

    /// Marks the state of a room as stale, so that it is compared with the server's.
    pub(crate) async fn mark_state_stale(&self, room_id: &str) -> Result<(), Error> {
        let mut transaction = self.begin_in_room(room_id).await?;
        set_stale(&mut transaction, room_id, true).await?;
        transaction.commit().await
    }

    /// Marks the state of every room that the account is in as stale, so that it is compared with the server's.
    pub(crate) async fn mark_states_stale(&self) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        mark_states_stale(&mut transaction).await?;
        transaction.commit().await
    }
}

/// The rooms that were asked for, if they are all there.
///
/// # Errors
/// [`Error::NoSuchRoom`] for the first of `room_ids` that is not among them.
pub(super) fn all_found<T>(
    rooms: Vec<T>,
    room_ids: &[String],
    id_of: impl Fn(&T) -> &String,
) -> Result<Vec<T>, Error> {
    let missing = room_ids.iter().find(|room_id| rooms.iter().all(|room| id_of(room) != *room_id));
    missing.map_or(Ok(rooms), |room_id| Err(Error::NoSuchRoom(room_id.clone())))
}

pub(super) async fn count_events(
    connection: &mut PgConnection,
    room_id: &str,
    new: usize,
) -> Result<(), Error> {
    if new > 0 {
        let new = i64::try_from(new).expect("an answer holds fewer events than that");
        sqlx::query!(
            "update archive.rooms set event_count = event_count + $2 where room_id = $1",
            room_id,
            new
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Records the room version if the create event is among `events`. For a room whose state the server does not return.
pub(super) async fn learn_version(
    connection: &mut PgConnection,
    room: &mut Room,
    events: &[Event],
) -> Result<(), Error> {
    let is_create = |event: &&Event| event.is_state("m.room.create");
    let Some(create) = events.iter().find(is_create).filter(|_| room.room_version.is_none()) else {
        return Ok(());
    };
    let before = room.clone();
    room.room_version = Some(declared_version(create));
    update(connection, &before, room).await
}

/// Whether a room with these contents of `m.room.canonical_alias` is wanted.
pub(super) fn is_wanted<'a>(
    rooms: &Rooms,
    room_id: &str,
    alias_contents: impl Iterator<Item = &'a str>,
) -> bool {
    let aliases = aliases(alias_contents);
    let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
    rooms.watches(room_id, &aliases)
}
