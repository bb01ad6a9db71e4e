//! Compares what the homeserver lists with the archive, page by page. The ids that were listed are in
//! `archive.verified_events`, because a room may have millions.

use std::collections::HashMap;

use super::VerifiedRoom;
use crate::archive::{Archive, Error};

/// A verification of one room that is under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) id: i64,
    pub(super) room_id: String,
    /// The highest position when it began. What is above came later.
    pub(super) top: Option<i64>,
    /// How many events were listed, those that were listed twice included.
    listed: i64,
}

/// An event that the homeserver lists.
#[derive(Clone, Debug)]
pub(crate) struct Listed<'e> {
    pub(crate) event_id: &'e str,
    pub(crate) is_message: bool,
}

/// The archive's copy of an event.
#[derive(Clone, Debug)]
pub(crate) struct StoredCopy {
    pub(crate) event_id: String,
    pub(crate) position: Option<i64>,
    pub(crate) stable_sha256: Vec<u8>,
    pub(crate) redacted_by: Option<String>,
    /// Whether its sender, or the user whose membership it is, was erased.
    pub(crate) is_erased: bool,
}

/// An archived event that the homeserver does not list.
#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub(crate) event_id: String,
    pub(crate) is_redacted: bool,
    /// Whether it is older than the room's `m.room.retention` allows.
    pub(crate) is_expired: bool,
    /// Whether a message that is older is listed. Then a purge of the history is not the reason.
    pub(crate) is_above_a_message: bool,
}

/// The ancestors that were not listed.
#[derive(Clone, Debug, Default)]
pub(crate) struct AncestorsLeft {
    /// Ancestor and the event that names it; not all, if they are many.
    pub(crate) some: Vec<(String, String)>,
    pub(crate) count: i64,
}

/// How many rows of a kind are read at most.
pub(crate) const MOST: i64 = 1000;

impl Running {
    /// How many events were listed, those that were listed twice included.
    pub(crate) fn listed(&self) -> i64 {
        self.listed
    }
}

