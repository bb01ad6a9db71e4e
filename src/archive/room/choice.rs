//! The choice of rooms at run time (`backscroll rooms`). Unlike all other writes it needs no
//! [`crate::archive::Writer`] and no lease, because a daemon may be running. The daemon reads the choice before each
//! `/sync` request, and a notification wakes it. A choice moves no checkpoint, and changes a room's row only under
//! the room's lock.

use sqlx::{PgConnection, postgres::PgListener};

use super::{Room, current_state::Cause};
use crate::{
    archive::{
        Account, Archive, Error, StateRequest, Writer, account,
        database::transient,
        erasure::filter,
        room,
        timeline::position,
        walk::{
            gap::{self, NewGap},
            history,
        },
        writer::lock_room,
    },
    config::{Choice, Choices, Rooms},
    matrix::{Events, Membership, room_state},
};

/// The channel on which a daemon listens.
const CHANNEL: &str = "backscroll_rooms";

/// What to do about a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Archive it even if the configuration excludes it.
    Add,
    /// Stop archiving it. What is archived stays.
    Remove,
    /// Stop archiving it until it is resumed.
    Pause,
    /// End the pause. What was missed is fetched.
    Resume,
}

impl Change {
    fn apply(self, choice: Choice) -> Choice {
        match self {
            Self::Add => Choice { wanted: Some(true), paused: false },
            Self::Remove => Choice { wanted: Some(false), paused: false },
            Self::Pause => Choice { paused: true, ..choice },
            Self::Resume => Choice { paused: false, ..choice },
        }
    }
}

/// A room and its choice.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ChosenRoom {
    /// Room id.
    pub(crate) room_id: String,
    /// The current name or alias.
    pub(crate) name: Option<String>,
    /// The account's membership. `None`: the archive does not have the room yet.
    pub(crate) membership: Option<Membership>,
    /// Whether the daemon archives it now.
    pub(crate) watched: bool,
    /// Added (true) or removed (false) by command. `None`: the configuration decides.
    pub(crate) wanted: Option<bool>,
    /// Whether it is paused.
    pub(crate) paused: bool,
    /// Archived events.
    pub(crate) event_count: i64,
}

impl Archive {
    /// The choices, and the account's `rooms_filter` at the same moment.
    pub(crate) async fn choices(&self, account_key: i64) -> Result<(Choices, Option<String>), Error> {
        let rows = sqlx::query!(
            r#"select a.rooms_filter, c.room_id as "room_id?", c.wanted as "wanted?", c.paused as "paused?"
               from archive.accounts a
               left join archive.room_choices c on true
               where a.account_key = $1"#,
            account_key
        )
        .fetch_all(&self.pool)
        .await?;
        let rooms_filter = rows.first().and_then(|row| row.rooms_filter.clone());
        let choices = rows
            .into_iter()
            .filter_map(|row| Some((row.room_id?, Choice { wanted: row.wanted, paused: row.paused? })));
        Ok((choices.collect(), rooms_filter))
    }

    /// Whether the room was erased. Then it is not archived, whatever is chosen.
    pub(crate) async fn is_erased(&self, room_id: &str) -> Result<bool, Error> {
        filter::is_erased(&mut *self.pool.acquire().await?, room_id).await
    }

    /// Changes the choice for a room. If that ends its archiving, it has ended when this returns, even if a daemon is
    /// running. Returns whether anything has changed.
    pub(crate) async fn choose_room(&self, room_id: &str, change: Change) -> Result<bool, Error> {
        transient::again(async || self.try_to_choose_room(room_id, change).await).await
    }

