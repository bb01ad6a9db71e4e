//! Changes to a walk that are not caused by a page: it begins at `since`, begins anew, is put off, stalls, or is
//! refused.

use std::time::Duration;

use super::{advance, save, schedule_rewalk};
use crate::{
    archive::{
        Error, HistoryState, Walk, WalkKind, WalkState, Writer,
        room::{self, history},
        timeline::position,
        writer::lock_room,
    },
    config::Backfill,
    matrix::Membership,
};

impl Writer {
    /// Records why the walk's last request failed, once for each reason.
    pub(crate) async fn note_failure(&self, walk: &Walk, error: &str) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.walks set last_error = $3
             where room_id = $1 and walk_id = $2 and last_error is distinct from $3",
            walk.room_id,
            walk.walk_id,
            error
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Puts the walk off for this time.
    pub(crate) async fn put_off(&self, walk: &Walk, pause: Duration) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query!(
            "update archive.walks set not_before = now() + make_interval(secs => $3)
             where room_id = $1 and walk_id = $2",
            walk.room_id,
            walk.walk_id,
            pause.as_secs_f64()
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Lets a walk [begin](Walk::begins_at_since) at the account's `since`, above all placed events and all gaps. Its
    /// position is stored with the first event. A walk that does not get that far begins again.
    pub(crate) async fn begin_at_since(&self, walk: &Walk) -> Result<Walk, Error> {
        let mut transaction = self.begin().await?;
        let begun = sqlx::query!(
            r#"update archive.walks w
               set from_token = case when w.from_token is not null or w.cursor is null then coalesce(a.since, w.from_token) end,
                   cursor = coalesce(a.since, w.cursor), known_pages = 0,
                   lower_reached = false, ends = 0, repeats = 0, landmark = null
               from (select since from archive.accounts order by account_key limit 1) a
               where w.room_id = $3 and w.walk_id = $1 and w.pages = $2 and w.upper_position is null and w.state = 'open'
               returning w.cursor, a.since is not null as "at_since!",
                         (select r.membership = 'join' from archive.rooms r where r.room_id = w.room_id) as "is_joined!",
                         (select max(e.position) from archive.events e where e.room_id = w.room_id) as newest,
                         (select max(g.upper_position) from archive.gaps g
                          where g.room_id = w.room_id and g.state <> 'closed') as upper_edge"#,
            walk.walk_id,
            walk.pages,
            walk.room_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let begun = begun.ok_or(Error::CheckpointMoved)?;
        // All events of a gap may have to be placed here, and just above the newest event there is not enough space.
        // The same holds for new events in a room that the account is not in, because no response reports them.
        let top = position::append(begun.newest, true).next().filter(|_| !begun.is_joined);
        let above = top.or(Some(position::just_above(begun.newest))).max(begun.upper_edge);
        let upper_position = if begun.at_since { above } else { walk.upper_position };
        Ok(Walk {
            cursor: begun.cursor,
            upper_position,
            known_pages: 0,
            lower_reached: false,
            ends: 0,
            repeats: 0,
            cycle_marker: None,
            ..walk.clone()
        })
    }

    /// Begins the walk anew at the newest event, because the server refuses its cursor. Events that are known already
    /// show where it is.
    pub(crate) async fn restart_walk(&self, walk: &Walk) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        let restarted = sqlx::query!(
            "update archive.walks
             set cursor = null, from_token = null, to_token = null, restarted = true, upper_position = null, landmark = null,
                 lower_reached = lower_reached and kind <> 'history', ends = 0, repeats = 0
             where room_id = $4 and walk_id = $1 and pages = $2 and cursor is not distinct from $3 and state = 'open'",
            walk.walk_id,
            walk.pages,
            walk.cursor,
            walk.room_id
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if restarted.rows_affected() == 1 { Ok(()) } else { Err(Error::CheckpointMoved) }
    }

    /// Ends the walk because the server refuses access to the room. What it has stored is kept, and a gap stays open.
    /// The account may get access again, so the room is walked again later.
    ///
    /// `None`: the walk ended. `Some`: retry, because the membership changed since `walk` was read, or `/sync` has
    /// not reported yet that the account is out of the room. `proven`: it ends in any case.
    pub(crate) async fn refuse_walk(
        &self,
        walk: &Walk,
        reason: &str,
        settings: &Backfill,
        proven: bool,
    ) -> Result<Option<Walk>, Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, &walk.room_id).await?;
        let membership = room::get(&mut transaction, &walk.room_id).await?.membership;
        if !proven && (membership == Membership::Join || membership != walk.membership) {
            transaction.undo(None).await;
            return Ok(Some(Walk { membership, ..walk.clone() }));
        }
        let mut refused = walk.clone();
        let mut pause_s = 0.0;
        if matches!(walk.kind, WalkKind::History | WalkKind::Rewalk) {
            refused.state = WalkState::Done;
            refused.last_error = Some(reason.to_owned());
        } else {
            pause_s = advance::stall(&mut transaction, &mut refused, reason, settings).await?;
        }
        if walk.kind == WalkKind::History {
            history::set(&mut transaction, &walk.room_id, HistoryState::Truncated, Some(reason)).await?;
        }
        save(&mut transaction, walk, &refused, Duration::ZERO, pause_s).await?;
        if refused.state == WalkState::Done {
            schedule_rewalk(&mut transaction, &refused, &settings.rewalk_after).await?;
        }
        transaction.commit().await?;
        Ok(None)
    }

    /// Marks the walk as stalled. Its retry delay grows each time. It resumes after the delay, when the daemon is
    /// restarted, or when the account returns to the room.
    pub(crate) async fn stall_walk(
        &self,
        walk: &Walk,
        reason: &str,
        settings: &Backfill,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        lock_room(&mut transaction, &walk.room_id).await?;
        let mut stalled = walk.clone();
        let pause_s = advance::stall(&mut transaction, &mut stalled, reason, settings).await?;
        save(&mut transaction, walk, &stalled, Duration::ZERO, pause_s).await?;
        transaction.commit().await?;
        Ok(())
    }
}