impl Archive {
    /// Begins the verification of a room.
    pub(crate) async fn begin_verification(&self, room: &VerifiedRoom) -> Result<Running, Error> {
        sqlx::query!(
            "with dead as (
                 delete from archive.running_verifications where touched_at < now() - interval '1 day'
                 returning room_id, verification_id
             ), events as (
                 delete from archive.verified_events v using dead d
                 where v.room_id = d.room_id and v.verification_id = d.verification_id
             )
             delete from archive.verified_ancestors v using dead d
             where v.room_id = d.room_id and v.verification_id = d.verification_id"
        )
        .execute(&self.pool)
        .await?;
        let id = sqlx::query_scalar!(
            "insert into archive.running_verifications (room_id) values ($1) returning verification_id",
            room.room_id
        )
        .fetch_one(&self.pool)
        .await?;
        let top =
            sqlx::query_scalar!("select max(position) from archive.events where room_id = $1", room.room_id)
                .fetch_one(&self.pool)
                .await?;
        Ok(Running { id, room_id: room.room_id.clone(), top, listed: 0 })
    }

    /// Notes the next events that the homeserver lists, newest first. Returns the archive's copies of them.
    pub(crate) async fn note_listed(
        &self,
        running: &mut Running,
        events: &[Listed<'_>],
    ) -> Result<HashMap<String, StoredCopy>, Error> {
        let (event_ids, are_messages): (Vec<&str>, Vec<bool>) =
            events.iter().map(|event| (event.event_id, event.is_message)).unzip();
        let copies = sqlx::query_as!(
            StoredCopy,
            r#"with found as materialized (
                   select asked.event_id as listed_id, asked.is_message, asked.place, e.event_id, e.position, e.stable_sha256,
                          e.redacted_by, e.sender, case when e.type = 'm.room.member' then e.state_key end as member
                   from unnest($3::text[], $4::boolean[]) with ordinality as asked (event_id, is_message, place)
                   -- Lateral with a limit: one look-up in the primary key for each id, whatever the statistics are.
                   left join lateral (
                       select * from archive.events e where e.room_id = $1 and e.event_id = asked.event_id limit 1
                   ) e on true
               ), kept as (
                   insert into archive.verified_events (room_id, verification_id, event_id, rank, position, is_message)
                   select $1, $2, listed_id, $5 + place, position, is_message from found
                   on conflict do nothing
               ), touched as (
                   update archive.running_verifications set touched_at = now() where room_id = $1 and verification_id = $2
               )
               select event_id as "event_id!", position, stable_sha256 as "stable_sha256!", redacted_by,
                      exists (select from archive.erasures x where x.user_id in (sender, member)) as "is_erased!"
               from found where event_id is not null"#,
            running.room_id,
            running.id,
            &event_ids as &[&str],
            &are_messages,
            running.listed
        )
        .fetch_all(&self.pool)
        .await?;
        running.listed += i64::try_from(events.len()).unwrap_or(i64::MAX);
        Ok(copies.into_iter().map(|copy| (copy.event_id.clone(), copy)).collect())
    }

    /// How many events were listed, each counted once.
    pub(crate) async fn listed_count(&self, running: &Running) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from archive.verified_events where room_id = $1 and verification_id = $2"#,
            running.room_id,
            running.id
        );
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// The archive's copy of an event.
    pub(crate) async fn stored_copy(
        &self,
        room_id: &str,
        event_id: &str,
    ) -> Result<Option<StoredCopy>, Error> {
        let copy = sqlx::query_as!(
            StoredCopy,
            r#"select e.event_id, e.position, e.stable_sha256, e.redacted_by,
                      exists (select from archive.erasures x
                              where x.user_id = e.sender
                                 or (e.type = 'm.room.member' and x.user_id = e.state_key)) as "is_erased!"
               from archive.events e where e.room_id = $1 and e.event_id = $2"#,
            room_id,
            event_id
        );
        Ok(copy.fetch_optional(&self.pool).await?)
    }

    /// Some events of a room, spread evenly over its order.
    pub(crate) async fn some_events(&self, room_id: &str, most: i32) -> Result<Vec<String>, Error> {
        // A random position, because the numbers of events would have to be counted.
        let some = sqlx::query_scalar!(
            r#"with ends as (
                   select min(position)::float8 as bottom, max(position)::float8 as top
                   from archive.events where room_id = $1)
               select distinct e.event_id as "event_id!"
               from ends cross join generate_series(1, $2) n
               cross join lateral (
                   select x.event_id from archive.events x
                   where x.room_id = $1
                     and x.position >= (ends.bottom + (ends.top - ends.bottom) * (n - random()) / $2)::bigint
                   order by x.position limit 1) e"#,
            room_id,
            most
        );
        Ok(some.fetch_all(&self.pool).await?)
    }

    /// Some times in milliseconds since 1970 between the first and the last event of a room.
    pub(crate) async fn some_times(&self, room_id: &str, most: i32) -> Result<Vec<i64>, Error> {
        let some = sqlx::query_scalar!(
            r#"with ends as (
                   select extract(epoch from min(sent_at))::float8 * 1000 as first,
                          extract(epoch from max(sent_at))::float8 * 1000 as last
                   from archive.events where room_id = $1)
               select (ends.first + (ends.last - ends.first) * (n - random()) / $2)::bigint as "time!"
               from ends cross join generate_series(1, $2) n where ends.first is not null"#,
            room_id,
            most
        );
        Ok(some.fetch_all(&self.pool).await?)
    }

    /// Notes ancestors that were not met yet, each with an event that names it.
    pub(crate) async fn note_ancestors(
        &self,
        running: &Running,
        ancestors: &HashMap<String, (String, Option<i64>)>,
    ) -> Result<(), Error> {
        let (event_ids, descendants): (Vec<&str>, Vec<&str>) = ancestors
            .iter()
            .map(|(event_id, (descendant, _))| (event_id.as_str(), descendant.as_str()))
            .unzip();
        sqlx::query!(
            "insert into archive.verified_ancestors (room_id, verification_id, event_id, descendant_id)
             select $1, $2, event_id, descendant_id from unnest($3::text[], $4::text[]) as a (event_id, descendant_id)
             on conflict do nothing",
            running.room_id,
            running.id,
            &event_ids as &[&str],
            &descendants as &[&str]
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The noted ancestors that the homeserver has not listed.
    pub(crate) async fn ancestors_left(&self, running: &Running) -> Result<AncestorsLeft, Error> {
        let rows = sqlx::query!(
            r#"select a.event_id, a.descendant_id, count(*) over () as "count!"
               from archive.verified_ancestors a
               where a.room_id = $1 and a.verification_id = $2
                 and not exists (select from archive.verified_events v
                                 where v.room_id = $1 and v.verification_id = $2 and v.event_id = a.event_id)
               order by a.event_id
               limit $3"#,
            running.room_id,
            running.id,
            MOST
        )
        .fetch_all(&self.pool)
        .await?;
        let count = rows.first().map_or(0, |row| row.count);
        Ok(AncestorsLeft {
            some: rows.into_iter().map(|row| (row.event_id, row.descendant_id)).collect(),
            count,
        })
    }

    /// The events that the archive has in another place of the order than the homeserver: id, place in the
    /// homeserver's order, and position; in the homeserver's order.
    pub(crate) async fn displaced(&self, running: &Running) -> Result<Vec<(String, i64, i64)>, Error> {
        let rows = sqlx::query!(
            r#"select event_id, by_server as "by_server!", position as "position!"
               from (
                   select event_id, position, row_number() over (order by rank) as by_server,
                          row_number() over (order by position desc) as by_archive
                   from archive.verified_events
                   where room_id = $1 and verification_id = $2 and position is not null
               ) placed
               where by_server <> by_archive
               order by by_server
               limit $3"#,
            running.room_id,
            running.id,
            MOST * 20
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.event_id, row.by_server, row.position)).collect())
    }

    /// The archived events that the homeserver has not listed, newest first, and their number. Not all, if they are
    /// many. `is_part`: the homeserver has listed only the newest events.
    pub(crate) async fn extras(&self, running: &Running, is_part: bool) -> Result<(Vec<Extra>, i64), Error> {
        let rows = sqlx::query!(
            r#"select e.event_id, e.redacted_by is not null as "is_redacted!", count(*) over () as "count!",
                      exists (select from archive.verified_events v
                              where v.room_id = $1 and v.verification_id = $2 and v.is_message
                                and v.position < e.position) as "is_above_a_message!",
                      exists (select from archive.current_state c
                              join archive.events s on s.room_id = $1 and s.event_id = c.event_id
                              where c.room_id = $1 and c.type = 'm.room.retention' and c.state_key = ''
                                and jsonb_typeof(s.content -> 'max_lifetime') = 'number'
                                and e.origin_server_ts
                                    < extract(epoch from now()) * 1000 - (s.content -> 'max_lifetime')::numeric)
                      as "is_expired!"
               from archive.events e
               where e.room_id = $1 and e.position <= $3
                 and (not $5 or e.position >= (select min(v.position) from archive.verified_events v
                                               where v.room_id = $1 and v.verification_id = $2))
                 and not exists (select from archive.verified_events v
                                 where v.room_id = $1 and v.verification_id = $2 and v.event_id = e.event_id)
               order by e.position desc
               limit $4"#,
            running.room_id,
            running.id,
            running.top,
            MOST,
            is_part
        )
        .fetch_all(&self.pool)
        .await?;
        let count = rows.first().map_or(0, |row| row.count);
        let extra = rows.into_iter().map(|row| Extra {
            event_id: row.event_id,
            is_redacted: row.is_redacted,
            is_expired: row.is_expired,
            is_above_a_message: row.is_above_a_message,
        });
        Ok((extra.collect(), count))
    }

    /// The room's current state: (type, state key) and event id.
    pub(crate) async fn state_to_verify(
        &self,
        room_id: &str,
    ) -> Result<HashMap<(String, String), String>, Error> {
        let rows = sqlx::query!(
            "select type as event_type, state_key, event_id from archive.current_state where room_id = $1",
            room_id
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| ((row.event_type, row.state_key), row.event_id)).collect())
    }

    /// Deletes what a verification has noted.
    pub(crate) async fn end_verification(&self, running: &Running) -> Result<(), Error> {
        sqlx::query!(
            "with events as (
                 delete from archive.verified_events where room_id = $1 and verification_id = $2
             ), ancestors as (
                 delete from archive.verified_ancestors where room_id = $1 and verification_id = $2
             )
             delete from archive.running_verifications where room_id = $1 and verification_id = $2",
            running.room_id,
            running.id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Of the events in another place, those that have to move so that the others are in order. `displaced`: see
/// [`Archive::displaced`].
pub(crate) fn moved(displaced: &[(String, i64, i64)]) -> Vec<&str> {
    let mut moved = Vec::new();
    let mut rest = displaced;
    while let Some(first) = rest.first() {
        // A block of places without others in between.
        let length = rest
            .iter()
            .zip(first.1..)
            .take_while(|((_, by_server, _), expected)| by_server == expected)
            .count();
        let (block, after) = rest.split_at(length);
        moved.extend(moved_in(block));
        rest = after;
    }
    moved
}

/// All that are not in the longest part with falling positions. Of two that were swapped, both.
fn moved_in(block: &[(String, i64, i64)]) -> Vec<&str> {
    if block.len() <= 2 {
        return block.iter().map(|(event_id, ..)| event_id.as_str()).collect();
    }
    // The ends of the best falling parts of each length (patience sorting), as indices.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(block.len());
    let position = |index: usize| block.get(index).map(|(_, _, position)| *position);
    for (index, (_, _, here)) in block.iter().enumerate() {
        let length = ends.partition_point(|&end| position(end) > Some(*here));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut stays = vec![false; block.len()];
    let mut at = ends.last().copied();
    while let Some(index) = at {
        if let Some(stays) = stays.get_mut(index) {
            *stays = true;
        }
        at = before.get(index).copied().flatten();
    }
    block.iter().zip(stays).filter(|(_, stays)| !stays).map(|((event_id, ..), _)| event_id.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn displaced(positions: &[(i64, i64)]) -> Vec<(String, i64, i64)> {
        positions.iter().map(|(place, position)| (format!("${position}"), *place, *position)).collect()
    }

    #[test]
    fn what_was_moved_is_named_and_nothing_else() {
        assert_eq!(moved(&displaced(&[(4, 7), (5, 8)])), ["$7", "$8"]);
        // Swapped from afar.
        assert_eq!(moved(&displaced(&[(1, 3), (2, 9), (3, 8), (4, 7), (5, 10)])), ["$3", "$10"]);
        // One that came late.
        assert_eq!(moved(&displaced(&[(1, 6), (2, 5), (3, 4), (4, 9)])), ["$9"]);
        assert_eq!(moved(&displaced(&[(1, 1), (2, 2), (9, 6), (10, 5), (11, 9)])), ["$1", "$2", "$9"]);
        assert!(moved(&[]).is_empty());
    }
}
