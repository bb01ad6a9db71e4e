//! A homeserver, a database, and the program between them: what most tests need, and what they may ask of the three.

use std::collections::BTreeMap;

use super::{
    agreement::{self, Stored},
    archive::timeline,
    daemon::{Backscroll, Daemon, Outcome},
    homeserver::{ALICE, Homeserver},
    postgres::TestDatabase,
};

pub(crate) struct Stage {
    pub(crate) server: Homeserver,
    pub(crate) database: TestDatabase,
    pub(crate) backscroll: Backscroll,
}

impl Stage {
    /// With small pages, and pauses as short as they can be set.
    pub(crate) async fn new() -> Self {
        Self::in_database(TestDatabase::new().await).await
    }

    /// The same in a database that the test has made.
    pub(crate) async fn in_database(database: TestDatabase) -> Self {
        let server = Homeserver::start().await;
        let backscroll = Backscroll::new(server.url(), &server.access_token(), Some(database.url()));
        let stage = Self { server, database, backscroll };
        let stage = stage.set("backfill.page_size", "10").set("backfill.recheck_after", "1s");
        stage.set("homeserver.patience", "1s")
    }

    /// With another setting, such as `backfill.page_size`.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        let name = format!("BACKSCROLL_{}", key.to_uppercase().replace('.', "__"));
        Self { backscroll: self.backscroll.set(&name, value), ..self }
    }

    /// A room with so many messages.
    pub(crate) fn room(&self, count: usize) -> String {
        let room = self.server.create_room("10");
        self.server.append_many(&room, count);
        room
    }

    /// Messages from Alice, numbered.
    pub(crate) fn say(&self, room: &str, what: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| self.server.message(room, ALICE, &format!("{what} {number}"))).collect()
    }

    /// `backscroll run --once`, which must succeed.
    pub(crate) async fn once(&self) -> Outcome {
        self.backscroll.once().await
    }

    /// `backscroll run --once`, which must archive all but rooms that have stalled, and say so.
    pub(crate) async fn once_with_stalled_rooms(&self) -> Outcome {
        let outcome = self.backscroll.run(&["run", "--once"]).await;
        assert_eq!(outcome.status.code(), Some(65), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("stalled; everything else that was due is archived"),
            "{}",
            outcome.stderr
        );
        outcome
    }

    /// `backscroll run`, until the test stops it.
    pub(crate) fn follow(&self) -> Daemon {
        self.backscroll.start(&["run"])
    }

    /// `backscroll run` that has archived the room as it is.
    pub(crate) async fn followed(&self, room: &str) -> Daemon {
        let mut daemon = self.follow();
        self.agrees(&mut daemon, room).await;
        daemon
    }

    /// `backscroll run --once` until `/messages` has been asked so many times, and then a power cut. The last request
    /// gets no answer, so that exactly the pages before it are there.
    pub(crate) async fn once_for_pages(&self, pages: usize) {
        let asked = self.server.requests("/messages").len();
        self.server.inject(super::homeserver::Fault::stall().on("/messages").after(pages));
        let mut daemon = self.backscroll.start(&["run", "--once"]);
        self.server.has_been_asked("/messages", asked + pages + 1).await;
        let wanted = pages.to_string();
        let sql = "select coalesce(sum(pages), 0) from archive.walks";
        daemon.until("the pages are stored", async || self.database.value(sql).await == wanted).await;
        daemon.kill().await;
        self.server.heal();
    }

    /// `history_state` of a room.
    pub(crate) async fn history(&self, room: &str) -> String {
        self.database.value(&format!("select history_state from rooms where room_id = '{room}'")).await
    }

    /// The same; empty while the room is not there.
    pub(crate) async fn history_or_none(&self, room: &str) -> String {
        let sql = format!("select coalesce(max(history_state), '') from rooms where room_id = '{room}'");
        self.database.value(&sql).await
    }

    /// Why a room's history is not complete, as the reader sees it: in `rooms`.
    pub(crate) async fn reason(&self, room: &str) -> String {
        self.database.value(&format!("select history_reason from rooms where room_id = '{room}'")).await
    }

    /// Every archived event of a room, given back as it was served.
    pub(crate) async fn stored(&self, room: &str) -> BTreeMap<String, Stored> {
        let version = format!("select room_version from archive.rooms where room_id = '{room}'");
        let version = self.database.value(&version).await;
        let stored = agreement::stored(self.database.url(), room, &version).await;
        stored.into_iter().map(|event| (event.event_id.clone(), event)).collect()
    }

    pub(crate) async fn timeline(&self, room: &str) -> Vec<String> {
        timeline(&self.database, room).await
    }

    /// The room is in the archive: everything the account may see, in the server's order, once, as served, with the
    /// server's current state; and the archive says that this is all.
    pub(crate) async fn is_archived(&self, room: &str) {
        assert_eq!(self.difference(room).await, None);
        assert_eq!(self.timeline(room).await, self.server.visible_ids(room), "the server's order");
    }

    /// Waits until the archive holds what the account may see, in whatever order.
    pub(crate) async fn agrees(&self, daemon: &mut Daemon, room: &str) {
        daemon.settles(async || self.difference(room).await).await;
    }

    /// The same, and in the server's order.
    pub(crate) async fn agrees_in_order(&self, daemon: &mut Daemon, room: &str) {
        self.agrees(daemon, room).await;
        assert_eq!(self.timeline(room).await, self.server.visible_ids(room), "the server's order");
    }

    /// What is still to be done in a room, or differs between the archive and what the account may see.
    pub(crate) async fn difference(&self, room: &str) -> Option<String> {
        if let Some(unfinished) = self.unfinished(room).await {
            return Some(unfinished);
        }
        let difference = self.content_difference(room).await.or(self.state_difference(room).await);
        // A response that was stored meanwhile may have brought all that was missing, and a gap.
        difference.or(self.unfinished(room).await)
    }

    async fn unfinished(&self, room: &str) -> Option<String> {
        let unfinished = self
            .database
            .column(&format!(
                "select 'history is ' || history_state from rooms where room_id = '{room}'
                     and history_state <> 'complete'
                 union all
                 select format('gap %s is %s', gap_id, state) from gaps where room_id = '{room}'
                     and state <> 'closed'
                 union all
                 select format('walk %s is %s', kind, w.state) from archive.walks w
                     join archive.rooms using (room_id)
                 where room_id = '{room}' and w.state <> 'done'
                     and (w.kind <> 'rewalk' or w.not_before <= now())
                 union all
                 select 'no such room' where not exists (select 1 from rooms where room_id = '{room}')"
            ))
            .await;
        (!unfinished.is_empty()).then(|| unfinished.join(", "))
    }

    /// How events or their contents differ.
    pub(crate) async fn content_difference(&self, room: &str) -> Option<String> {
        let stored = self.stored(room).await;
        let visible = self.server.visible(room);
        let placed = stored.values().filter(|event| event.position.is_some());
        let unseen = |id: &str| !visible.iter().any(|event| event.event_id == id);
        if let Some(event) = placed.into_iter().find(|event| unseen(&event.event_id)) {
            return Some(format!("{} is in the archive and not on the server", event.event_id));
        }
        visible.iter().find_map(|event| {
            let id = &event.event_id;
            let Some(row) = stored.get(id) else {
                return Some(format!("{id} is missing: {:?}", event.stable));
            };
            if row.position.is_none() {
                return Some(format!("{id} has no position"));
            }
            let ours = &row.stable;
            let alike = match &event.stable {
                Some(theirs) => ours.as_ref() == Some(theirs),
                // Beyond what the model reads: byte for byte.
                None => self.server.served(room, id, &row.bytes),
            };
            (!alike).then(|| format!("{id} is {ours:?} and not {:?}", event.stable))
        })
    }

    /// How what the archive has differs from what it should be; it need not be everything.
    pub(crate) async fn content_difference_of_archived(&self, room: &str) -> Option<String> {
        let visible = self.server.visible(room);
        let stored = self.stored(room).await;
        stored.values().find_map(|row| {
            let event = visible.iter().find(|event| event.event_id == row.event_id);
            let Some(event) = event else { return Some(format!("{} is not on the server", row.event_id)) };
            let ours = &row.stable;
            (*ours != event.stable)
                .then(|| format!("{} is {ours:?} and not {:?}", row.event_id, event.stable))
        })
    }

    /// How the current state differs.
    pub(crate) async fn state_difference(&self, room: &str) -> Option<String> {
        let sql = format!("select type, state_key, event_id from current_state where room_id = '{room}'");
        let ours = self.database.rows(&sql).await;
        let ours = ours.into_iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
        let theirs = self.server.current_state(room);
        (theirs != ours).then(|| format!("the state is {ours:#?} and not {theirs:#?}"))
    }

    /// `select * from` every view: none may fail, whatever was archived.
    pub(crate) async fn read_all_views(&self) {
        let views = "select format('%I.%I', schemaname, viewname) from pg_views where schemaname = 'public'";
        for view in self.database.column(views).await {
            self.database.rows(&format!("select * from {view}")).await;
        }
    }
}
