//! Two Backscrolls on one database, in rounds: sessions are terminated, processes stopped, killed and continued, PostgreSQL is
//! restarted and crashes. At any time at most one writes, and the rightful one stays.
//!
//! `SEED=…` repeats a run, `DOSE=…` makes it that many times as long.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::sys::signal::Signal;

use super::{HOLDER, end_session, on_its_own_server};
use crate::support::{
    cluster::Cluster,
    daemon::{Backscroll, Daemon},
    postgres, random,
    stage::Stage,
};

const ROUNDS: u64 = 10;

/// Notes of every statement that writes who it is of, and whose the lease is at that moment: a transaction that writes lets
/// nobody move that on.
const WITNESS: &str = "
    create role one login in role backscroll, pg_signal_backend;
    create role other login in role backscroll, pg_signal_backend;
    create schema witness;
    create table witness.writes (role text, holder text, held bool);
    create function witness.note() returns trigger language plpgsql security definer as $$ begin
        insert into witness.writes
        select session_user, coalesce(process ->> 'pid', ''),
               exists (select from pg_locks where relation = 'archive.writer_lease'::regclass
                   and pid = pg_backend_pid()
                         and mode = 'RowExclusiveLock')
        from archive.writer_lease;
        return null;
    end $$;
    do $$ declare t name; begin
        for t in select tablename from pg_tables where schemaname = 'archive' and tablename not in
            ('writer_lease', '_sqlx_migrations', 'room_choices', 'reader_rooms') loop
            execute format('create trigger witness after insert or update or delete on archive.%I
                            for each statement execute function witness.note()', t);
        end loop;
    end $$;";

const WRITES: &str = "select role, holder, held, count(*) from witness.writes group by role, holder, held";

struct Side {
    role: &'static str,
    backscroll: Backscroll,
}

struct Rounds {
    cluster: Cluster,
    stage: Stage,
    room: String,
    sides: [Side; 2],
    /// Who has ever been started as which role.
    started: HashSet<(String, String)>,
    random: Rng,
}

/// What happens to the writer in a round.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// Its session is terminated.
    Session,
    /// All sessions are.
    Sessions,
    /// PostgreSQL is restarted.
    Restart,
    /// One of its processes is killed, so that it ends all and recovers.
    Crash,
    /// The writer is stopped for a moment, and its session terminated meanwhile.
    Stop,
    /// The same with PostgreSQL restarted.
    StopAndRestart,
    /// It is stopped for so long that it loses the lease.
    StopForLong,
    /// It is killed.
    Kill,
}

const BLOWS: [Blow; 8] = [
    Blow::Session,
    Blow::Sessions,
    Blow::Restart,
    Blow::Crash,
    Blow::Stop,
    Blow::StopAndRestart,
    Blow::StopForLong,
    Blow::Kill,
];

