use super::*;
use crate::archive::{EncryptionStatus, GapCounts, SearchLag};

fn room(name: Option<&str>, state: HistoryState, event_count: i64) -> RoomStatus {
    RoomStatus {
        room_id: format!("!{}:hs.test", name.map_or(11, str::len)),
        name: name.map(str::to_owned),
        membership: Membership::Join,
        history_state: state,
        history_reason: None,
        paused: false,
        event_count,
        pages: 1,
        rate: None,
        eta_s: None,
        oldest_reached_ts: None,
        oldest_ts: Some(1_614_816_000_000),
        created_ts: None,
        gaps: GapCounts::default(),
        last_error: None,
    }
}

fn status() -> Status {
    let mut walking = room(Some("日本語の部屋"), HistoryState::Walking, 1_234_567);
    (walking.rate, walking.eta_s) = (Some(2345.6), Some(840.0));
    let mut stalled =
        room(Some("Operations and everything that has to do with them"), HistoryState::Stalled, 77);
    stalled.history_reason = Some("the server repeatedly returns `end` equal to `from`".to_owned());
    stalled.last_error.clone_from(&stalled.history_reason);
    stalled.gaps.open = 2;
    let mut left = room(None, HistoryState::Truncated, 3);
    left.membership = Membership::Leave;
    left.history_reason = Some("purged, or not visible".to_owned());
    Status {
        user_id: Some("@archive:hs.test".to_owned()),
        homeserver: Some("https://hs.test/".to_owned()),
        synced_at: None,
        synced_ago_s: Some(12.3),
        homeserver_error: None,
        homeserver_failing_s: None,
        at_work: true,
        waits: Vec::new(),
        database_bytes: 1_234_567_890,
        quarantined: 0,
        originals: 0,
        only_here: 0,
        search: SearchLag::default(),
        encryption: EncryptionStatus::default(),
        rooms: vec![room(Some("General"), HistoryState::Complete, 12_345), walking, stalled, left],
    }
}

fn drawn(status: &Status, columns: usize) -> String {
    let text = page(status, false, Canvas { columns, colour: false });
    for line in text.lines() {
        assert!(console::measure_text_width(line) <= columns, "{line:?}");
        assert_eq!(line, line.trim_end());
    }
    text
}

#[test]
fn at_140_columns_there_is_room_for_all() {
    assert_eq!(
        drawn(&status(), 140),
        "\
@archive:hs.test on https://hs.test
running · synced 12 s ago · database 1.2 GB

Room                                          Member  History       Events  Back to       Gaps     Rate  Left  Room id
General                                               complete      12,345  2021-03-04                         !7:hs.test
日本語の部屋                                          walking    1,234,567  2021-03-04          2,346/s   14m  !18:hs.test
Operations and everything that has to do wi…          stalled           77  2021-03-04  2 open                 !50:hs.test
!11:hs.test                                   leave   truncated          3  2021-03-04

  Operations and everything that has to do wi…: stalled: the server repeatedly returns `end` equal to `from`
  !11:hs.test: truncated: purged, or not visible

4 rooms · 1,246,992 events · 1 complete · 1 walking · 1 truncated · 1 stalled · 2 gaps open
"
    );
}

#[test]
fn at_80_columns_the_name_is_cut_and_the_id_gives_way() {
    assert_eq!(
        drawn(&status(), 80),
        "\
@archive:hs.test on https://hs.test
running · synced 12 s ago · database 1.2 GB

Room                      Member  History       Events  Back to       Gaps  Left
General                           complete      12,345  2021-03-04
日本語の部屋                      walking    1,234,567  2021-03-04           14m
Operations and everythi…          stalled           77  2021-03-04  2 open
!11:hs.test               leave   truncated          3  2021-03-04

  Operations and everything that has to do wi…: stalled: the server repeatedly
    returns `end` equal to `from`
  !11:hs.test: truncated: purged, or not visible

4 rooms · 1,246,992 events · 1 complete · 1 walking · 1 truncated · 1 stalled
2 gaps open
"
    );
}

#[test]
fn at_40_columns_what_matters_most_stays() {
    let text = drawn(&status(), 40);
    let table: Vec<_> = text.lines().skip(4).take(5).collect();
    assert_eq!(
        table,
        [
            "Room                           History",
            "General                        complete",
            "日本語の部屋                   walking",
            "Operations and everything th…  stalled",
            "!11:hs.test                    truncated",
        ],
        "{text}"
    );
}

#[test]
fn rooms_without_trouble_have_a_small_table() {
    let mut status = status();
    status.rooms.truncate(1);
    status.at_work = false;
    status.synced_ago_s = None;
    status.quarantined = 2;
    status.encryption =
        EncryptionStatus { encrypted: 1200, readable: 1100, oldest_s: Some(90.0), ..Default::default() };
    assert_eq!(
        drawn(&status, 100),
        "\
@archive:hs.test on https://hs.test
not running · never synced · database 1.2 GB · 100 of 1,200 encrypted unreadable
decrypting 90s behind · 2 quarantined

Room     History   Events  Back to     Room id
General  complete  12,345  2021-03-04  !7:hs.test

1 room · 12,345 events · 1 complete
"
    );
}

#[test]
fn a_paused_room_is_shown_as_paused_and_no_more() {
    let mut status = status();
    status.rooms.truncate(3);
    status.rooms[1].paused = true;
    status.rooms[2].paused = true;
    assert_eq!(
        drawn(&status, 100),
        "\
@archive:hs.test on https://hs.test
running · synced 12 s ago · database 1.2 GB

Room                                          History      Events  Back to       Gaps  Room id
General                                       complete     12,345  2021-03-04          !7:hs.test
日本語の部屋                                  paused    1,234,567  2021-03-04          !18:hs.test
Operations and everything that has to do wi…  paused           77  2021-03-04  2 open  !50:hs.test

3 rooms · 1,246,989 events · 1 complete · 2 paused · 2 gaps open
"
    );
}

#[test]
fn kept_originals_are_named() {
    let mut status = status();
    let canvas = Canvas { columns: 100, colour: false };
    assert!(header(&status, true, canvas).contains("redactions retain, 0 originals kept"));
    status.originals = 1;
    assert!(header(&status, false, canvas).contains("1 original kept from earlier"));
    status.only_here = 1200;
    assert!(header(&status, false, canvas).contains("1,200 events only here"));
}

#[test]
fn hostile_names_do_no_harm_in_colour_either() {
    let mut hostile = room(Some("\u{1b}[2Jx\u{202e}\n\u{9b}"), HistoryState::Stalled, 1);
    hostile.history_reason = Some("sta\u{1b}[2Jlled".to_owned());
    hostile.last_error = Some("\u{1b}]0;title\u{7}".to_owned());
    let status = Status { rooms: vec![hostile], user_id: Some("@\u{1b}[36m:hs".to_owned()), ..status() };
    let text = page(&status, false, Canvas { columns: 80, colour: true });
    let codes = text.matches('\u{1b}').count();
    let painted = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];
    assert_eq!(codes, painted.iter().map(|code| text.matches(code).count()).sum::<usize>(), "{text:?}");
    assert!(!text.contains(['\u{202e}', '\u{9b}', '\u{7}']));
}

#[test]
fn an_archive_without_rooms_says_so() {
    let status = Status { rooms: Vec::new(), ..status() };
    assert!(drawn(&status, 80).contains("No rooms yet."));
    let first = drawn(&Status { synced_ago_s: None, ..status }, 80);
    assert!(first.contains("first sync under way") && first.contains("they appear as"), "{first}");
}
