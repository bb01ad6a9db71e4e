//! Finds sessions that hold locks which Backscroll's transactions wait for.

use std::{fmt::Write as _, time::Duration};

use crate::archive::{Archive, Error};

/// A wait of this length is long. Backscroll itself holds no lock for that long, except during an erasure and the like.
const LONG: Duration = Duration::from_secs(5);

/// A session that holds a lock which transactions of Backscroll wait for. Fields that the role may not see are `None`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Wait {
    /// How long the first of them has waited.
    pub(crate) waited_s: f64,
    /// The server process of the session that holds the lock.
    pub(crate) pid: i32,
    /// Its role.
    pub(crate) user: Option<String>,
    /// Its `application_name`.
    pub(crate) application: Option<String>,
    /// When its transaction began.
    pub(crate) since: Option<String>,
}

impl Wait {
    /// Describes the session that holds the lock. The session has chosen its `application_name` itself, so escape the
    /// text.
    pub(crate) fn holder(&self) -> String {
        let mut text = format!("server process {}", self.pid);
        let parts =
            [("role ", &self.user), ("", &self.application), ("in a transaction since ", &self.since)];
        let parts: Vec<_> = parts
            .iter()
            .filter_map(|(what, part)| {
                part.as_ref().filter(|part| !part.is_empty()).map(|part| format!("{what}{part}"))
            })
            .collect();
        if !parts.is_empty() {
            let _ = write!(text, " ({})", parts.join(", "));
        }
        text
    }
}

impl Archive {
    /// The sessions that hold locks which sessions of Backscroll have waited for 5 s or longer.
    pub(crate) async fn waits(&self) -> Result<Vec<Wait>, Error> {
        let waits = sqlx::query_as!(
            Wait,
            // Every role may call its session `backscroll`, so the rights of the role are checked too.
            r#"with waiting as (
                   select a.pid, max(clock_timestamp() - l.waitstart) as waited
                   from pg_stat_activity a
                   join pg_locks l on l.pid = a.pid and not l.granted
                   where a.datname = current_database() and a.application_name = 'backscroll'
                     and has_table_privilege(a.usesysid, 'archive.writer_lease', 'update')
                   group by a.pid
                   having max(clock_timestamp() - l.waitstart) >= make_interval(secs => $1)
               )
               select extract(epoch from max(w.waited))::float8 as "waited_s!", b.pid as "pid!",
                      h.usename::text as "user?", h.application_name as "application?",
                      to_char(h.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC') as "since?"
               from waiting w
               cross join lateral unnest(pg_blocking_pids(w.pid)) as b (pid)
               left join pg_stat_activity h on h.pid = b.pid
               -- Who waits too is held up by another one.
               where b.pid not in (select pid from pg_locks where not granted and pid is not null)
               group by b.pid, h.usename, h.application_name, h.xact_start
               order by 1 desc, 2"#,
            LONG.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(waits)
    }

    /// Whether a transaction of this process has been under way for so long that it may wait for a lock.
    pub(crate) fn is_held_up(&self) -> bool {
        self.sessions.oldest().is_some_and(|since| since >= LONG)
    }

    /// The problem of this process's lease, if there is one.
    pub(crate) fn lease_trouble(&self) -> Option<String> {
        crate::archive::lock(&self.lease_state).as_ref().and_then(crate::archive::lease::Observer::trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_described_by_what_may_be_seen_of_it() {
        let wait = Wait { waited_s: 6.5, pid: 12, user: None, application: Some(String::new()), since: None };
        assert_eq!(wait.holder(), "server process 12");
        let wait = Wait {
            user: Some("ann".into()),
            application: Some("psql".into()),
            since: Some("noon".into()),
            ..wait
        };
        assert_eq!(wait.holder(), "server process 12 (role ann, psql, in a transaction since noon)");
    }
}
