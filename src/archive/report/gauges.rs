//! The metrics of the archive. They are queried only when `/metrics` is read.

use crate::{
    archive::{Archive, Error, HistoryState, WalkState},
    telemetry::metrics::Gauges,
};

impl Archive {
    /// The current values.
    pub(crate) async fn gauges(&self) -> Result<Gauges, Error> {
        let whole = sqlx::query!(
            r#"select (select extract(epoch from now() - synced_at)::float8 from archive.accounts limit 1) as synced_ago_s,
                      pg_database_size(current_database()) as "database_bytes!",
                      (select count(*) from archive.gaps where state = 'open') as "open_gaps!",
                      (select coalesce(sum(l.finding_count), 0)::bigint
                       from (select distinct on (v.room_id) v.finding_count from archive.verifications v
                             order by v.room_id, v.ended_at desc) l) as "findings!",
                      (select extract(epoch from now() - min(r.verified_at))::float8 from archive.rooms r
                       where r.watched and r.membership = 'join') as verified_ago_s"#
        )
        .fetch_one(&self.pool)
        .await?;
        let search = self.search_lag().await?;
        let encryption = self.encryption_status().await?;
        let walks = sqlx::query!(
            r#"select state as "state: WalkState", count(*) as "count!" from archive.walks group by state"#
        )
        .fetch_all(&self.pool)
        .await?;
        let walks: Vec<_> = walks.into_iter().map(|row| (row.state, row.count)).collect();
        let rooms = sqlx::query!(
            r#"select history_state as "state: HistoryState", count(*) as "count!" from archive.rooms
               where watched group by history_state"#
        )
        .fetch_all(&self.pool)
        .await?;
        let rooms: Vec<_> = rooms.into_iter().map(|row| (row.state, row.count)).collect();
        Ok(Gauges {
            synced_ago_s: whole.synced_ago_s,
            database_bytes: whole.database_bytes,
            open_gaps: whole.open_gaps,
            findings: whole.findings,
            verified_ago_s: whole.verified_ago_s.unwrap_or(0.0),
            search_queued: search.queued,
            search_lag_s: search.oldest_s.unwrap_or(0.0),
            encrypted: encryption.encrypted,
            undecryptable: encryption.undecryptable(),
            session_keys: encryption.session_keys,
            decryption_lag_s: encryption.oldest_s.unwrap_or(0.0),
            is_backup_unread: encryption.backup_problem.is_some(),
            one_time_keys: encryption.one_time_keys,
            walks: counts(WalkState::ALL, WalkState::as_str, &walks),
            rooms: counts(HistoryState::ALL, HistoryState::as_str, &rooms),
        })
    }

    /// Whether one of this database's Backscroll sessions waits for a lock that another session holds.
    pub(crate) async fn waits_for_a_lock(&self) -> Result<bool, Error> {
        let waits = sqlx::query_scalar!(
            r#"select exists(select from pg_stat_activity
                             where datname = current_database() and application_name = 'backscroll'
                               and cardinality(pg_blocking_pids(pid)) > 0) as "waits!""#
        );
        Ok(waits.fetch_one(&self.pool).await?)
    }
}

/// The count of every state with its name, 0 for a state without a row.
fn counts<S: Copy + PartialEq>(
    states: &[S],
    word: fn(S) -> &'static str,
    counted: &[(S, i64)],
) -> Vec<(&'static str, i64)> {
    let count = |state| counted.iter().find(|(counted, _)| *counted == state).map_or(0, |(_, count)| *count);
    states.iter().map(|state| (word(*state), count(*state))).collect()
}