impl Rounds {
    async fn new(random: Rng) -> Self {
        let (cluster, stage) = on_its_own_server().await;
        stage.database.run(WITNESS).await;
        let side = |role: &'static str| {
            let url = cluster.url_of(role);
            let backscroll = Backscroll::new(stage.server.url(), &stage.server.access_token(), Some(&url))
                .set("BACKSCROLL_BACKFILL__PAGE_SIZE", "10");
            Side { role, backscroll }
        };
        let room = stage.room(25);
        let sides = [side("one"), side("other")];
        Self { cluster, sides, stage, room, started: HashSet::new(), random }
    }

    fn start(&mut self, side: usize) -> Daemon {
        let daemon = self.sides[side].backscroll.start(&["run"]);
        self.started.insert((self.sides[side].role.to_owned(), daemon.id().to_string()));
        daemon
    }

    /// The writer archives what is said now.
    async fn archives(&self, writer: &mut Daemon, what: &str) {
        self.stage.say(&self.room, what, 2);
        let count = format!("select count(*) from events where room_id = '{}'", self.room);
        let expected = self.stage.server.visible_ids(&self.room).len().to_string();
        writer.until("all is archived", async || self.asks(&count).await == expected).await;
    }

    /// What a query gives, as soon as the server is up.
    async fn asks(&self, sql: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(rows) = postgres::try_rows(&self.cluster.url(), sql).await {
                return rows[0][0].clone();
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn holder(&self) -> String {
        self.asks(HOLDER).await
    }

    async fn strike(&self, blow: Blow) {
        let holder = self.holder().await;
        match blow {
            Blow::Session | Blow::Stop | Blow::StopForLong => {
                end_session(&self.stage.database, &holder).await;
            }
            Blow::Sessions => {
                let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                           where application_name like 'backscroll%' and pid <> pg_backend_pid()";
                self.asks(all).await;
            }
            Blow::Restart | Blow::StopAndRestart => {
                self.cluster.stop("fast");
                self.cluster.start();
            }
            Blow::Crash => {
                let victim = nix::unistd::Pid::from_raw(holder.parse().unwrap());
                let _ = nix::sys::signal::kill(victim, Signal::SIGKILL);
            }
            Blow::Kill => {}
        }
    }

    /// One round. Returns the writer at its end, and which side it is of.
    async fn play(&mut self, number: u64, blow: Blow, mut writer: Daemon, side: usize) -> (Daemon, usize) {
        let stops = matches!(blow, Blow::Stop | Blow::StopAndRestart | Blow::StopForLong);
        self.stage.say(&self.room, &format!("before {number}"), 2);
        // Anywhere in what it does with that.
        tokio::time::sleep(Duration::from_millis(self.random.u64(..30))).await;
        if stops {
            writer.signal(Signal::SIGSTOP);
        }
        if let Blow::Kill = blow {
            writer.signal(Signal::SIGKILL);
            writer.wait().await;
        }
        self.strike(blow).await;
        let mut newcomer = self.start(1 - side);
        match blow {
            Blow::Kill | Blow::StopForLong => {
                newcomer
                    .until("it is the writer", async || self.holder_is(&newcomer_id(self, side)).await)
                    .await;
                self.archives(&mut newcomer, &format!("new {number}")).await;
                if stops {
                    writer.signal(Signal::SIGCONT);
                    let status = writer.wait().await;
                    assert_eq!(status.code(), Some(75), "{number} {blow:?}: {}", writer.stderr());
                }
                self.archives(&mut newcomer, &format!("alone {number}")).await;
                (newcomer, 1 - side)
            }
            _ => {
                if stops {
                    tokio::time::sleep(Duration::from_millis(self.random.u64(..1500))).await;
                    writer.signal(Signal::SIGCONT);
                }
                let status = newcomer.wait().await;
                assert_eq!(status.code(), Some(75), "{number} {blow:?}: {}", newcomer.stderr());
                self.archives(&mut writer, &format!("after {number}")).await;
                (writer, side)
            }
        }
    }

    /// Whether that role's process is on record as the writer, and holds the lock.
    async fn holder_is(&self, ids: &HashSet<String>) -> bool {
        let recorded = "select coalesce(process ->> 'pid', '') from archive.writer_lease";
        ids.contains(&self.asks(recorded).await) && self.holder().await != "0"
    }

    /// Nothing was written but by the holder of the lease, under a lock that keeps it.
    async fn nobody_else_has_written(&self) -> u64 {
        let writes = self.stage.database.rows(WRITES).await;
        for write in &writes {
            let who = (write[0].clone(), write[1].clone());
            assert!(
                self.started.contains(&who) && write[2] == "t",
                "{write:?} is not one of {:?}",
                self.started
            );
        }
        writes.iter().map(|write| write[3].parse::<u64>().unwrap()).sum()
    }
}

/// The processes of the other side.
fn newcomer_id(rounds: &Rounds, side: usize) -> HashSet<String> {
    let role = rounds.sides[1 - side].role;
    rounds.started.iter().filter(|(of, _)| of == role).map(|(_, id)| id.clone()).collect()
}

#[tokio::test]
async fn at_most_one_writes_and_the_rightful_one_stays() {
    let mut random = random::seeded("at_most_one_writes_and_the_rightful_one_stays");
    let mut rounds = Rounds::new(random.fork()).await;
    let (mut writer, mut at) = (rounds.start(0), 0);
    rounds.archives(&mut writer, "first").await;
    let mut blows = BLOWS.to_vec();
    let mut dealt = [0_u32; BLOWS.len()];
    let total = ROUNDS * random::dose();
    for number in 0..total {
        if usize::try_from(number).unwrap() % blows.len() == 0 {
            random.shuffle(&mut blows);
        }
        let blow = blows[usize::try_from(number).unwrap() % blows.len()];
        let start = Instant::now();
        (writer, at) = rounds.play(number, blow, writer, at).await;
        dealt[blow as usize] += 1;
        eprintln!("round {number}: {blow:?}, {:.1} s", start.elapsed().as_secs_f32());
        rounds.nobody_else_has_written().await;
    }
    writer.stop().await;
    let statements = rounds.nobody_else_has_written().await;
    let of_stage = &rounds.stage;
    assert_eq!(of_stage.content_difference(&rounds.room).await, None);
    assert_eq!(of_stage.timeline(&rounds.room).await, of_stage.server.visible_ids(&rounds.room));
    let epochs = rounds.asks("select epoch from archive.writer_lease").await;
    eprintln!(
        "{total} rounds {BLOWS:?} {dealt:?}: {statements} writes, all under the lease, {epochs} epochs"
    );
}
