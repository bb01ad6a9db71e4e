//! Shows the progress of the walks: lines on a terminal, a summary in the log elsewhere.
//!
//! This has no thread of its own. [`RoomProgress::update`] records progress; the next [`Progress::tick`] shows it.

mod rate;
mod render;
mod summary;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use rate::Rate;
use render::Canvas;
use summary::Summary;

use crate::text::whole;

/// The lines are redrawn at most this often.
const FRAME: Duration = Duration::from_millis(100);

/// A summary is logged at most this often.
const SUMMARY: Duration = Duration::from_secs(10);

/// The totals of a room's walk. Times are in milliseconds. They come from the events, so they may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Events of this walk that are stored.
    pub(crate) event_count: u64,
    /// Pages of this walk that are stored.
    pub(crate) page_count: u64,
    /// The time of the oldest event so far.
    pub(crate) oldest_ts: Option<i64>,
    /// The time of the event at which the walk began.
    pub(crate) newest_ts: Option<i64>,
    /// When the room was created, if that is known. The percentage and the time left are computed from it.
    pub(crate) created_ts: Option<i64>,
}

impl Reached {
    /// The share of the room's time that has been walked, from 0 to 1.
    fn share(&self) -> Option<f64> {
        let (newest, oldest, created) = (self.newest_ts?, self.oldest_ts?, self.created_ts?);
        let span = |from: i64, to: i64| to.saturating_sub(from).max(0);
        let whole = span(created, newest);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no precision")]
        let share = span(oldest, newest) as f64 / whole as f64;
        (whole > 0).then(|| share.min(1.0))
    }
}

/// The progress of the whole run. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<Inner>>);

/// The progress of one room. Its line is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct RoomProgress {
    progress: Progress,
    key: u64,
}

#[derive(Debug)]
struct Inner {
    /// The lines on a terminal. `None`: stderr is not a terminal.
    screen: Option<Screen>,
    rooms: Vec<Room>,
    next_key: u64,
    following: Option<Following>,
    /// New events of this run in all rooms, including those that are done.
    event_count: u64,
    page_count: u64,
    rate: Rate,
    logged: Logged,
    logged_at: Instant,
}

/// The totals in the last summary.
#[derive(Debug, Default, PartialEq, Eq)]
struct Logged {
    rooms_active: usize,
    event_count: u64,
    live_event_count: u64,
}

/// A room whose history is being walked.
#[derive(Debug)]
struct Room {
    key: u64,
    name: String,
    /// Whether this is not a room but the first `/sync` response.
    is_first_sync: bool,
    reached: Option<Reached>,
    since: Instant,
    stored: u64,
    events: Rate,
    /// The share of its time walked per second.
    share: Rate,
}

/// The progress of `/sync`.
#[derive(Clone, Copy, Debug)]
struct Following {
    room_count: usize,
    event_count: u64,
    last_news: Option<Instant>,
}

#[derive(Debug)]
struct Screen {
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    colour: bool,
    drawn_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(bars: MultiProgress, terminal: bool, colour: bool) -> Self {
        let now = Instant::now();
        let screen = terminal.then(|| Screen { bars, lines: Vec::new(), colour, drawn_at: None });
        Self(Arc::new(Mutex::new(Inner {
            screen,
            rooms: Vec::new(),
            next_key: 0,
            following: None,
            event_count: 0,
            page_count: 0,
            rate: Rate::new(now),
            logged: Logged::default(),
            logged_at: now,
        })))
    }

    /// Adds a room whose history is being walked. `name`: the one to show.
    pub(crate) fn room(&self, name: &str) -> RoomProgress {
        self.begin(Room::new(0, name, Instant::now()))
    }

    /// Adds a line for the first `/sync` response while it is stored.
    pub(crate) fn first_sync(&self) -> RoomProgress {
        self.begin(Room { is_first_sync: true, ..Room::new(0, "first sync", Instant::now()) })
    }

    fn begin(&self, room: Room) -> RoomProgress {
        let mut inner = self.lock();
        let key = inner.next_key;
        inner.next_key += 1;
        inner.rooms.push(Room { key, ..room });
        RoomProgress { progress: self.clone(), key }
    }

    /// Records how many rooms `/sync` covers, and how many events it has brought in this run.
    pub(crate) fn following(&self, room_count: usize, event_count: u64) {
        let mut inner = self.lock();
        let before = inner.following;
        let news = event_count > before.map_or(0, |before| before.event_count);
        inner.following = Some(Following {
            room_count,
            event_count,
            last_news: if news { Some(Instant::now()) } else { before.and_then(|before| before.last_news) },
        });
    }

    /// Shows what has changed: redraws the lines on a terminal, or logs a summary elsewhere, each at most as often as
    /// its constant allows. Call it at least once a second.
    pub(crate) fn tick(&self) {
        self.tick_at(Instant::now());
    }

