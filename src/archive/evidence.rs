//! Events as their servers signed them, and the servers' keys, for third parties.
//!
//! Invariant: what a redaction or an erasure removes from an event is not in its row either. So both are
//! applied when a row is stored ([`Writer::keep_evidence`]) and when they come later ([`redact`],
//! [`forget_user`]).

use std::collections::HashSet;

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::{
    Archive, Error, Policy, Writer,
    erasure::filter::is_erased,
    room::{self, Room},
    writer::lock_room,
};
use crate::matrix::proof::{KeyResponse, SignedEvent};

impl Archive {
    /// The rooms that have an event with this id, at most two.
    pub(crate) async fn rooms_of_event(&self, event_id: &str) -> Result<Vec<String>, Error> {
        let rooms =
            sqlx::query_scalar!("select room_id from archive.events where event_id = $1 limit 2", event_id);
        Ok(rooms.fetch_all(&self.pool).await?)
    }

    /// The version of a room, if the archive knows it.
    pub(crate) async fn room_version(&self, room_id: &str) -> Result<Option<String>, Error> {
        let version =
            sqlx::query_scalar!("select room_version from archive.rooms where room_id = $1", room_id);
        Ok(version.fetch_optional(&self.pool).await?.flatten())
    }

    /// A kept event, as canonical JSON.
    pub(crate) async fn kept_evidence(&self, room_id: &str, event_id: &str) -> Result<Option<String>, Error> {
        let signed = sqlx::query_scalar!(
            "select signed from archive.evidence where room_id = $1 and event_id = $2",
            room_id,
            event_id
        );
        let signed = signed.fetch_optional(&self.pool).await?;
        Ok(signed.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// The kept lists of a server's keys.
    pub(crate) async fn kept_server_keys(&self, server_name: &str) -> Result<Vec<String>, Error> {
        let lists = sqlx::query_scalar!(
            "select distinct response from archive.server_keys where server_name = $1",
            server_name
        );
        Ok(lists.fetch_all(&self.pool).await?)
    }
}

/// An event as a row.
struct Row {
    event_id: String,
    sender: String,
    member: Option<String>,
    signed: Vec<u8>,
}

impl Row {
    fn of(event: &SignedEvent, is_covered: impl Fn(&Self) -> bool) -> Self {
        let text = |member| event.text(member).map(str::to_owned);
        let mut row = Self {
            event_id: event.event_id.clone(),
            sender: text("sender").unwrap_or_default(),
            member: text("state_key").filter(|_| event.text("type") == Some("m.room.member")),
            signed: Vec::new(),
        };
        let event = if is_covered(&row) { &event.pruned() } else { event };
        row.signed = event.canonical_json().into_bytes();
        row
    }
}

impl Writer {
    /// Stores events as signed, of a room that the archive has. Of an event that was redacted or erased, only
    /// what that leaves is stored. A row that there is stays. Returns how many are new.
    pub(crate) async fn keep_evidence(&self, room_id: &str, events: &[SignedEvent]) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, room_id).await?;
        let room = room::find(&mut transaction, room_id).await?;
        let Some(room) = room.filter(|_| !events.is_empty()) else {
            transaction.undo(None).await;
            return Ok(0);
        };
        if is_erased(&mut transaction, room_id).await? {
            transaction.undo(None).await;
            return Ok(0);
        }
        let redacted = redacted(&mut transaction, self.policy(), room_id, events).await?;
        let is_covered = |row: &Row| {
            let is_theirs = |user_id: &String| *user_id == row.sender || Some(user_id) == row.member.as_ref();
            redacted.contains(&row.event_id) || room.erased_users.iter().any(is_theirs)
        };
        // PostgreSQL's text has no NUL.
        let is_storable = |row: &Row| {
            let ids = [Some(&row.event_id), Some(&row.sender), row.member.as_ref()];
            !ids.into_iter().flatten().any(|id| id.contains('\0'))
        };
        let rows = events.iter().map(|event| Row::of(event, is_covered)).filter(is_storable);
        let rows: Vec<Row> = rows.collect();
        let column = |value: fn(&Row) -> &String| rows.iter().map(value).cloned().collect::<Vec<_>>();
        let (ids, senders) = (column(|row| &row.event_id), column(|row| &row.sender));
        let members: Vec<_> = rows.iter().map(|row| row.member.clone()).collect();
        let signed: Vec<_> = rows.iter().map(|row| row.signed.clone()).collect();
        let kept = sqlx::query!(
            "insert into archive.evidence (room_id, event_id, sender, member, signed)
             select $1, new.event_id, new.sender, new.member, new.signed
             from unnest($2::text[], $3::text[], $4::text[], $5::bytea[]) as new (event_id, sender, member, signed)
             on conflict do nothing",
            room_id,
            &ids,
            &senders,
            &members as &[Option<String>],
            &signed
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(kept.rows_affected())
    }

    /// Stores lists of servers' keys. Of a key that is in use, the list that is valid longest stays.
    pub(crate) async fn keep_server_keys(&self, lists: &[KeyResponse]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for list in lists {
            for (key_id, key) in &list.keys {
                sqlx::query!(
                    "insert into archive.server_keys as known
                         (server_name, key_id, public_key, valid_until_ts, is_expired, response)
                     values ($1, $2, $3, $4, $5, $6)
                     on conflict (server_name, key_id, public_key, is_expired) do update
                     set valid_until_ts = excluded.valid_until_ts, response = excluded.response, fetched_at = excluded.fetched_at
                     where known.valid_until_ts < excluded.valid_until_ts",
                    list.server_name,
                    key_id,
                    key.public_key.as_slice(),
                    key.valid_until,
                    key.is_expired,
                    list.canonical_json()
                )
                .execute(&mut *transaction)
                .await?;
            }
        }
        transaction.commit().await
    }
}

/// Those of `events` that were redacted, if that is honoured.
async fn redacted(
    connection: &mut PgConnection,
    policy: Policy,
    room_id: &str,
    events: &[SignedEvent],
) -> Result<HashSet<String>, Error> {
    if policy != Policy::Honour {
        return Ok(HashSet::new());
    }
    let ids: Vec<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
    let redacted = sqlx::query_scalar!(
        "select target_event_id from archive.redactions
         where room_id = $1 and target_event_id = any($2) and state <> 'refused'",
        room_id,
        &ids as &[&str]
    );
    Ok(redacted.fetch_all(connection).await?.into_iter().collect())
}

/// Removes from the rows of `targets` what their redaction removes.
pub(super) async fn redact(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    targets: &[&str],
) -> Result<(), Error> {
    if policy != Policy::Honour || targets.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        "select event_id, signed from archive.evidence where room_id = $1 and event_id = any($2)",
        room.room_id,
        targets as &[&str]
    );
    let rows = rows.fetch_all(&mut *connection).await?.into_iter().map(|row| (row.event_id, row.signed));
    prune(connection, room, rows.collect(), Spared::Create).await?;
    Ok(())
}

