//! Renders the output of `backscroll status`.

use crate::{
    archive::{HistoryState, RoomStatus, Status},
    matrix::Membership,
    text::{
        Canvas, ago, count, cut, day, duration, escape, rate, size,
        table::{Cell, Column, lay_out},
        thousands, whole,
    },
};

/// The state of a room's history. `None`: the room is paused.
type State = Option<HistoryState>;

/// Every state, in the order of the totals.
const STATES: [State; 6] = [
    Some(HistoryState::Complete),
    Some(HistoryState::Walking),
    Some(HistoryState::Truncated),
    Some(HistoryState::Stalled),
    None,
    Some(HistoryState::None),
];
/// Names in reasons are cut to this width.
const NAME: usize = 44;

pub(super) fn page(status: &Status, retain: bool, canvas: Canvas) -> String {
    let mut page = header(status, retain, canvas);
    for wait in &status.waits {
        let holder = wait.holder();
        let text = format!(
            "A transaction has waited {:.0} s for a lock that {} holds: nothing is stored there until it is released.",
            wait.waited_s,
            escape(&holder)
        );
        page.push_str(&canvas.hang("", 0, &text));
    }
    page.push('\n');
    if status.rooms.is_empty() {
        let text = if status.at_work && status.synced_ago_s.is_none() {
            "No rooms yet: they appear as the first sync response is stored."
        } else {
            "No rooms yet. `backscroll check` shows which rooms the account is in and which of them are archived."
        };
        return page + &canvas.hang("", 0, text);
    }
    page.push_str(&rooms(&status.rooms, canvas));
    page.push('\n');
    let reasons: Vec<_> = status.rooms.iter().filter_map(|room| reasons(room, canvas)).collect();
    if !reasons.is_empty() {
        page.push_str(&reasons.concat());
        page.push('\n');
    }
    page + &totals(&status.rooms, canvas)
}

/// The search, or decrypting, is shown as behind after this many seconds.
const SEARCH_LAGS: f64 = 10.0;

/// The account, the homeserver, and the state of the archive.
fn header(status: &Status, retain: bool, canvas: Canvas) -> String {
    let user = status.user_id.as_deref().unwrap_or("no account yet");
    let homeserver = status.homeserver.as_deref().map(|url| format!(" on {}", url.trim_end_matches('/')));
    let whose = canvas.hang("", 0, &format!("{user}{}", homeserver.unwrap_or_default()));
    let synced = match status.synced_ago_s {
        Some(seconds) => format!("synced {}", ago(seconds)),
        None if status.at_work => "first sync under way".to_owned(),
        None => "never synced".to_owned(),
    };
    let mut facts = vec![
        if status.at_work { ("running".to_owned(), "32") } else { ("not running".to_owned(), "33") },
        (synced, ""),
        (format!("database {}", size(status.database_bytes)), ""),
    ];
    if retain {
        facts.push((format!("redactions retain, {} kept", originals(status)), "33"));
    } else if status.originals > 0 {
        facts.push((format!("{} kept from earlier", originals(status)), "33"));
    }
    if status.only_here > 0 {
        facts.push((format!("{} only here", count(status.only_here, "event")), "33"));
    }
    if let Some(lag) = status.search.oldest_s.filter(|lag| *lag >= SEARCH_LAGS) {
        facts.push((format!("search {} behind", duration(whole(lag))), "33"));
    }
    if status.encryption.undecryptable() > 0 {
        let (unread, all) = (status.encryption.undecryptable(), status.encryption.encrypted);
        facts.push((format!("{} of {} encrypted unreadable", thousands(unread), thousands(all)), "33"));
    }
    if let Some(device_id) = &status.encryption.device_id {
        facts.push((format!("keys come to device {}", crate::text::Printable(device_id)), ""));
    }
    if status.encryption.backup_problem.is_some() {
        facts.push(("key backup unread".to_owned(), "33"));
    } else if let Some(seconds) = status.encryption.backup_read_ago_s {
        facts.push((format!("key backup read {}", ago(seconds)), ""));
    }
    if let Some(lag) = status.encryption.oldest_s.filter(|lag| *lag >= SEARCH_LAGS) {
        facts.push((format!("decrypting {} behind", duration(whole(lag))), "33"));
    }
    if status.quarantined > 0 {
        facts.push((format!("{} quarantined", thousands(status.quarantined)), "33"));
    }
    canvas.paint("1", whose.trim_end()) + "\n" + &join(&facts, canvas) + &trouble(status, canvas)
}

/// The homeserver's error, if it fails, and why the key backup cannot be read.
fn trouble(status: &Status, canvas: Canvas) -> String {
    let mut troubles = String::new();
    if let Some(error) = &status.homeserver_error {
        let since = status.homeserver_failing_s.map_or_else(String::new, |s| format!(", first {}", ago(s)));
        let text = canvas.hang("", 0, &format!("No answer from the homeserver{since}: {error}"));
        troubles += &(canvas.paint("31", text.trim_end()) + "\n");
    }
    if let Some(problem) = &status.encryption.backup_problem {
        let problem = crate::text::Printable(problem);
        let text = canvas.hang("", 0, &format!("The key backup cannot be read: {problem}"));
        troubles += &(canvas.paint("33", text.trim_end()) + "\n");
    }
    troubles
}

fn originals(status: &Status) -> String {
    count(status.originals, "original")
}

