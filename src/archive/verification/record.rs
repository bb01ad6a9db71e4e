//! Keeps the results of verifications.

use std::time::Duration;

use super::{Finding, Running};
use crate::archive::{Archive, Error, Writer};

/// The result of verifying a room. The texts are those that the comments of `archive.verifications` list.
#[derive(Debug)]
pub(crate) struct Recorded<'r> {
    pub(crate) room_id: &'r str,
    pub(crate) level: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) event_count: i64,
    pub(crate) listed_count: i64,
    pub(crate) only_here_count: i64,
    pub(crate) finding_count: i64,
    pub(crate) findings: &'r [Finding],
    pub(crate) notes: &'r [String],
    pub(crate) seconds: f64,
    /// Whether the room agrees with the homeserver.
    pub(crate) is_good: bool,
}

impl Archive {
    /// The room whose last recorded verification is the longest ago, and longer than `every`. Only rooms that the account
    /// is in, and whose history is archived as far as it can be.
    pub(crate) async fn room_due_for_verification(&self, every: Duration) -> Result<Option<String>, Error> {
        let due = sqlx::query_scalar!(
            "select r.room_id
             from archive.rooms r
             left join lateral (
                 select v.ended_at from archive.verifications v
                 where v.room_id = r.room_id order by v.ended_at desc limit 1
             ) last on true
             where r.watched and r.membership = 'join' and r.history_state in ('complete', 'truncated')
               and (last.ended_at is null or last.ended_at < now() - $1 * interval '1 second')
             order by last.ended_at nulls first, r.room_id
             limit 1",
            every.as_secs_f64()
        );
        Ok(due.fetch_optional(&self.pool).await?)
    }
}

impl Writer {
    /// Stores which events the homeserver lists no more. `asked`: those that it was asked for, and the reason; `None`: it
    /// has them, or they are findings.
    pub(crate) async fn record_only_here(
        &self,
        running: &Running,
        asked: &[(String, Option<&'static str>)],
    ) -> Result<(), Error> {
        let (event_ids, reasons): (Vec<&str>, Vec<Option<&str>>) =
            asked.iter().map(|(event_id, reason)| (event_id.as_str(), *reason)).unzip();
        let mut transaction = self.begin_in_room(&running.room_id).await?;
        sqlx::query!("delete from archive.only_here where room_id = $1", running.room_id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "insert into archive.only_here (room_id, event_id, reason)
             select $1, e.event_id, case when a.event_id is null then 'not asked' else a.reason end
             from archive.events e
             left join unnest($4::text[], $5::text[]) as a (event_id, reason) on a.event_id = e.event_id
             where e.room_id = $1 and e.position <= $3 and (a.event_id is null or a.reason is not null)
               and not exists (select from archive.verified_events v
                               where v.room_id = $1 and v.verification_id = $2 and v.event_id = e.event_id)",
            running.room_id,
            running.id,
            running.top,
            &event_ids as &[&str],
            &reasons as &[Option<&str>]
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Stores a result.
    pub(crate) async fn record_verification(&self, result: &Recorded<'_>) -> Result<(), Error> {
        let findings = serde_json::to_value(result.findings).unwrap_or_default().to_string();
        let mut transaction = self.begin_in_room(result.room_id).await?;
        let root = sqlx::query_scalar!(
            "select chain from archive.seals where room_id = $1 order by seal_id desc limit 1",
            result.room_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query!(
            "insert into archive.verifications (room_id, level, verdict, event_count, listed_count, only_here_count,
                                                finding_count, findings, notes, started_at, root)
             values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, now() - $10 * interval '1 second', $11)",
            result.room_id,
            result.level,
            result.verdict,
            result.event_count,
            result.listed_count,
            result.only_here_count,
            result.finding_count,
            findings,
            result.notes,
            result.seconds,
            root
        )
        .execute(&mut *transaction)
        .await?;
        if result.is_good {
            sqlx::query!("update archive.rooms set verified_at = now() where room_id = $1", result.room_id)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
