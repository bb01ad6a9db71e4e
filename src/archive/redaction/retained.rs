//! Deletes from quarantine what `redactions.policy = "retain"` has kept, once the policy is `honour`, because such
//! text cannot be pruned. Rows in `archive.originals` stay, as documented.

use crate::{
    archive::{Error, Policy, Writer},
    matrix::event_ids,
};

/// How many rows one transaction checks. A row can be large.
const BATCH: i64 = 50;

impl Writer {
    /// Checks a part of the quarantine and deletes rows of redacted events. Returns their number. Call it until it
    /// returns `None`. A part that was checked stays checked.
    pub(crate) async fn forget_retained(&self) -> Result<Option<u64>, Error> {
        if self.policy() != Policy::Honour {
            return Ok(None);
        }
        let mut transaction = self.begin().await?;
        let unread = sqlx::query!(
            "select room_id, raw_sha256, raw from archive.quarantine where event_ids is null limit $1",
            BATCH
        )
        .fetch_all(&mut *transaction)
        .await?;
        if !unread.is_empty() {
            for row in unread {
                let event_ids = str::from_utf8(&row.raw).map(event_ids::event_ids).unwrap_or_default();
                sqlx::query!(
                    "update archive.quarantine set event_ids = $3 where room_id = $1 and raw_sha256 = $2",
                    row.room_id,
                    row.raw_sha256,
                    &event_ids
                )
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            return Ok(Some(0));
        }
        let concerned = sqlx::query!(
            "select distinct q.room_id, q.raw_sha256 from archive.quarantine q
             join archive.redactions r on r.room_id = q.room_id and r.target_event_id = any (q.event_ids)
             where r.state <> 'refused'
             limit $1",
            BATCH
        )
        .fetch_all(&mut *transaction)
        .await?;
        let (room_ids, hashes): (Vec<String>, Vec<Vec<u8>>) =
            concerned.into_iter().map(|row| (row.room_id, row.raw_sha256)).unzip();
        let gone = sqlx::query!(
            "delete from archive.quarantine q using unnest($1::text[], $2::bytea[]) as theirs (room_id, raw_sha256)
             where q.room_id = theirs.room_id and q.raw_sha256 = theirs.raw_sha256",
            &room_ids,
            &hashes
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        transaction.commit().await?;
        Ok((gone > 0).then_some(gone))
    }
}
