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
    /// Ordered by room id.
    pub(in crate::archive) update: Vec<(Room, &'a RoomUpdate)>,
    /// The rooms whose rows were inserted just now.
    pub(in crate::archive) made: HashSet<&'a str>,
}

/// Finds or inserts the rows of the rooms, and locks them. Erased rooms are left out.
pub(in crate::archive) async fn claim_rooms<'a>(
    connection: &mut PgConnection,
    response: &Response<'_>,
    update: &'a [RoomUpdate],
) -> Result<Claimed<'a>, Error> {
    let room_ids: Vec<&str> = update.iter().map(|batch| batch.room_id.as_str()).collect();
    let known = room::have_rows(connection, &room_ids).await?;
    let mut lacking: BTreeMap<&'a str, Membership> = BTreeMap::new();
    for batch in update {
        let room_id = batch.room_id.as_str();
        if known.get(room_id) == Some(&false) {
            let first = || membership(batch, &response.account.user_id);
            lacking.entry(room_id).or_insert_with(first);
        }
    }
    let room_ids: Vec<&str> = lacking.keys().copied().collect();
    let memberships: Vec<Membership> = lacking.values().copied().collect();
    room::create_all(connection, &room_ids, &memberships).await?;
    // A room without an entry was erased.
    let mut claimed: Vec<_> =
        update.iter().filter(|batch| known.contains_key(batch.room_id.as_str())).collect();
    claimed.sort_by_key(|batch| batch.room_id.as_str());
    let room_ids: Vec<&str> = claimed.iter().map(|batch| batch.room_id.as_str()).collect();
    // New rows need no lock: no other transaction can see them.
    let made: HashSet<&str> = lacking.into_keys().collect();
    let shared: Vec<&str> = room_ids.iter().copied().filter(|room_id| !made.contains(room_id)).collect();
    lock_rooms(connection, &shared).await?;
    // Read after the lock, so that no other transaction can change them.
    let rooms = room::get_all(connection, &room_ids).await?;
    let row = |batch: &RoomUpdate| rooms.get(batch.room_id.as_str()).cloned();
    let update = claimed.into_iter().filter_map(|batch| Some((row(batch)?, batch))).collect();
    Ok(Claimed { update, made })
}