/// Joins facts with dots, in as many lines as needed.
fn join(facts: &[(String, &'static str)], canvas: Canvas) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for (fact, code) in facts {
        let wide = fact.chars().count();
        if width > 0 && width + 3 + wide > canvas.columns {
            lines.push('\n');
            width = 0;
        }
        if width > 0 {
            lines.push_str(&canvas.paint("2", " · "));
            width += 3;
        }
        lines.push_str(&canvas.paint(code, fact));
        width += wide;
    }
    lines + "\n"
}

fn rooms(rooms: &[RoomStatus], canvas: Canvas) -> String {
    let column = |title, right, spare, cell: &dyn Fn(&RoomStatus) -> Cell| Column {
        title,
        right,
        spare,
        cells: rooms.iter().map(cell).collect(),
    };
    let walking = |room: &RoomStatus| state(room) == Some(HistoryState::Walking);
    let columns = vec![
        column("Room", false, 0, &|room| Cell::new(cut(name(room), usize::MAX), "")),
        column("Member", false, 5, &|room| match room.membership {
            Membership::Join => Cell::default(),
            other => Cell::new(other.as_str().to_owned(), "2"),
        }),
        column("History", false, 0, &|room| Cell::new(word(state(room)).to_owned(), paint(state(room)))),
        column("Events", true, 1, &|room| Cell::new(thousands(room.event_count), "")),
        column("Back to", false, 3, &|room| Cell::new(room.oldest_ts.map_or_else(String::new, day), "")),
        column("Gaps", true, 2, &gaps),
        column("Rate", true, 6, &|room| {
            Cell::new(room.rate.filter(|_| walking(room)).map_or_else(String::new, rate), "2")
        }),
        column("Left", true, 4, &|room| {
            Cell::new(
                room.eta_s.filter(|_| walking(room)).map_or_else(String::new, |s| duration(whole(s))),
                "",
            )
        }),
        column("Room id", false, 7, &|room| {
            if named(room).is_some() {
                Cell::new(cut(&room.room_id, usize::MAX), "2")
            } else {
                Cell::default()
            }
        }),
    ];
    lay_out(columns, canvas)
}

fn gaps(room: &RoomStatus) -> Cell {
    match (room.gaps.open, room.gaps.skipped) {
        (0, 0) => Cell::default(),
        (open, 0) => Cell::new(format!("{} open", thousands(open)), "33"),
        (0, skipped) => Cell::new(format!("{} skipped", thousands(skipped)), "2"),
        (open, skipped) => {
            Cell::new(format!("{} open, {} skipped", thousands(open), thousands(skipped)), "33")
        }
    }
}

/// The name, unless it is blank.
fn named(room: &RoomStatus) -> Option<&str> {
    room.name.as_deref().map(str::trim).filter(|name| !name.is_empty())
}

fn name(room: &RoomStatus) -> &str {
    named(room).unwrap_or(&room.room_id)
}

fn state(room: &RoomStatus) -> State {
    (!room.paused).then_some(room.history_state)
}

fn word(state: State) -> &'static str {
    state.map_or("paused", HistoryState::as_str)
}

fn paint(state: State) -> &'static str {
    match state {
        Some(HistoryState::Complete) => "32",
        Some(HistoryState::Walking) => "36",
        Some(HistoryState::Stalled) => "31",
        Some(HistoryState::Truncated) => "33",
        Some(HistoryState::None) => "2",
        None => "35",
    }
}

/// Why the room is not complete.
fn reasons(room: &RoomStatus, canvas: Canvas) -> Option<String> {
    // The problems of a paused room are not shown until it is resumed.
    let halted = matches!(state(room), Some(HistoryState::Stalled | HistoryState::Truncated));
    let reason = room.history_reason.as_deref().filter(|_| halted);
    let error = room.last_error.as_deref().filter(|error| Some(*error) != reason && !room.paused);
    let mut texts = Vec::new();
    if halted {
        let state = room.history_state.as_str();
        texts.push(reason.map_or_else(|| state.to_owned(), |why| format!("{state}: {why}")));
    }
    // A complete room has a reason if some of its data could not be read.
    texts.extend(room.history_reason.clone().filter(|_| state(room) == Some(HistoryState::Complete)));
    texts.extend(error.map(|error| format!("last error: {error}")));
    if texts.is_empty() {
        return None;
    }
    // The name is not wrapped, so that it looks as in the table.
    let name = cut(name(room), NAME);
    let laid = canvas.hang("  ", 4, &format!("{name}: {}", texts.join("; ")));
    let code = if halted { paint(state(room)) } else { "33" };
    Some(laid.replacen(&name, &canvas.paint(code, &name), 1))
}

fn totals(rooms: &[RoomStatus], canvas: Canvas) -> String {
    let sum = |of: fn(&RoomStatus) -> i64| rooms.iter().map(of).fold(0, i64::saturating_add);
    let mut facts = vec![
        (count(rooms.len() as u64, "room"), "1"),
        (format!("{} events", thousands(sum(|room| room.event_count))), "1"),
    ];
    for of in STATES {
        let with = rooms.iter().filter(|room| state(room) == of).count();
        if with > 0 {
            let text = if of == Some(HistoryState::None) { "not begun" } else { word(of) };
            facts.push((format!("{with} {text}"), paint(of)));
        }
    }
    let (open, skipped) = (sum(|room| room.gaps.open), sum(|room| room.gaps.skipped));
    if open > 0 {
        facts.push((format!("{} open", count(open, "gap")), "33"));
    }
    if skipped > 0 {
        facts.push((format!("{} skipped", count(skipped, "gap")), "2"));
    }
    join(&facts, canvas)
}

#[cfg(test)]
mod tests;
