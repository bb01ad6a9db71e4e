//! Parts of responses that could not be read. They are kept byte for byte until they are redacted or erased.

use foldhash::HashSet;
use sqlx::PgConnection;

use crate::{
    archive::{Error, Policy, erasure::filter::Tombstones, room::Room},
    matrix::Malformed,
};

use super::lookup;

/// The most parts that are stored with one statement. A response may have thousands.
const AT_ONCE: usize = 1_000;
/// The most bytes of several parts that are stored with one statement.
const BYTES_AT_ONCE: usize = 8 << 20;

/// A part to store.
struct Part<'m> {
    malformed: &'m Malformed,
    event_ids: Vec<String>,
}

impl<'m> Part<'m> {
    fn of(malformed: &'m Malformed) -> Self {
        Self { malformed, event_ids: malformed.event_ids() }
    }
}

/// Stores unreadable parts of a room, unless they concern an erased user or were redacted.
pub(in crate::archive) async fn keep(
    connection: &mut PgConnection,
    policy: Policy,
    room: &Room,
    malformed: &[Malformed],
) -> Result<(), Error> {
    let tombstones = Tombstones::of(&room.erased_users);
    let mut reasons = Vec::new();
    for portion in portions(malformed) {
        let mut parts: Vec<_> = portion.into_iter().map(Part::of).collect();
        if policy == Policy::Honour {
            let all: Vec<&str> = parts.iter().flat_map(|part| &part.event_ids).map(String::as_str).collect();
            let redactions = lookup::recorded(connection, &room.room_id, &all).await?;
            parts.retain(|part| !part.event_ids.iter().any(|event_id| redactions.contains_key(event_id)));
        }
        parts.retain(|part| !tombstones.mentioned(&part.malformed.raw));
        reasons.extend(insert(connection, &room.room_id, &parts).await?);
    }
    warn(&room.room_id, &reasons);
    Ok(())
}

/// The same for parts that belong to no room.
pub(in crate::archive) async fn keep_roomless(
    connection: &mut PgConnection,
    malformed: &[Malformed],
) -> Result<(), Error> {
    if malformed.is_empty() {
        return Ok(());
    }
    let erased_users = sqlx::query_scalar!(
        r#"select user_id as "user_id!" from archive.erasures where user_id is not null"#
    );
    let erased_users = erased_users.fetch_all(&mut *connection).await?;
    let tombstones = Tombstones::of(&erased_users);
    let mut reasons = Vec::new();
    for portion in portions(malformed) {
        let kept = portion.into_iter().filter(|bad| !tombstones.mentioned(&bad.raw));
        let parts: Vec<_> = kept.map(Part::of).collect();
        reasons.extend(insert(connection, NO_ROOM, &parts).await?);
    }
    warn(NO_ROOM, &reasons);
    Ok(())
}

/// The parts, each once, in portions that are stored together.
fn portions(malformed: &[Malformed]) -> Vec<Vec<&Malformed>> {
    let mut seen = HashSet::default();
    let mut portions: Vec<Vec<&Malformed>> = Vec::new();
    let mut bytes = 0;
    for bad in malformed.iter().filter(|bad| seen.insert(bad.own_sha256)) {
        bytes += bad.raw.len();
        match portions.last_mut() {
            Some(portion) if portion.len() < AT_ONCE && bytes <= BYTES_AT_ONCE => portion.push(bad),
            _ => {
                bytes = bad.raw.len();
                portions.push(vec![bad]);
            }
        }
    }
    portions
}

/// The room of parts that belong to no room.
const NO_ROOM: &str = "";

/// Returns the reasons of those that were not stored before.
async fn insert(
    connection: &mut PgConnection,
    room_id: &str,
    parts: &[Part<'_>],
) -> Result<Vec<String>, Error> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let raws: Vec<&[u8]> = parts.iter().map(|part| part.malformed.raw.as_bytes()).collect();
    let hashes: Vec<&[u8]> = parts.iter().map(|part| part.malformed.own_sha256.as_slice()).collect();
    let reasons: Vec<&str> = parts.iter().map(|part| part.malformed.reason).collect();
    // PostgreSQL has no arrays of arrays of different lengths, so the ids of each part are a JSON array.
    let event_ids: Vec<String> =
        parts.iter().map(|part| serde_json::Value::from(part.event_ids.as_slice()).to_string()).collect();
    let reasons = sqlx::query_scalar!(
        "insert into archive.quarantine (room_id, raw, raw_sha256, reason, event_ids)
         select $1, part.raw, part.raw_sha256, part.reason, array(select json_array_elements_text(part.event_ids::json))
         from unnest($2::bytea[], $3::bytea[], $4::text[], $5::text[]) as part (raw, raw_sha256, reason, event_ids)
         on conflict do nothing
         returning reason",
        room_id,
        &raws as &[&[u8]],
        &hashes as &[&[u8]],
        &reasons as &[&str],
        &event_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(reasons)
}

fn warn(room_id: &str, reasons: &[String]) {
    if let Some(reason) = reasons.first() {
        tracing::warn!(
            room.id = Some(room_id).filter(|room_id| *room_id != NO_ROOM),
            part_count = reasons.len(),
            reason,
            "parts of a response could not be read; quarantined"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(number: usize, bytes: usize) -> Malformed {
        let mut own_sha256 = [0; 32];
        own_sha256[..8].copy_from_slice(&number.to_be_bytes());
        Malformed { raw: "7".repeat(bytes).into(), own_sha256, reason: "not an object" }
    }

    fn lengths(malformed: &[Malformed]) -> Vec<usize> {
        portions(malformed).iter().map(Vec::len).collect()
    }

    #[test]
    fn each_part_is_stored_once_in_portions() {
        let all: Vec<_> = (0..5_000).map(|number| malformed(number % 2_500, 1)).collect();
        assert_eq!(lengths(&all), [1_000, 1_000, 500]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn large_parts_are_stored_in_smaller_portions() {
        let sizes = [BYTES_AT_ONCE - 1, 1, 1, BYTES_AT_ONCE + 1, 1];
        let all: Vec<_> =
            sizes.into_iter().enumerate().map(|(number, bytes)| malformed(number, bytes)).collect();
        assert_eq!(lengths(&all), [2, 1, 1, 1]);
    }
}
