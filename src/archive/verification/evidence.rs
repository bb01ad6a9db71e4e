//! Kept evidence, compared with itself.

use futures_util::TryStreamExt as _;
use serde_json::value::RawValue;

use super::Finding;
use crate::{
    archive::{Archive, Error},
    matrix::proof::{SignedEvent, Unproved},
};

const KIND: &str = "evidence does not fit the event";

/// A row of `archive.evidence`.
struct Row {
    room_id: String,
    event_id: String,
    sender: String,
    member: Option<String>,
    signed: Vec<u8>,
    room_version: Option<String>,
}

impl Archive {
    /// Compares the kept evidence of these rooms with its ids and hashes. `None`: of all rooms. `found` gets the room of
    /// each finding.
    pub(crate) async fn check_evidence(
        &self,
        room_ids: Option<&[String]>,
        found: impl Fn(&str, Finding),
    ) -> Result<(), Error> {
        let mut rows = sqlx::query_as!(
            Row,
            r#"select v.room_id as "room_id!", v.event_id as "event_id!", v.sender as "sender!", v.member,
                      v.signed as "signed!", r.room_version as "room_version?"
               from archive.evidence v
               left join archive.rooms r on r.room_id = v.room_id
               where $1::text[] is null or v.room_id = any($1)"#,
            room_ids
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            if let Some(detail) = row.wrong() {
                found(&row.room_id, Finding::new(KIND, &row.event_id, Some(detail)));
            }
        }
        Ok(())
    }
}

impl Row {
    /// What is wrong with the row.
    fn wrong(&self) -> Option<String> {
        let Ok(raw) = serde_json::from_slice::<Box<RawValue>>(&self.signed) else {
            return Some("it is not JSON".to_owned());
        };
        let version = self.room_version.as_deref().unwrap_or_default();
        let event = match SignedEvent::read(&self.room_id, version, &raw) {
            // Its rules are not known, or not any more.
            Err(Unproved::UnknownRoomVersion) => return None,
            Err(error) => return Some(error.to_string()),
            Ok(event) => event,
        };
        let event_type = event.text("type");
        let member = event.text("state_key").filter(|_| event_type == Some("m.room.member"));
        // The target of a redaction may have been written into it by the homeserver.
        let fits = event.content_hash_fits() || event.is_pruned() || event_type == Some("m.room.redaction");
        if event.event_id != self.event_id {
            Some(format!("it is of {}", event.event_id))
        } else if event.text("sender") != Some(&self.sender) || member != self.member.as_deref() {
            Some("it is of another user".to_owned())
        } else {
            (!fits).then(|| "its content hash does not fit its content".to_owned())
        }
    }
}
