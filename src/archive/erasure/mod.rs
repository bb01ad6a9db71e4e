//! Erases a user's content, or a room, for `backscroll erase`: in one transaction, permanently.

pub(super) mod filter;

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use self::filter::Tombstones;
use super::{
    Error, Writer,
    derived::activity,
    encryption,
    event::row::StoredEvent,
    evidence,
    room::{self, Room, members},
    writer::{lock_room, lock_rooms, transaction::literal},
};
use crate::matrix::{Event, Uncommon, is_user_id, redact};

/// How many events one statement prunes.
const BATCH: i64 = 1000;

/// What to erase.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The content of all events that this user sent, and of their memberships.
    User(String),
    /// All rows of this room.
    Room(String),
}

/// The number of erased rows, by table.
pub type Erased = BTreeMap<String, u64>;

impl Writer {
    /// Erases, and stores a tombstone, so that no later response restores the content. A `dry_run` does the same and
    /// rolls it back, so that its counts are exact.
    ///
    /// # Errors
    /// [`Error::NoSuchRoom`] if the archive has no such room and it was not erased before; [`Error::NoSuchUser`] if
    /// the text is not a user id and no archived event has such a sender.
    pub(crate) async fn erase(&self, subject: &Subject, dry_run: bool) -> Result<Erased, Error> {
        let mut transaction = self.begin().await?;
        let erased = match subject {
            Subject::User(user_id) => erase_user(&mut transaction, user_id).await?,
            Subject::Room(room_id) => erase_room(&mut transaction, room_id).await?,
        };
        if dry_run {
            transaction.undo(None).await;
        } else {
            transaction.commit().await?;
        }
        Ok(erased)
    }
}

async fn erase_user(connection: &mut PgConnection, user_id: &str) -> Result<Erased, Error> {
    sqlx::query!("insert into archive.erasures (user_id) values ($1) on conflict do nothing", user_id)
        .execute(&mut *connection)
        .await?;
    let mut erased = Erased::new();
    let room_ids = sqlx::query_scalar!("select room_id from archive.rooms order by room_id")
        .fetch_all(&mut *connection)
        .await?;
    let room_ids: Vec<&str> = room_ids.iter().map(String::as_str).collect();
    lock_rooms(connection, &room_ids).await?;
    for room_id in room_ids {
        erase_user_in(connection, room_id, user_id, &mut erased).await?;
    }
    count(&mut erased, "stripped_state", forget_stripped(connection, user_id).await?);
    count(&mut erased, "quarantine", forget_quarantined(connection, user_id).await?);
    // Old servers accepted senders of any form. Every sender in the archive can be erased.
    if !is_user_id(user_id) && erased.values().all(|rows| *rows == 0) {
        return Err(Error::NoSuchUser(user_id.to_owned()));
    }
    Ok(erased)
}

/// Erases what one room has of a user, whose tombstone is there. The transaction must hold the room's lock.
async fn erase_user_in(
    connection: &mut PgConnection,
    room_id: &str,
    user_id: &str,
    erased: &mut Erased,
) -> Result<(), Error> {
    let room = room::get(connection, room_id).await?;
    count(erased, "evidence", evidence::forget_user(connection, &room, user_id).await?);
    count(erased, "originals", forget_originals(connection, &room, user_id).await?);
    count(erased, "unnamed_prev_content", forget_unnamed(connection, &room).await?);
    let members = with_their_names(connection, &room, user_id).await?;
    // This runs before the events lose their content, with which copies are recognised.
    count(erased, "events (prev_content)", prune_successors(connection, &room, user_id).await?);
    // What encrypted messages say, and their sessions, which only the content names.
    let sessions = encryption::sessions_of_user(connection, room_id, user_id).await?;
    count(erased, "decrypted_events", encryption::forget_user(connection, room_id, user_id).await?);
    count(erased, "events", prune_events(connection, &room, user_id).await?);
    count(erased, "megolm_sessions", encryption::erase_unneeded(connection, room_id, &sessions).await?);
    activity::recount(connection, room_id, user_id).await?;
    forget_searched(connection, &room, user_id).await?;
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    members::refresh(connection, room_id, &members).await?;
    return_threads(connection, &room, user_id).await?;
    Ok(())
}

/// Erases what an imported room has of a user.
pub(super) async fn erase_imported(
    connection: &mut PgConnection,
    room_id: &str,
    user_id: &str,
) -> Result<(), Error> {
    erase_user_in(connection, room_id, user_id, &mut Erased::new()).await?;
    forget_stripped(connection, user_id).await?;
    forget_quarantined(connection, user_id).await?;
    Ok(())
}