    async fn try_to_choose_room(&self, room_id: &str, change: Change) -> Result<bool, Error> {
        // A read after a lock must see what is committed at that time.
        let mut transaction = self.pool.begin_with("begin isolation level read committed").await?;
        let before = find(&mut transaction, room_id).await?;
        let after = change.apply(before);
        if after == before {
            return Ok(false);
        }
        save(&mut transaction, room_id, after).await?;
        if after.paused || after.wanted == Some(false) {
            unwatch(&mut transaction, room_id).await?;
        }
        // Also if the choice is the same as when the last whole state was stored: the room may have been unwatched in
        // between.
        account::outdate_filter(&mut transaction).await?;
        sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Every room that the archive has or that a choice names, ordered by name.
    pub(crate) async fn chosen_rooms(&self) -> Result<Vec<ChosenRoom>, Error> {
        let rooms = sqlx::query_as!(
            ChosenRoom,
            r#"select coalesce(r.room_id, c.room_id) as "room_id!", coalesce(v.name, v.canonical_alias) as name,
                      r.membership as "membership?: Membership", coalesce(r.watched, false) as "watched!", c.wanted as "wanted?",
                      coalesce(c.paused, false) as "paused!", coalesce(r.event_count, 0) as "event_count!"
               from archive.rooms r
               full join archive.room_choices c on c.room_id = r.room_id
               left join public.rooms v on v.room_id = r.room_id
               order by lower(coalesce(v.name, v.canonical_alias)), 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rooms)
    }

    /// The room with this canonical alias, according to the archive.
    pub(crate) async fn room_called(&self, alias: &str) -> Result<Option<String>, Error> {
        let room_id = sqlx::query_scalar!(
            r#"select r.room_id
               from archive.current_state s
               join archive.rooms r on r.room_id = s.room_id
               join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
               where s.type = 'm.room.canonical_alias' and s.state_key = '' and e.content ->> 'alias' = $1
               limit 1"#,
            alias
        );
        Ok(room_id.fetch_optional(&self.pool).await?)
    }

    /// Whether the account is in the room. `None`: the archive does not have the room.
    pub(crate) async fn is_joined(&self, room_id: &str) -> Result<Option<bool>, Error> {
        let joined = sqlx::query_scalar!(
            r#"select membership = 'join' as "joined!" from archive.rooms where room_id = $1"#,
            room_id
        );
        Ok(joined.fetch_optional(&self.pool).await?)
    }

    /// Listens for changes of the choice from now on.
    pub(crate) async fn listen_for_choices(&self) -> Result<PgListener, Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

impl Writer {
    /// Marks rooms as stale that are wanted now, and that the account has left while they were unwanted or unknown.
    /// No `/sync` reports them any more, not even with the whole state, so their state is requested.
    /// [`Writer::take_up_left_room`] stores it.
    pub(crate) async fn mark_left_rooms_stale(&self, rooms: &Rooms) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        let left = sqlx::query_scalar!(
            "select room_id from archive.rooms
             where (not watched or not bootstrapped) and membership in ('leave', 'ban')
             order by room_id"
        )
        .fetch_all(&mut *transaction)
        .await?;
        // In ascending order, as other transactions lock several rooms.
        for room_id in left {
            mark_left_room_stale(&mut transaction, rooms, &room_id).await?;
        }
        transaction.commit().await
    }

    /// Begins to archive a room that the account has left, if it is wanted. It may be unwanted after all, because its
    /// state may show an alias that `rooms` excludes. `state`: the room's state, or `None` if the server returns
    /// none. `account` and `rooms` were read at the same moment. Returns false if nothing was decided, because the
    /// choice of rooms has changed meanwhile, or a response has reported the room since its state was requested.
    pub(crate) async fn take_up_left_room(
        &self,
        account: &Account,
        rooms: &Rooms,
        room_id: &str,
        request: &StateRequest<'_>,
        state: Option<&Events>,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, room_id).await?;
        let room = room::get(&mut transaction, room_id).await?;
        // Otherwise the room stays stale, and is checked again with the newest choice.
        if (room.watched && room.bootstrapped)
            || request.is_outdated()
            || !account::is_up_to_date(&mut transaction, account).await?
        {
            transaction.undo(None).await;
            return Ok(false);
        }
        // `since` as it is now, until the transaction ends. Earlier responses were not stored while the room was
        // unwatched, so their events are part of the gap.
        let Some(since) = account::since(&mut transaction, account).await? else {
            transaction.undo(None).await;
            return Ok(false);
        };
        room::set_stale(&mut transaction, room_id, false).await?;
        let alias = match state {
            Some(state) => room_state::alias_contents(&state.events).last().map(str::to_owned),
            None => known_alias(&mut transaction, room_id).await?,
        };
        let is_left = room.membership.is_out();
        if is_left && room::is_wanted(rooms, &room.room_id, alias.as_deref().into_iter()) {
            self.watch_left_room(&mut transaction, rooms, room, &since, state).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Opens a gap for what was missed. For a room that is new to the archive, opens the history walk. The server
    /// returns what it shows to users who have left.
    async fn watch_left_room(
        &self,
        connection: &mut PgConnection,
        rooms: &Rooms,
        mut room: Room,
        since: &str,
        state: Option<&Events>,
    ) -> Result<(), Error> {
        let before = room.clone();
        let is_new = !room.bootstrapped;
        room.watched = true;
        room.bootstrapped |= state.is_some();
        let create = state.and_then(|state| state.events.iter().find(|it| it.is_state("m.room.create")));
        room.room_version = create.map(room_state::declared_version).or(room.room_version);
        room::update(connection, &before, &room).await?;
        if let Some(state) = state {
            let cause = if is_new { Cause::Bootstrap } else { Cause::Reconcile };
            self.store_state(connection, &room, state, cause).await?;
        }
        if is_new {
            return history::begin(connection, rooms, &room, since).await;
        }
        let top = gap::top(connection, &room.room_id).await?;
        let (top, newest) = (top.position(), top.newest);
        let gap = NewGap {
            room_id: &room.room_id,
            reason: gap::NOT_WATCHED,
            upper_token: Some(since),
            lower_token: None,
            upper_event_id: None,
            upper_position: position::append(top, true).next(),
            from_position: None,
            lower: newest,
        };
        gap::open(connection, &gap).await?;
        history::reopen(connection, &room, since).await
    }
}

/// Marks a room that the account has left as stale, if it is wanted according to the alias in the archive.
pub(in crate::archive) async fn mark_left_room_stale(
    connection: &mut PgConnection,
    rooms: &Rooms,
    room_id: &str,
) -> Result<(), Error> {
    let alias = known_alias(connection, room_id).await?;
    if room::is_wanted(rooms, room_id, alias.as_deref().into_iter()) {
        room::set_stale(connection, room_id, true).await?;
    }
    Ok(())
}

/// The content of the room's canonical alias in the archive.
async fn known_alias(connection: &mut PgConnection, room_id: &str) -> Result<Option<String>, Error> {
    let alias = sqlx::query_scalar!(
        "select e.content::text
         from archive.current_state s
         join archive.events e on e.room_id = s.room_id and e.event_id = s.event_id
         where s.room_id = $1 and s.type = 'm.room.canonical_alias' and s.state_key = ''",
        room_id
    );
    Ok(alias.fetch_optional(connection).await?.flatten())
}

async fn find(connection: &mut PgConnection, room_id: &str) -> Result<Choice, Error> {
    // Serialises two commands, also for a room without a row.
    sqlx::query!("lock table archive.room_choices in share row exclusive mode")
        .execute(&mut *connection)
        .await?;
    let choice = sqlx::query_as!(
        Choice,
        "select wanted, paused from archive.room_choices where room_id = $1",
        room_id
    );
    Ok(choice.fetch_optional(connection).await?.unwrap_or_default())
}

async fn save(connection: &mut PgConnection, room_id: &str, choice: Choice) -> Result<(), Error> {
    if choice == Choice::default() {
        sqlx::query!("delete from archive.room_choices where room_id = $1", room_id)
            .execute(connection)
            .await?;
        return Ok(());
    }
    sqlx::query!(
        "insert into archive.room_choices (room_id, wanted, paused) values ($1, $2, $3)
         on conflict (room_id) do update set wanted = excluded.wanted, paused = excluded.paused, chosen_at = excluded.chosen_at",
        room_id,
        choice.wanted,
        choice.paused
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Under the room's lock: a response that is being stored now is stored first, but not the next one.
async fn unwatch(connection: &mut PgConnection, room_id: &str) -> Result<(), Error> {
    let Some(room) = room::find(connection, room_id).await? else { return Ok(()) };
    lock_room(connection, &room.room_id).await?;
    sqlx::query!("update archive.rooms set watched = false where room_id = $1", room.room_id)
        .execute(connection)
        .await?;
    Ok(())
}
