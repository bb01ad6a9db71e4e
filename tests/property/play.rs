//! Plays a case: the model homeserver, a database, and the daemon's own entry points in between.

use std::{collections::BTreeSet, time::Duration};

use backscroll::{
    archive,
    backfill::operator,
    config::{Config, Environment, Overrides},
    daemon,
    telemetry::Telemetry,
};
use ruma::RoomOrAliasId;
use tokio_util::sync::CancellationToken;

use super::{
    oracle,
    script::{After, Case, Step, Style, Where, Wrong},
};
use crate::support::{
    daemon::Backscroll,
    homeserver::{ALICE, ARCHIVER, BOB, Event, Fault, Habits, Homeserver, StateAfter},
    postgres::{TestDatabase, rows},
};

/// The state keys that [`Step::State`] and its like change.
const KEYS: [(&str, &str); 4] =
    [("m.room.topic", ""), ("m.room.name", ""), ("com.example.key", "x"), ("m.room.member", BOB)];

pub(super) struct Play<'a> {
    pub(super) case: &'a Case,
    pub(super) server: Homeserver,
    pub(super) database: TestDatabase,
    backscroll: Backscroll,
    pub(super) rooms: Vec<Room>,
    /// Whether the archive has begun.
    begun: bool,
    count: u32,
}

/// Where the account stands in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Account {
    #[default]
    Joined,
    /// Left, or never there.
    Left,
    Banned,
    Invited,
}

/// What the script has done to a room.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) id: String,
    pub(super) version: &'static str,
    events: Vec<String>,
    /// Events that arrived, or were fetched, when later ones of the graph were there.
    pub(super) late: BTreeSet<String>,
    /// Of those, the ones that no `/sync` reported.
    pub(super) learnt: BTreeSet<String>,
    /// Of those, the ones that the last walk has found.
    pub(super) found: BTreeSet<String>,
    account: Account,
    paused: bool,
    /// Whether something happened that the server reports nobody, so that only another walk can find it.
    silent: bool,
    /// The same, but the gap of a rejoin finds it.
    silent_while_away: bool,
}

impl Room {
    fn is_away(&self) -> bool {
        self.account != Account::Joined
    }
}

/// Plays the script, finds what only a whole walk can find, and compares.
pub(super) async fn play(case: &Case) {
    let mut play = Box::pin(settled(case)).await;
    play.find_what_was_silent().await;
    oracle::assert_agrees(&play).await;
}

/// Plays the script, and runs the daemon until it has no more to do.
pub(super) async fn settled(case: &Case) -> Play<'_> {
    let mut play = Play::new(case).await;
    for step in &case.steps {
        Box::pin(play.step(*step)).await;
    }
    for index in 0..play.rooms.len() {
        // What a room shows to those who are banned from it or invited is nothing to compare with.
        if matches!(play.rooms[index].account, Account::Banned | Account::Invited) {
            play.rejoin(index);
        }
        play.pause(index, false).await;
    }
    play.server.heal();
    play.until_settled().await;
    play
}