fn count(erased: &mut Erased, place: &str, rows: u64) {
    *erased.entry(place.to_owned()).or_default() += rows;
}

async fn forget_originals(connection: &mut PgConnection, room: &Room, user_id: &str) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "delete from archive.originals o using archive.events e
         where o.room_id = $1 and e.room_id = $1 and e.event_id = o.event_id
           and (e.sender = $2 or (e.type = 'm.room.member' and e.state_key = $2))",
        room.room_id,
        user_id
    )
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}

/// Removes `prev_content` that repeats the user's content according to `replaces_state`, or that may do so because
/// the archive does not have the replaced event.
async fn prune_successors(connection: &mut PgConnection, room: &Room, user_id: &str) -> Result<u64, Error> {
    let pruned = sqlx::query!(
        "update archive.events s set prev_content = null
         where s.room_id = $1 and s.prev_content is not null and s.state_key is not null
           and ((s.type = 'm.room.member' and s.state_key = $2)
                or not exists (
                    select from archive.events t
                    where t.room_id = $1 and t.event_id = s.replaces_state and t.sender <> $2))",
        room.room_id,
        user_id
    )
    .execute(connection)
    .await?;
    Ok(pruned.rows_affected())
}

/// Deletes rows that may repeat the user's content, because it is unknown whose content they have.
async fn forget_unnamed(connection: &mut PgConnection, room: &Room) -> Result<u64, Error> {
    let gone = sqlx::query!("delete from archive.unnamed_prev_content where room_id = $1", room.room_id);
    Ok(gone.execute(connection).await?.rows_affected())
}

/// Prunes the user's events as a redaction would, but for the relations of edits.
async fn prune_events(connection: &mut PgConnection, room: &Room, user_id: &str) -> Result<u64, Error> {
    let (mut last, mut erased) = (String::new(), 0);
    loop {
        let events = sqlx::query_as!(
            StoredEvent,
            r#"select event_id, type as event_type, sender, state_key, origin_server_ts, redacts, redacted_by,
                      relates_to, rel_type, content::text as "content!"
               from archive.events
               where room_id = $1 and event_id > $3
                 and (sender = $2 or (type = 'm.room.member' and state_key = $2))
               order by event_id limit $4"#,
            room.room_id,
            user_id,
            last,
            BATCH
        )
        .fetch_all(&mut *connection)
        .await?;
        let Some(end) = events.last() else { return Ok(erased) };
        last.clone_from(&end.event_id);
        let version = room.room_version.as_deref();
        let pruned = events
            .into_iter()
            .map(|row| redact::pruned_but_relation_of_edit(&room.room_id, version, &row.into_event()));
        erased += overwrite(connection, &room.room_id, pruned).await?;
    }
}

async fn overwrite(
    connection: &mut PgConnection,
    room_id: &str,
    pruned: impl Iterator<Item = Event>,
) -> Result<u64, Error> {
    let (mut event_ids, mut contents, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut messages, mut rel_types) = (Vec::new(), Vec::new());
    for event in pruned {
        let Uncommon { relates_to, rel_type, .. } = event.uncommon().clone();
        messages.push(relates_to);
        rel_types.push(rel_type);
        event_ids.push(event.event_id);
        contents.push(event.content);
        hashes.push(event.stable_sha256.to_vec());
    }
    let overwritten = sqlx::query!(
        "update archive.events e
         set content = pruned.content::jsonb, stable_sha256 = pruned.sha256, raw = null, relates_to = pruned.relates_to,
             rel_type = pruned.rel_type, thread_root = null, edited_by = null, edited_at = null, edit_count = null,
             edited_content = null
         from unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[])
              as pruned (event_id, content, sha256, relates_to, rel_type)
         where e.room_id = $1 and e.event_id = pruned.event_id
           and (e.content <> pruned.content::jsonb or num_nonnulls(e.raw, e.edited_by) > 0
                or (e.relates_to, e.rel_type) is distinct from (pruned.relates_to, pruned.rel_type))",
        room_id,
        &event_ids,
        &contents,
        &hashes,
        &messages as &[Option<String>],
        &rel_types as &[Option<String>]
    )
    .execute(connection)
    .await?;
    Ok(overwritten.rows_affected())
}