    /// Removes the lines from the terminal, or logs the last summary elsewhere. Call it at the end.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.rooms.clear();
        inner.following = None;
        if let Some(screen) = &mut inner.screen {
            screen.show(Vec::new());
        }
        drop(inner);
        self.summary(Instant::now());
    }

    fn tick_at(&self, now: Instant) {
        let mut inner = self.lock();
        inner.advance(now);
        if inner.screen.is_some() {
            inner.draw(now);
        } else {
            drop(inner);
            self.summary(now);
        }
    }

    /// Logs a summary if something has changed and the last one is old enough. The lock is not held meanwhile.
    fn summary(&self, now: Instant) {
        let Some(summary) = self.lock().summary(now) else {
            return;
        };
        summary.log();
    }

    /// A panic in another thread cannot leave the numbers inconsistent, so a poisoned mutex is used as it is.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomProgress {
    /// Records how far the walk is. Call it before the first page too: the first call only sets the starting point.
    pub(crate) fn update(&self, reached: Reached) {
        let mut inner = self.progress.lock();
        let Some(room) = inner.rooms.iter_mut().find(|room| room.key == self.key) else {
            return;
        };
        let (events, pages) = room.update(reached);
        inner.event_count += events;
        inner.page_count += pages;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no precision")]
        inner.rate.add(events as f64);
    }

    /// Removes the line. On a terminal, prints one that stays with the outcome, such as `complete`.
    pub(crate) fn finish(self, state: &str) {
        let now = Instant::now();
        let inner = self.progress.lock();
        let at = inner.rooms.iter().position(|room| room.key == self.key);
        if let (Some(at), Some(screen)) = (at, &inner.screen) {
            let line = render::outcome(&inner.rooms[at], state, now, screen.canvas());
            // If the terminal is gone, this line is not important.
            let _ = screen.bars.println(line);
        }
        drop(inner);
        drop(self);
    }
}

impl Drop for RoomProgress {
    fn drop(&mut self) {
        self.progress.lock().rooms.retain(|room| room.key != self.key);
    }
}

impl Inner {
    fn advance(&mut self, now: Instant) {
        self.rate.advance(now);
        for room in &mut self.rooms {
            room.events.advance(now);
            room.share.advance(now);
        }
    }

    fn draw(&mut self, now: Instant) {
        let Some(screen) = &mut self.screen else {
            return;
        };
        if screen.drawn_at.is_some_and(|at| now.saturating_duration_since(at) < FRAME) {
            return;
        }
        screen.drawn_at = Some(now);
        let lines = render::lines(&self.rooms, self.following, now, screen.canvas());
        screen.show(lines);
    }

    fn summary(&mut self, now: Instant) -> Option<Summary> {
        let logged = Logged {
            rooms_active: self.rooms.iter().filter(|room| !room.is_first_sync).count(),
            event_count: self.event_count,
            live_event_count: self.following.map_or(self.logged.live_event_count, |f| f.event_count),
        };
        let due = now.saturating_duration_since(self.logged_at) >= SUMMARY;
        if self.screen.is_some() || !due || logged == self.logged {
            return None;
        }
        self.advance(now);
        let left = self.rooms.iter().map(Room::seconds_left);
        let summary = Summary {
            first_sync: self.rooms.iter().any(|room| room.is_first_sync),
            rooms_active: logged.rooms_active,
            event_count: logged.event_count,
            page_count: self.page_count,
            live_event_count: logged.live_event_count,
            rate_per_second: whole(self.rate.per_second().unwrap_or(0.0)),
            eta_s: left.max().flatten().filter(|_| self.rooms.iter().all(|r| r.seconds_left().is_some())),
        };
        self.logged = logged;
        self.logged_at = now;
        Some(summary)
    }
}

impl Room {
    fn new(key: u64, name: &str, now: Instant) -> Self {
        Self {
            key,
            name: name.to_owned(),
            is_first_sync: false,
            reached: None,
            since: now,
            stored: 0,
            events: Rate::new(now),
            share: Rate::new(now),
        }
    }

    /// Records how far the walk is. Returns the new events and pages since the last call.
    fn update(&mut self, reached: Reached) -> (u64, u64) {
        let Some(before) = self.reached.replace(reached) else {
            return (0, 0);
        };
        let events = reached.event_count.saturating_sub(before.event_count);
        self.stored += events;
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no precision")]
        self.events.add(events as f64);
        if let (Some(share), Some(before)) = (reached.share(), before.share()) {
            self.share.add((share - before).max(0.0));
        }
        (events, reached.page_count.saturating_sub(before.page_count))
    }

    /// The estimated time until the room's creation is reached, at the current rate.
    fn seconds_left(&self) -> Option<u64> {
        let left = 1.0 - self.reached?.share()?;
        let speed = self.share.per_second().filter(|speed| *speed > 0.0)?;
        Some(whole(left / speed))
    }
}

impl Screen {
    fn canvas(&self) -> Canvas {
        let (rows, columns) = console::Term::stderr().size();
        Canvas { rows: rows.into(), columns: columns.into(), colour: self.colour }
    }

    /// Shows the lines, the first one on top. Each line of text is a progress bar without a bar.
    fn show(&mut self, texts: Vec<String>) {
        while self.lines.len() > texts.len() {
            if let Some(line) = self.lines.pop() {
                line.finish_and_clear();
                self.bars.remove(&line);
            }
        }
        while self.lines.len() < texts.len() {
            let style = ProgressStyle::with_template("{msg}");
            let bar = ProgressBar::new_spinner().with_style(style.expect("the template is fixed"));
            self.lines.push(self.bars.add(bar));
        }
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
        }
    }
}

#[cfg(test)]
mod tests;