impl<'a> Play<'a> {
    async fn new(case: &'a Case) -> Self {
        let server = Homeserver::start().await;
        let database = TestDatabase::new().await;
        server.behave(|habits| {
            let plain =
                if matches!(case.style, Style::Dendrite) { Habits::dendrite() } else { Habits::synapse() };
            *habits = plain;
            match case.style {
                Style::Synapse | Style::Dendrite => {}
                Style::ShortPages => habits.short_pages = Some(2),
                Style::EmptyPages => habits.empty_pages = 1,
                Style::Overlap => habits.overlap = 2,
                Style::Stutter => habits.stutters = true,
                Style::IgnoresTo => habits.ignores_to = true,
            }
            habits.timeline_cap = case.timeline_cap;
            habits.state_after = match case.state_after {
                After::Never => StateAfter::Never,
                After::Stable => StateAfter::Stable,
                After::Unstable => StateAfter::Unstable,
            };
        });
        let backscroll = Backscroll::new(server.url(), &server.access_token(), Some(database.url()))
            .set("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms")
            .set("BACKSCROLL_BACKFILL__REWALK_AFTER", "[]")
            .set("BACKSCROLL_BACKFILL__PAGE_SIZE", &case.page_size.to_string());
        let room = |(number, version): (usize, &&'static str)| {
            let is_own = !case.stranger || number + 1 < case.rooms.len();
            let id = server.create_room_by(version, if is_own { ARCHIVER } else { ALICE });
            let account = if is_own { Account::Joined } else { Account::Left };
            let events = server.current_state(&id).into_values().collect();
            Room { id, version, events, account, ..Room::default() }
        };
        let rooms = case.rooms.iter().enumerate().map(room).collect();
        Self { case, server, database, backscroll, rooms, begun: false, count: 0 }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Message(room) => {
                let message = self.message();
                self.append(room, message);
            }
            Step::State(room, key) => {
                let state = self.state(key);
                self.append(room, state);
            }
            Step::Redact(room, event) => {
                let (index, target) = self.pick(room, event);
                self.append(room, Event::redaction(&target));
                self.rooms[index].silent_while_away |= self.rooms[index].is_away();
            }
            Step::Late(room, event) => {
                let message = self.message();
                self.insert(room, event, message);
            }
            Step::LateState(room, event, key) => {
                let state = self.state(key);
                self.insert(room, event, state);
            }
            Step::Fork(room, key) => self.fork(room, key),
            Step::Burst(room) => {
                for _ in 0..self.case.timeline_cap + 4 {
                    let message = self.message();
                    self.append(room, message);
                }
            }
            Step::Learn(room, event) => self.learn(room, event),
            Step::Hole(room) => self.server.federation_gap(&self.rooms[self.index(room)].id),
            Step::Unset(room, key) => {
                let id = &self.rooms[self.index(room)].id;
                let (kind, state_key) = KEYS[usize::from(key)];
                if self.server.current_state(id).contains_key(&(kind.to_owned(), state_key.to_owned())) {
                    self.server.unset_state(id, kind, state_key);
                }
            }
            Step::Leave(room) => self.go(room, Account::Left),
            Step::Ban(room) => self.go(room, Account::Banned),
            Step::Unban(room) => self.unban(self.index(room)),
            Step::Invite(room) => {
                let index = self.index(room);
                let room = &mut self.rooms[index];
                if room.account == Account::Left {
                    room.events.push(self.server.invite(&room.id, ARCHIVER));
                    room.account = Account::Invited;
                }
            }
            Step::Rejoin(room) => self.rejoin(self.index(room)),
            Step::DeadToken => {
                self.kill_tokens("select since from archive.accounts where since is not null").await;
            }
            Step::DeadCursors => {
                let cursors = "select cursor from archive.walks where state = 'open' and cursor is not null";
                self.kill_tokens(cursors).await;
            }
            Step::Pause(room) => self.pause(self.index(room), true).await,
            Step::Resume(room) => self.pause(self.index(room), false).await,
            Step::Once => self.once().await,
            Step::Walk(room) => self.walk(self.index(room), true).await,
            Step::KillWalk(room, requests, ms) => {
                tokio::select! {
                    () = self.walk(self.index(room), true) => {}
                    () = self.moment(requests, ms) => {}
                }
            }
            Step::Kill(requests, ms) => Box::pin(self.kill(requests, ms)).await,
            Step::Fault(wrong, place, after) => self.fault(wrong, place, after),
        }
    }

    fn fork(&mut self, room: u8, key: u8) {
        let Event { kind, state_key, content, .. } = self.state(key);
        let index = self.index(room);
        let slot = (kind.clone(), state_key.clone().unwrap_or_default());
        // What loses must lose against something.
        if !self.server.current_state(&self.rooms[index].id).contains_key(&slot) {
            return;
        }
        let state_key = state_key.unwrap_or_default();
        let event = self.server.fork_state(&self.rooms[index].id, &kind, &state_key, &content);
        self.rooms[index].events.push(event);
    }

    /// The server learns an event from another server.
    fn learn(&mut self, room: u8, event: u16) {
        let message = self.message();
        let (index, earlier) = self.pick(room, event);
        let begun = self.begun;
        let room = &mut self.rooms[index];
        let event = self.server.backfill_insert_after(&room.id, &earlier, message);
        room.events.push(event.clone());
        room.late.insert(event.clone());
        room.learnt.insert(event);
        room.silent |= begun;
    }

    fn index(&self, room: u8) -> usize {
        usize::from(room) % self.rooms.len()
    }

    /// The room and one of its events.
    fn pick(&self, room: u8, event: u16) -> (usize, String) {
        let index = self.index(room);
        let events = &self.rooms[index].events;
        (index, events[usize::from(event) % events.len()].clone())
    }

    fn message(&mut self) -> Event {
        self.count += 1;
        Event::message(&format!("message {}", self.count)).from([ALICE, BOB][self.count as usize % 2])
    }

    fn state(&mut self, key: u8) -> Event {
        self.count += 1;
        let (kind, state_key) = KEYS[usize::from(key)];
        let membership = ["join", "leave"][self.count as usize % 2];
        let content = format!(r#"{{"membership":"{membership}","topic":"{}","name":"x"}}"#, self.count);
        Event::state(kind, state_key, content)
    }

    fn append(&mut self, room: u8, event: Event) {
        let index = self.index(room);
        let event = self.server.append(&self.rooms[index].id, event);
        self.rooms[index].events.push(event);
    }

    fn insert(&mut self, room: u8, earlier: u16, event: Event) {
        let (index, earlier) = self.pick(room, earlier);
        let room = &mut self.rooms[index];
        let event = self.server.insert_after(&room.id, &earlier, event);
        room.events.push(event.clone());
        room.late.insert(event.clone());
        if room.is_away() {
            // It may belong into what the account saw before it left, and no `/sync` will tell it.
            room.silent_while_away = true;
            room.learnt.insert(event);
        }
    }

    fn go(&mut self, room: u8, where_to: Account) {
        let index = self.index(room);
        let room = &mut self.rooms[index];
        if !room.is_away() || (room.account, where_to) == (Account::Invited, Account::Left) {
            let way = if where_to == Account::Banned { Homeserver::ban } else { Homeserver::leave };
            room.events.push(way(&self.server, &room.id, ARCHIVER));
            room.account = where_to;
        }
    }

    fn unban(&mut self, index: usize) {
        let room = &mut self.rooms[index];
        if room.account == Account::Banned {
            room.events.push(self.server.kick(&room.id, ARCHIVER));
            room.account = Account::Left;
        }
    }

    fn rejoin(&mut self, index: usize) {
        self.unban(index);
        let room = &mut self.rooms[index];
        if room.is_away() {
            room.events.push(self.server.join(&room.id, ARCHIVER));
        }
        room.account = Account::Joined;
    }

    fn fault(&self, wrong: Wrong, place: Where, after: u8) {
        let fault = match wrong {
            Wrong::TooMany => Fault::too_many(&[], "1"),
            Wrong::BadGateway => Fault::bad_gateway(),
            Wrong::CutBody => Fault::cut_body(),
        };
        let path = match place {
            Where::Sync => "/sync",
            Where::Messages => "/messages",
            Where::State => "/state",
        };
        self.server.inject(fault.on(path).after(after.into()).times(1));
    }

    async fn kill_tokens(&self, sql: &str) {
        for token in self.database.column(sql).await {
            self.server.inject(Fault::dead_token(&token));
        }
    }

    async fn pause(&mut self, index: usize, paused: bool) {
        let room = &mut self.rooms[index];
        if self.begun && room.paused != paused {
            let what = if paused { "pause" } else { "resume" };
            let outcome = self.backscroll.run(&["rooms", what, &room.id]).await;
            // Of a room that the archive does not know yet nothing is decided.
            room.paused = paused && outcome.status.success();
            assert!(outcome.status.success() || paused, "{}", outcome.stderr);
        }
    }

    /// `backfill ROOM`. In the middle of a script the account may not be able to read the room, or the archive not watch it.
    async fn walk(&self, index: usize, midway: bool) {
        let Room { id, account, .. } = &self.rooms[index];
        if matches!(account, Account::Banned | Account::Invited) {
            return;
        }
        self.patiently(async || {
            let room = <&RoomOrAliasId>::try_from(id.as_str()).unwrap();
            let whole = archive::Span { from: None, to: None };
            let open =
                async |context: &backscroll::context::Context| operator::open(context, room, whole).await;
            let telemetry = Telemetry::new(false, false);
            let walked = daemon::walk(self.config(), &telemetry, CancellationToken::new(), open);
            walked.await.or_else(|error| match of_archive(&error) {
                Some(archive::Error::NotReadable { .. } | archive::Error::NotWatched(_)) if midway => Ok(()),
                _ => Err(error),
            })
        })
        .await;
    }

    async fn once(&mut self) {
        self.begun = true;
        if self.case.binary {
            let outcome = self.backscroll.run(&["run", "--once"]).await;
            if outcome.status.code() != Some(75) {
                // A room may have stalled at a token that the server refuses; the next run tries again.
                let is_done = outcome.status.success() || outcome.status.code() == Some(65);
                assert!(is_done, "{:?} {}", outcome.status, outcome.stderr);
                return;
            }
        }
        self.patiently(async || {
            daemon::run(self.config(), &Telemetry::new(false, false), true, CancellationToken::new()).await
        })
        .await;
    }

    /// Does what the writer before may still keep from being done: its session ends a moment after it.
    async fn patiently(&self, work: impl AsyncFn() -> anyhow::Result<()>) {
        for _ in 0..1000 {
            match work().await {
                Ok(()) => return,
                Err(error) if error.is::<daemon::Stalled>() => return,
                Err(error) if is_another_writer(&error) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:#}"),
            }
        }
        panic!("there is another writer");
    }

    /// So many requests and milliseconds later.
    async fn moment(&self, requests: u8, ms: u8) {
        let requests = self.server.journal().len() + usize::from(requests);
        self.server.has_been_asked("", requests).await;
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }

    async fn kill(&mut self, requests: u8, ms: u8) {
        self.begun = true;
        let moment = self.moment(requests, ms);
        if self.case.binary {
            let mut daemon = self.backscroll.start(&["run", "--once"]);
            tokio::select! {
                _ = daemon.wait() => {}
                () = moment => {}
            }
            daemon.kill().await;
        } else {
            let run = self.patiently(async || {
                daemon::run(self.config(), &Telemetry::new(false, false), true, CancellationToken::new())
                    .await
            });
            tokio::select! {
                () = run => {}
                () = moment => {}
            }
        }
    }

    async fn until_settled(&mut self) {
        const OPEN: &str = "select kind, last_error from archive.walks where state <> 'done'
                            union all select reason, state from archive.gaps where state <> 'closed'";
        for _ in 0..3 {
            self.once().await;
            if rows(self.database.url(), OPEN).await.is_empty() {
                return;
            }
        }
    }

    /// `backfill ROOM`, where something happened that nothing else can find.
    async fn find_what_was_silent(&mut self) {
        for index in 0..self.rooms.len() {
            let room = &self.rooms[index];
            let is_silent = room.silent || (room.is_away() && room.silent_while_away);
            if !is_silent || self.server.visible_ids(&room.id).is_empty() {
                continue;
            }
            let id = &room.id;
            let archived =
                self.database.column(&format!("select event_id from events where room_id = '{id}'")).await;
            // Where one was found before, it may stand too low, and what belongs below it with it.
            let is_first = !room.learnt.iter().any(|event_id| archived.contains(event_id));
            let found = if is_first { room.learnt.clone() } else { BTreeSet::new() };
            self.walk(index, false).await;
            self.rooms[index].found = found;
        }
    }

    fn config(&self) -> Config {
        let page_size = self.case.page_size.to_string();
        let token = self.server.access_token();
        let environment = Environment::of(
            self.backscroll.path(),
            [
                ("HOME", "/nonexistent"),
                ("BACKSCROLL_HOMESERVER__URL", self.server.url()),
                ("BACKSCROLL_HOMESERVER__ACCESS_TOKEN", &token),
                ("BACKSCROLL_DATABASE__URL", self.database.url()),
                ("BACKSCROLL_BACKFILL__PAGE_SIZE", &page_size),
                ("BACKSCROLL_BACKFILL__RECHECK_AFTER", "1ms"),
                ("BACKSCROLL_BACKFILL__REWALK_AFTER", "[]"),
            ],
        );
        Config::load_in(&environment, None, &Overrides::default()).unwrap()
    }
}

fn is_another_writer(error: &anyhow::Error) -> bool {
    matches!(of_archive(error), Some(archive::Error::AnotherWriter { .. }))
}

fn of_archive(error: &anyhow::Error) -> Option<&archive::Error> {
    error.downcast_ref::<archive::Error>().or_else(|| match error.downcast_ref() {
        Some(backscroll::Error::Archive(error)) => Some(error),
        _ => None,
    })
}