/// Removes from the rows of a user's events, and of their memberships, what an erasure removes. Returns how
/// many had it.
pub(super) async fn forget_user(
    connection: &mut PgConnection,
    room: &Room,
    user_id: &str,
) -> Result<u64, Error> {
    let rows = sqlx::query!(
        "select event_id, signed from archive.evidence where room_id = $1 and (sender = $2 or member = $2)",
        room.room_id,
        user_id
    );
    let rows = rows.fetch_all(&mut *connection).await?.into_iter().map(|row| (row.event_id, row.signed));
    prune(connection, room, rows.collect(), Spared::Nothing).await
}

/// What is not pruned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spared {
    Nothing,
    /// Create events, which no redaction redacts (P75).
    Create,
}

async fn prune(
    connection: &mut PgConnection,
    room: &Room,
    rows: Vec<(String, Vec<u8>)>,
    spared: Spared,
) -> Result<u64, Error> {
    let mut pruned = 0;
    for (event_id, signed) in rows {
        let left = left_of(room, signed.clone(), spared);
        if left.as_ref() == Some(&signed) {
            continue;
        }
        pruned += 1;
        match left {
            Some(left) => {
                sqlx::query!(
                    "update archive.evidence set signed = $3 where room_id = $1 and event_id = $2",
                    room.room_id,
                    event_id,
                    left
                )
                .execute(&mut *connection)
                .await?
            }
            None => {
                sqlx::query!(
                    "delete from archive.evidence where room_id = $1 and event_id = $2",
                    room.room_id,
                    event_id
                )
                .execute(&mut *connection)
                .await?
            }
        };
    }
    Ok(pruned)
}

/// What a redaction leaves of an event. `None`: that is not known.
fn left_of(room: &Room, signed: Vec<u8>, spared: Spared) -> Option<Vec<u8>> {
    let raw = RawValue::from_string(String::from_utf8(signed).ok()?).ok()?;
    let event = SignedEvent::read(&room.room_id, room.room_version.as_deref()?, &raw).ok()?;
    let is_spared = spared == Spared::Create && event.text("type") == Some("m.room.create");
    let left = if is_spared { event } else { event.pruned() };
    Some(left.canonical_json().into_bytes())
}