/// The members whose names may come from the user: themselves, those whose membership the user has set, and those of whom
/// another event repeats such a membership.
async fn with_their_names(
    connection: &mut PgConnection,
    room: &Room,
    user_id: &str,
) -> Result<Vec<String>, Error> {
    let members = sqlx::query_scalar!(
        r#"select distinct e.state_key as "state_key!" from archive.events e
           where e.room_id = $1 and e.type = 'm.room.member' and e.state_key is not null
             and (e.sender = $2 or e.state_key = $2
                  or (e.prev_content is not null
                      and not exists (
                          select from archive.events t
                          where t.room_id = $1 and t.event_id = e.replaces_state and t.sender <> $2)))"#,
        room.room_id,
        user_id
    );
    Ok(members.fetch_all(connection).await?)
}

/// The user's events relate to no other events any more, except edits, so they can begin threads.
async fn return_threads(connection: &mut PgConnection, room: &Room, user_id: &str) -> Result<(), Error> {
    sqlx::query!(
        "update archive.events r set thread_root = r.relates_to
         from archive.events root
         where r.room_id = $1 and r.rel_type = 'm.thread' and r.relates_to is not null and r.thread_root is null
           and root.room_id = $1 and root.event_id = r.relates_to and root.sender = $2 and root.rel_type is null",
        room.room_id,
        user_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes the user's messages from the search.
async fn forget_searched(connection: &mut PgConnection, room: &Room, user_id: &str) -> Result<(), Error> {
    // Apart from the call: a distributed database would call the function on the room's server.
    let positions = sqlx::query_scalar!(
        r#"select e.position as "position!" from archive.events e
           where archive.any_room(e.origin_server_ts)
             and e.room_id = $1 and e.sender = $2 and e.state_key is null and e.position is not null"#,
        room.room_id,
        user_id
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query!("select archive.forget_search($1, $2)", room.room_id, &positions)
        .execute(connection)
        .await?;
    Ok(())
}

async fn forget_stripped(connection: &mut PgConnection, user_id: &str) -> Result<u64, Error> {
    let gone = sqlx::query!(
        "delete from archive.stripped_state
         where sender = $1 or (type = 'm.room.member' and state_key = $1)",
        user_id
    )
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}

/// Deletes the rows in quarantine that name the user.
async fn forget_quarantined(connection: &mut PgConnection, user_id: &str) -> Result<u64, Error> {
    let erased_users = [user_id];
    let tombstone = Tombstones::of(&erased_users);
    let rows = sqlx::query!("select room_id, raw_sha256, raw from archive.quarantine")
        .fetch_all(&mut *connection)
        .await?;
    let theirs = rows.into_iter().filter(|row| tombstone.mentioned(&String::from_utf8_lossy(&row.raw)));
    let (room_ids, hashes): (Vec<_>, Vec<_>) = theirs.map(|row| (row.room_id, row.raw_sha256)).unzip();
    let gone = sqlx::query!(
        "delete from archive.quarantine q using unnest($1::text[], $2::bytea[]) as theirs (room_id, raw_sha256)
         where q.room_id = theirs.room_id and q.raw_sha256 = theirs.raw_sha256",
        &room_ids,
        &hashes
    )
    .execute(connection)
    .await?;
    Ok(gone.rows_affected())
}

/// Deletes the room's rows from every table.
async fn erase_room(connection: &mut PgConnection, room_id: &str) -> Result<Erased, Error> {
    let buried =
        sqlx::query!("insert into archive.erasures (room_id) values ($1) on conflict do nothing", room_id)
            .execute(&mut *connection)
            .await?;
    let Some(room) = room::find(connection, room_id).await? else {
        let unknown = buried.rows_affected() > 0;
        return if unknown { Err(Error::NoSuchRoom(room_id.to_owned())) } else { Ok(Erased::new()) };
    };
    lock_room(connection, &room.room_id).await?;
    let mut erased = Erased::new();
    for table in tables_of_rooms(connection).await? {
        let delete = format!("delete from archive.{table} where room_id = {}", literal(&room.room_id));
        let gone = sqlx::raw_sql(AssertSqlSafe(delete)).execute(&mut *connection).await?;
        count(&mut erased, &table, gone.rows_affected());
    }
    Ok(erased)
}

/// The tables with rows of rooms. They are read from the catalogue, so that a table of a later migration is included.
/// The operator's decisions about rooms are not among them.
async fn tables_of_rooms(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let tables = sqlx::query_scalar!(
        r#"select quote_ident(c.relname) as "table!"
           from pg_class c
           join pg_namespace n on n.oid = c.relnamespace
           join pg_attribute a on a.attrelid = c.oid
           where n.nspname = 'archive' and c.relkind in ('r', 'p') and a.attname = 'room_id' and not a.attisdropped
             and c.relname not in ('erasures', 'reader_rooms', 'room_choices')
           order by c.relname = 'rooms', c.relname"#
    )
    .fetch_all(connection)
    .await?;
    Ok(tables)
}
