//! Progress as it is drawn and logged.

use console::{measure_text_width, strip_ansi_codes};

use super::*;

const DAY: i64 = 86_400_000;
const NEWEST: i64 = 1_700_000_000_000;

fn quiet() -> Progress {
    Progress::new(MultiProgress::new(), false, false)
}

/// A walk of 100 days, one day and 1000 events a page.
fn reached(pages: u64) -> Reached {
    Reached {
        event_count: pages * 1000,
        page_count: pages,
        oldest_ts: Some(NEWEST - i64::try_from(pages).unwrap() * DAY),
        newest_ts: Some(NEWEST),
        created_ts: Some(NEWEST - 100 * DAY),
    }
}

/// A room that has walked a page a second for so long.
fn room(name: &str, pages: u64) -> (Room, Instant) {
    let start = Instant::now();
    let mut room = Room::new(0, name, start);
    room.update(reached(0));
    for page in 1..=pages {
        room.update(reached(page));
        let now = start + Duration::from_secs(page);
        room.events.advance(now);
        room.share.advance(now);
    }
    (room, start + Duration::from_secs(pages))
}

fn canvas(columns: usize) -> Canvas {
    Canvas { rows: 24, columns, colour: false }
}

#[test]
fn a_share_is_shown_only_where_it_is_known() {
    assert_eq!(reached(25).share(), Some(0.25));
    assert_eq!(reached(250).share(), Some(1.0));
    let mut unknown = reached(25);
    unknown.created_ts = None;
    assert_eq!(unknown.share(), None);
    let mut absurd = reached(25);
    absurd.created_ts = Some(i64::MAX);
    assert_eq!(absurd.share(), None);
    absurd.created_ts = Some(i64::MIN);
    absurd.oldest_ts = Some(i64::MAX);
    assert_eq!(absurd.share(), Some(0.0));
}

#[test]
fn time_left_is_what_the_pace_makes_it() {
    let (room, _) = room("r", 25);
    assert_eq!(room.seconds_left(), Some(75));
    assert_eq!(whole(room.events.per_second().unwrap()), 1000);
}

#[test]
fn a_room_is_one_tidy_line() {
    let (room, now) = room("#general:example.org", 63);
    let shown = |columns| render::lines(std::slice::from_ref(&room), None, now, canvas(columns));
    assert_eq!(
        shown(80),
        ["#general:example.org            63,000 ev   1,000/s  2023-09-12   63%  37s left"]
    );
    assert_eq!(
        shown(120),
        ["#general:example.org                               63,000 ev   1,000/s  2023-09-12  \
          ━━━━━━━━━━──────   63%  37s left"]
    );
}

#[test]
fn every_line_fits_whatever_the_terminal() {
    let (mut room, now) = room("日本語\u{1b}[2J 👩‍👩‍👧 a long name that goes on and on and on", 50);
    room.reached.as_mut().unwrap().event_count = u64::MAX;
    let following = Following { room_count: 1_000_000, event_count: u64::MAX, last_news: Some(now) };
    for columns in [1, 10, 40, 79, 80, 81, 109, 110, 120, 300] {
        for colour in [false, true] {
            let canvas = Canvas { colour, ..canvas(columns) };
            let mut all = render::lines(std::slice::from_ref(&room), Some(following), now, canvas);
            all.push(render::outcome(&room, "complete\n", now, canvas));
            for line in all {
                let width = measure_text_width(&line);
                assert!(width < columns.max(2), "{width} of {columns}: {line}");
                let plain = strip_ansi_codes(&line).into_owned();
                assert!(!plain.contains(char::is_control), "{plain:?}");
                assert!(colour || plain == line);
            }
        }
    }
}

#[test]
fn many_rooms_leave_space_and_are_counted() {
    let rooms: Vec<_> = (0..40).map(|n| room(&format!("r{n}"), 1).0).collect();
    let following = Following { room_count: 52, event_count: 0, last_news: None };
    let lines = render::lines(&rooms, Some(following), Instant::now(), canvas(80));
    assert_eq!(lines.len(), 13);
    assert_eq!(lines[11], "… and 29 more");
    assert_eq!(lines[12], "following 52 rooms: nothing new yet");
    let small = Canvas { rows: 2, ..canvas(80) };
    assert_eq!(render::lines(&rooms, None, Instant::now(), small), ["… and 40 more"]);
    let exact = render::lines(&rooms[..12], None, Instant::now(), canvas(80));
    assert!(exact.len() == 12 && exact[11].starts_with("r11"));
}

#[test]
fn a_first_sync_is_said_to_be_one() {
    let progress = quiet();
    let start = Instant::now();
    let first = progress.first_sync();
    first.update(reached(0));
    first.update(reached(5));
    let summary = progress.lock().summary(start + Duration::from_millis(10_100)).unwrap();
    assert_eq!(summary.rooms_active, 0);
    assert_eq!(
        summary.message(),
        "storing the first sync response: 5,000 events stored in this run, 495 a second, about 4m to go"
    );
}

#[test]
fn a_summary_comes_every_ten_seconds_while_something_changes() {
    let progress = quiet();
    let start = Instant::now();
    let room = progress.room("r");
    room.update(reached(0));
    let at = |seconds: u64| {
        let now = start + Duration::from_millis(seconds * 1000 + 100);
        progress.lock().summary(now)
    };
    room.update(reached(5));
    assert!(at(9).is_none());
    let summary = at(10).unwrap();
    assert_eq!((summary.rooms_active, summary.event_count, summary.page_count), (1, 5000, 5));
    assert_eq!(summary.eta_s, Some(192));
    assert_eq!(
        summary.message(),
        "fetching the history of 1 room: 5,000 events stored in this run, 495 a second, about 4m to go"
    );
    room.update(reached(6));
    assert!(at(19).is_none());
    assert!(at(21).is_some());
    assert!(at(40).is_none(), "nothing has changed");
    room.finish("complete");
    progress.following(3, 1);
    let summary = at(50).unwrap();
    assert_eq!(
        summary.message(),
        "no history left to fetch: 6,000 events of history stored in this run; 1 event received live"
    );
    progress.close();
    assert!(at(70).is_none(), "all has been logged");
}

#[test]
fn time_left_of_all_is_that_of_the_slowest_and_only_if_all_is_known() {
    let progress = quiet();
    let (known, other) = (progress.room("a"), progress.room("b"));
    for room in [&known, &other] {
        room.update(reached(0));
    }
    known.update(reached(50));
    other.update(reached(10));
    let start = Instant::now();
    let at = |seconds: u64| progress.lock().summary(start + Duration::from_secs(seconds)).unwrap();
    assert!(at(11).eta_s.unwrap() > 60);
    other.update(Reached { created_ts: None, ..reached(11) });
    assert_eq!(at(22).eta_s, None);
}

#[test]
fn what_a_walk_had_before_does_not_count() {
    let progress = quiet();
    let room = progress.room("r");
    room.update(reached(50));
    assert_eq!(progress.lock().event_count, 0);
    room.update(reached(51));
    assert_eq!(progress.lock().event_count, 1000);
    assert_eq!(progress.lock().page_count, 1);
    room.update(reached(3));
    assert_eq!(progress.lock().event_count, 1000, "it cannot go back");
    drop(room);
    assert!(progress.lock().rooms.is_empty());
}

#[test]
fn nothing_is_drawn_where_there_is_no_terminal() {
    let progress = quiet();
    let room = progress.room("r");
    room.update(reached(1));
    progress.tick();
    assert!(progress.lock().screen.is_none());
}
