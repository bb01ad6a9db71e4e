//! The metrics of the archive. They are queried only when `/metrics` is read.

use crate::{
    archive::{Archive, Error},
    telemetry::metrics::Gauges,
};

impl Archive {
    /// The current values.
    pub async fn gauges(&self) -> Result<Gauges, Error> {
        let whole = sqlx::query!(
            r#"select (select extract(epoch from now() - synced_at)::float8 from archive.accounts limit 1) as synced_ago_s,
                      pg_database_size(current_database()) as "database_bytes!",
                      (select count(*) from archive.gaps where state = 'open') as "open_gaps!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let states = sqlx::query!(
            r#"select 'walk' as "what!", state as "state!", count(*) as "count!" from archive.walks group by state
               union all
               select 'room', history_state, count(*) from archive.rooms where watched group by history_state"#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut gauges = Gauges {
            synced_ago_s: whole.synced_ago_s,
            database_bytes: whole.database_bytes,
            open_gaps: whole.open_gaps,
            ..Gauges::default()
        };
        for row in states {
            let counts = if row.what == "walk" { &mut gauges.walks } else { &mut gauges.rooms };
            counts.push((row.state, row.count));
        }
        Ok(gauges)
    }

    /// Whether one of this database's Backscroll sessions waits for a lock that another session holds.
    pub async fn waits_for_a_lock(&self) -> Result<bool, Error> {
        let waits = sqlx::query_scalar!(
            r#"select exists(select from pg_stat_activity
                             where datname = current_database() and application_name = 'backscroll'
                               and cardinality(pg_blocking_pids(pid)) > 0) as "waits!""#
        );
        Ok(waits.fetch_one(&self.pool).await?)
    }
}
