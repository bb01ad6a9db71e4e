//! The rows of the rooms that a response reports.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;

use super::super::response::Response;
use crate::{
    archive::{
        Error,
        room::{self, Room},
        writer::lock_rooms,
    },
    matrix::{Membership, RoomUpdate, room_update::membership},
};

/// The rooms of a response and their locked rows.
pub(in crate::archive) struct Claimed<'a> {
    /// Ordered by key.
    pub(in crate::archive) update: Vec<(Room, &'a RoomUpdate)>,
    /// The rooms whose rows were inserted just now.
    pub(in crate::archive) made: HashSet<i32>,
}

/// Finds or inserts the rows of the rooms, and locks them. Erased rooms are left out.
pub(in crate::archive) async fn claim_rooms<'a>(
    connection: &mut PgConnection,
    response: &Response<'_>,
    update: &'a [RoomUpdate],
) -> Result<Claimed<'a>, Error> {
    let room_ids: Vec<String> = update.iter().map(|batch| batch.room_id.to_string()).collect();
    let known = room::keys(connection, &room_ids).await?;
    let mut lacking: BTreeMap<&str, Membership> = BTreeMap::new();
    for batch in update {
        if let Some((room_id, None)) = known.get_key_value(batch.room_id.as_str()) {
            let first = || membership(batch, &response.account.user_id);
            lacking.entry(room_id).or_insert_with(first);
        }
    }
    let room_ids: Vec<&str> = lacking.keys().copied().collect();
    let memberships: Vec<Membership> = lacking.values().copied().collect();
    let made = room::create_all(connection, &room_ids, &memberships).await?;
    let key = |batch: &RoomUpdate| {
        let room_id = batch.room_id.as_str();
        // A room without an entry was erased.
        (*known.get(room_id)?).or_else(|| made.get(room_id).copied())
    };
    let mut claimed: Vec<_> = update.iter().filter_map(|batch| Some((key(batch)?, batch))).collect();
    claimed.sort_by_key(|(room_key, _)| *room_key);
    let room_keys: Vec<i32> = claimed.iter().map(|(room_key, _)| *room_key).collect();
    // New rows need no lock: no other transaction can see them.
    let made: HashSet<i32> = made.into_values().collect();
    let shared: Vec<i32> = room_keys.iter().copied().filter(|room_key| !made.contains(room_key)).collect();
    lock_rooms(connection, &shared).await?;
    // Read after the lock, so that no other transaction can change them.
    let rooms = room::get_all(connection, &room_keys).await?;
    let update =
        claimed.into_iter().filter_map(|(key, batch)| Some((rooms.get(&key)?.clone(), batch))).collect();
    Ok(Claimed { update, made })
}
