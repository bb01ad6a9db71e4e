//! Cases that failed once, or that a deliberate bug of `tests/mutants.sh` must fail.

use super::{
    play::{play, settled},
    script::{
        After, Case,
        Step::{
            self, Ban, Burst, DeadCursors, DeadToken, Fork, Invite, Kill, KillWalk, Late, LateState, Learn,
            Leave, Message, Once, Pause, Redact, Rejoin, Resume, State, Walk,
        },
        Style,
    },
};

/// One room, small pages, small timelines, and a server that tells the state as servers of old do.
fn case(steps: &[Step]) -> Case {
    Case {
        rooms: vec!["10"],
        stranger: false,
        style: Style::Synapse,
        state_after: After::Never,
        page_size: 3,
        timeline_cap: 3,
        binary: false,
        steps: steps.to_vec(),
    }
}

#[tokio::test]
async fn what_arrived_late_before_the_first_sync() {
    play(&case(&[Message(0), Message(0), Burst(0), Late(0, 0), Late(0, 3), LateState(0, 4, 0)])).await;
}

#[tokio::test]
async fn what_arrived_late_in_a_gap_with_state() {
    let gap = [Message(0), Message(0), Late(0, 1), Message(0), Message(0), State(0, 0), Burst(0)];
    play(&case(&[&[Once][..], &gap].concat())).await;
}

#[tokio::test]
async fn a_fork_just_before_the_leave() {
    play(&case(&[State(0, 3), State(0, 3), Once, Fork(0, 3), Leave(0)])).await;
}

#[tokio::test]
async fn forks_before_the_first_sync() {
    play(&case(&[State(0, 0), State(0, 1), Fork(0, 0), Fork(0, 1)])).await;
}

#[tokio::test]
async fn the_first_value_of_a_key_comes_last() {
    play(&case(&[State(0, 0), Once, LateState(0, 1, 0)])).await;
}

#[tokio::test]
async fn late_events_of_an_absence_that_the_sync_has_passed() {
    let away = [Leave(0), Once, Message(0), Late(0, 0), Late(0, 1), Burst(0), Once];
    play(&case(&[&[Message(0), Burst(0), Once][..], &away, &[Rejoin(0), Message(0)]].concat())).await;
}

#[tokio::test]
async fn late_events_beside_the_timeline_of_a_rejoin() {
    let steps =
        [Burst(0), Once, Leave(0), Once, Burst(0), Rejoin(0), Message(0), Burst(0), Late(0, 0), Late(0, 20)];
    play(&case(&steps)).await;
}

#[tokio::test]
async fn kills_in_the_first_sync_and_in_a_gap() {
    let mut steps = vec![Burst(0), State(0, 0), Redact(0, 2)];
    steps.extend((0..12).map(|n| Kill(n, n)));
    steps.extend([Burst(0), State(0, 0), State(0, 0), Redact(0, 3), Burst(0)]);
    steps.extend((0..20).map(|n| Kill(n, 2 * n % 7)));
    play(&case(&steps)).await;
}

#[tokio::test]
async fn a_room_left_before_the_first_sync() {
    play(&case(&[Message(0), Leave(0), LateState(0, 3, 3), Message(0), LateState(0, 3, 0)])).await;
}

#[tokio::test]
async fn back_and_gone_again_between_two_syncs() {
    let away = [Leave(0), Once, Message(0), State(0, 0), Burst(0), Once];
    play(&case(&[&[Message(0), Once][..], &away, &[Rejoin(0), Leave(0)]].concat())).await;
}

/// P78: the redaction was redacted before it was seen, so it does not say any more what it redacted.
#[tokio::test]
async fn a_redaction_that_was_redacted_in_a_gap() {
    for version in ["1", "10", "11"] {
        let steps = [Message(0), Message(0), Once, Redact(0, 4), Redact(0, 6), Burst(0)];
        play(&Case { rooms: vec![version], ..case(&steps) }).await;
        let steps = [Message(0), Message(0), Once, Redact(0, 4), Redact(0, 6)];
        play(&Case { rooms: vec![version], ..case(&steps) }).await;
    }
}

/// Where `to` bounds no walk, neither what was known before the gap nor the room's start tells that nothing more of the
/// gap lies below.
#[tokio::test]
async fn late_events_far_below_a_gap_of_a_server_that_ignores_to() {
    let gap = [Message(0), Late(0, 1), LateState(0, 2, 0), Burst(0), Burst(0)];
    let steps = [&[Burst(0), Burst(0), Burst(0), Once][..], &gap].concat();
    play(&Case { style: Style::IgnoresTo, ..case(&steps) }).await;
}

/// `to`, with which the first pass of a gap goes, hides it.
#[tokio::test]
async fn what_the_server_fetched_into_a_gap() {
    let case = case(&[Once, Message(0), Message(0), Learn(0, 5), Message(0), Message(0), Burst(0)]);
    let play = settled(&case).await;
    let archived = play.database.column("select event_id from events").await;
    assert!(play.rooms[0].learnt.iter().all(|event_id| archived.contains(event_id)));
}

/// No token says since when, so nothing short of the room's start may end the gap's walk.
#[tokio::test]
async fn late_events_below_the_leave_that_the_first_sync_told() {
    let away = [Burst(0), Burst(0), Leave(0), Once, Message(0), Rejoin(0)];
    play(&case(&[&away[..], &[Late(0, 1), Late(0, 2), Message(0), Burst(0)]].concat())).await;
}

/// The leave itself, and what came with it, lie above the token from which the gap of the rejoin is filled.
#[tokio::test]
async fn late_events_of_a_long_absence() {
    let steps = [
        Once,
        Late(0, 12),
        LateState(0, 38, 0),
        Redact(0, 149),
        Message(0),
        Message(0),
        Message(0),
        Burst(0),
        Leave(0),
        Late(0, 92),
        Once,
        Burst(0),
        Once,
        State(0, 1),
        State(0, 3),
        Kill(15, 13),
        Redact(0, 173),
        Message(0),
        State(0, 1),
        LateState(0, 142, 0),
        Burst(0),
        Once,
        Message(0),
        Once,
        LateState(0, 75, 1),
        State(0, 2),
        Late(0, 20),
        State(0, 3),
        Once,
        Message(0),
        Rejoin(0),
    ];
    play(&Case { rooms: vec!["1"], ..case(&steps) }).await;
}

/// What arrives while the account is away, beside what an earlier walk could only place too low.
#[tokio::test]
async fn a_late_event_beside_a_fetched_one() {
    let steps = [
        Kill(20, 16),
        State(0, 3),
        Redact(1, 124),
        Once,
        Once,
        Message(2),
        Burst(2),
        Redact(0, 40),
        Fork(1, 0),
        Redact(2, 3),
        Late(2, 170),
        Fork(2, 3),
        Learn(2, 151),
        Rejoin(1),
        Kill(0, 1),
        Once,
        Once,
        Learn(1, 32),
        Leave(0),
        Once,
        Message(2),
        Burst(0),
        Message(2),
        Leave(2),
        Once,
        Burst(1),
        Late(2, 152),
        Message(0),
    ];
    play(&Case { rooms: vec!["6", "12", "1"], timeline_cap: 100, ..case(&steps) }).await;
}

/// Between what a walk from the newest event finds of an absence stands what an earlier one has placed high above.
#[tokio::test]
async fn late_events_of_an_absence_on_both_sides_of_one_that_was_known() {
    let away = [Leave(0), Late(0, 6), LateState(0, 5, 0), Late(0, 4)];
    let steps = [&[Once, LateState(0, 0, 3), Late(0, 0), State(0, 1), State(0, 2), Late(0, 1)][..], &away];
    play(&Case { page_size: 40, ..case(&steps.concat()) }).await;
}

/// What an earlier walk could only place too low takes what belongs below it along, also what came late into a gap.
#[tokio::test]
async fn late_events_in_a_gap_below_a_fetched_one() {
    let steps = [
        Kill(22, 16),
        Burst(2),
        Rejoin(0),
        Learn(0, 170),
        Once,
        Late(2, 41),
        State(0, 2),
        LateState(1, 114, 3),
        Message(2),
        Once,
        Late(1, 35),
        Redact(2, 157),
        LateState(1, 46, 0),
        LateState(1, 41, 3),
        Late(0, 61),
        State(0, 3),
        Burst(0),
        Once,
    ];
    let style = Style::IgnoresTo;
    play(&Case { rooms: vec!["1"], style, page_size: 3, timeline_cap: 100, ..case(&steps) }).await;
}

/// The join stands in what the leave's limited timeline leaves out, and so does what was said while the account was away.
#[tokio::test]
async fn back_and_gone_again_beyond_a_limited_timeline() {
    let away = [Leave(0), Burst(0), Burst(0), Once];
    let back = [Rejoin(0), Burst(0), Leave(0), Late(0, 72)];
    play(&Case { page_size: 5, timeline_cap: 100, ..case(&[away, back].concat()) }).await;
}

/// The same with state that was set while the account was away, which is told to those who stay.
#[tokio::test]
async fn state_of_an_absence_that_ended_beyond_a_limited_timeline() {
    play(&case(&[Leave(0), State(0, 0), Once, Rejoin(0), Burst(0), Leave(0)])).await;
}

/// A walk that began at the end of a room that was left, and could go on only after the account was back.
#[tokio::test]
async fn a_gap_of_a_ban_walked_after_the_return() {
    let steps = [Once, Ban(0), DeadToken, Burst(0), Once];
    play(&Case { rooms: vec!["11"], timeline_cap: 100, ..case(&steps) }).await;
    let steps = [Once, Ban(0), Message(0), DeadToken, Kill(14, 16), Burst(0)];
    play(&Case { state_after: After::Stable, page_size: 40, timeline_cap: 10, ..case(&steps) }).await;
    let steps = [Ban(0), Burst(0), Kill(26, 7), DeadToken, State(0, 1), Once];
    play(&Case { state_after: After::Unstable, ..case(&steps) }).await;
    let steps = [Kill(6, 10), Ban(0), DeadToken, Redact(0, 146), Once, Burst(0)];
    play(&Case { rooms: vec!["1"], page_size: 10, timeline_cap: 10, ..case(&steps) }).await;
}

/// Between two pages of an older gap's walk a newer gap opens, and what the server has learnt above the older leads there.
#[tokio::test]
async fn the_walk_of_an_older_gap_led_into_a_newer_one() {
    for requests in [24, 26, 28] {
        let older =
            [LateState(1, 182, 2), Learn(0, 155), Once, Message(2), Burst(0), Late(1, 31), Kill(11, 12)];
        let newer = [State(0, 3), Learn(1, 161), LateState(2, 2, 3), Late(2, 35), Redact(1, 199), Message(2)];
        let killed = [LateState(1, 168, 0), Redact(2, 122), Kill(requests, 6), Late(1, 42), State(2, 2)];
        let newest = [Burst(1), Redact(2, 120), Message(2), Redact(0, 86), Learn(2, 171)];
        let steps = [&older[..], &newer, &killed, &newest].concat();
        play(&Case { rooms: vec!["1"], style: Style::Overlap, ..case(&steps) }).await;
    }
}

/// A page that repeats what the one before it held, with what that one's token did not show in between.
#[tokio::test]
async fn a_late_event_in_what_a_page_repeats() {
    let before =
        [Redact(0, 175), Message(2), Kill(13, 17), Message(0), Once, Redact(0, 151), Burst(2), Late(0, 10)];
    let gap = [Message(0), Kill(6, 5), LateState(2, 97, 1), State(0, 3), Late(0, 28), Late(0, 37)];
    let steps = [&before[..], &gap].concat();
    play(&Case { rooms: vec!["1", "6"], style: Style::Overlap, ..case(&steps) }).await;
}

/// The walk begins just below a late event, which its first page holds further down.
#[tokio::test]
async fn a_walk_that_begins_below_what_its_first_page_holds() {
    let steps =
        [LateState(0, 112, 2), Once, Learn(0, 166), Once, LateState(2, 28, 2), Once, Learn(2, 144), Once];
    play(&Case { rooms: vec!["1"], page_size: 5, ..case(&steps) }).await;
}

/// A walk through a newer gap meets a late event just below the upper edge of an older one, whose own walk then has little
/// room above it for many pages.
#[tokio::test]
async fn a_late_event_near_the_edge_of_a_gap_of_many_pages() {
    let steps = [
        Redact(2, 114),
        Redact(1, 52),
        Redact(0, 92),
        Late(0, 172),
        Burst(1),
        Message(1),
        Learn(2, 67),
        Redact(0, 117),
        Once,
        Kill(29, 14),
        Once,
        Ban(2),
        DeadToken,
        State(1, 3),
        Kill(29, 15),
        Burst(0),
        Redact(1, 64),
        Kill(24, 10),
        Message(2),
        Fork(2, 3),
        Rejoin(0),
        Message(1),
        Message(2),
        Ban(0),
        Once,
        Late(1, 127),
        Once,
        Burst(1),
        Kill(26, 5),
        Learn(2, 79),
        Leave(1),
        Redact(2, 85),
        Once,
        Kill(0, 4),
    ];
    play(&Case { rooms: vec!["6"], state_after: After::Unstable, timeline_cap: 100, ..case(&steps) }).await;
}

/// What arrives in a newer gap belongs into an older one, which a ban keeps from being walked: it is found with its neighbours.
#[tokio::test]
async fn a_late_event_in_a_gap_that_a_ban_has_kept_open() {
    let away = [Leave(0), Burst(0), Once, Kill(0, 5), Rejoin(0), Ban(0), Kill(10, 12), Burst(0)];
    let steps = [&[Message(0), Once][..], &away, &[Late(0, 14), Once]].concat();
    play(&Case { page_size: 40, timeline_cap: 10, ..case(&steps) }).await;
}

/// What arrives between two pages of a gap's first pass after a rejoin belongs among what the timeline told.
#[tokio::test]
async fn a_late_event_after_a_rejoin_and_the_loss_of_since() {
    let steps = [
        Burst(2),
        Once,
        Message(0),
        Burst(1),
        Leave(0),
        LateState(1, 169, 3),
        Late(0, 199),
        Leave(0),
        Once,
        State(2, 2),
        Learn(1, 106),
        Late(2, 121),
        Fork(1, 0),
        Fork(2, 0),
        Rejoin(2),
        Leave(1),
        State(1, 2),
        Late(2, 130),
        Late(1, 108),
        Late(1, 29),
        Rejoin(0),
        State(2, 0),
        Kill(11, 9),
        Late(0, 34),
        Fork(2, 3),
        DeadToken,
        Late(0, 193),
        Burst(2),
        State(2, 3),
        Message(1),
        Once,
        State(1, 0),
        Once,
        Once,
        Late(1, 102),
        Late(1, 95),
        Redact(1, 116),
        Leave(2),
        State(0, 0),
    ];
    let (style, state_after) = (Style::Overlap, After::Stable);
    play(&Case { style, state_after, page_size: 5, timeline_cap: 100, ..case(&steps) }).await;
}

/// The archive learns of the room by a leave.
#[tokio::test]
async fn a_room_joined_and_left_beyond_a_limited_timeline() {
    let steps = [Once, Rejoin(0), Burst(1), Leave(0)];
    play(&Case { rooms: vec!["1"], stranger: true, page_size: 40, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_history_refused_because_of_a_ban_that_was_lifted_during_a_pause() {
    let steps = [Ban(0), Once, Pause(0), Rejoin(0), Once];
    play(&Case { page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_history_refused_because_of_a_ban_and_a_room_left_during_a_pause() {
    let steps = [Ban(0), Once, Pause(0), Rejoin(0), Leave(0), Once, Resume(0), Once];
    play(&Case { page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

/// No answer of `/sync` tells that the account was in the room; `/state` does not either: Synapse gives it also to who has
/// declined an invite without ever having been there.
#[tokio::test]
async fn an_invite_to_a_room_left_before_the_first_sync_declined() {
    play(&case(&[Leave(0), Invite(0), Once, Leave(0)])).await;
}

/// With less room than of a leap, eighty short pages use up all the places that there are.
#[tokio::test]
async fn a_pause_of_many_pages() {
    let steps = [Once, Pause(0), Burst(0), Burst(0), Once];
    play(&Case { style: Style::Overlap, timeline_cap: 100, ..case(&steps) }).await;
}

/// The one event of the first timeline after it sorts below all that is missing.
#[tokio::test]
async fn a_late_event_after_a_pause_of_many_pages() {
    let steps = [Once, Burst(0), Burst(0), Burst(0), Pause(0), Once, LateState(0, 15, 3)];
    play(&Case { style: Style::ShortPages, page_size: 10, timeline_cap: 100, ..case(&steps) }).await;
}

/// The bootstrap's walk was killed before it had a page, and `backfill` hears no `/sync`: from `since`, what the server has
/// learnt shows without the message that it belongs after.
#[tokio::test]
async fn what_the_server_learnt_before_a_walk_without_a_sync() {
    let steps = [Kill(4, 0), Message(0), Learn(0, 4), KillWalk(0, 5, 1)];
    play(&case(&steps)).await;
}

/// Of a room that is resumed while there is an invite to it, no answer tells that it is archived again.
#[tokio::test]
async fn a_room_resumed_while_invited_and_the_invite_declined() {
    let steps =
        [Once, Leave(0), Message(0), Pause(0), Invite(0), Once, Resume(0), Once, Message(0), Leave(0)];
    play(&case(&steps)).await;
}

/// A timeline tells it, and `to` hides it from the walk that begins above that.
#[tokio::test]
async fn what_the_server_learnt_in_a_timeline_above_a_gap() {
    let steps = [Once, Leave(0), Once, Burst(0), Learn(0, 11), Message(0), Rejoin(0)];
    play(&case(&steps)).await;
}

/// The timeline after the return has it among what arrived since the leave, which the walk did not see.
#[tokio::test]
async fn what_arrived_late_before_a_walk_and_a_return_without_a_sync() {
    let steps = [Once, Message(0), Leave(0), Message(0), LateState(0, 4, 1), Walk(0), Rejoin(0), Message(0)];
    play(&Case { rooms: vec!["1"], page_size: 5, timeline_cap: 10, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_pause_while_the_first_pass_through_an_older_gap_was_killed() {
    let before =
        [Once, State(2, 1), Late(1, 140), Learn(0, 81), State(2, 1), State(0, 3), Rejoin(2), DeadCursors];
    let gap =
        [State(0, 1), Learn(0, 121), Late(2, 32), Rejoin(0), Message(2), LateState(2, 44, 1), Late(2, 27)];
    let after = [Message(1), Kill(8, 13), Rejoin(1), Burst(2), Learn(0, 44), Pause(1)];
    let steps = [&before[..], &gap, &after].concat();
    play(&Case { rooms: vec!["1"], style: Style::IgnoresTo, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_late_event_in_what_a_walk_has_placed_ahead_of_a_limited_timeline() {
    let before = [Rejoin(1), Late(0, 21), Once, State(1, 0), State(0, 0), State(1, 0), Message(0)];
    let ahead = [Late(0, 162), LateState(0, 85, 1), State(2, 3), KillWalk(0, 5, 15), Message(0)];
    let steps = [&before[..], &ahead].concat();
    let rooms = vec!["12", "1", "12"];
    play(&Case { rooms, style: Style::ShortPages, state_after: After::Stable, ..case(&steps) }).await;
}

/// Left, returned to and left again between two answers of a server that tells then what has arrived, in that order. A walk has met
/// what came late while the account was away.
#[tokio::test]
async fn what_arrived_late_before_a_walk_a_return_and_a_leave() {
    let away = [Once, Leave(0), Once, Message(0), Late(0, 2), Message(0), Walk(0)];
    let steps = [&away[..], &[Rejoin(0), Message(0), Leave(0)]].concat();
    play(&Case { style: Style::Dendrite, timeline_cap: 100, ..case(&steps) }).await;
}

/// The same without the second leave, and the timeline limited.
#[tokio::test]
async fn what_arrived_late_before_a_walk_and_a_return_in_a_limited_timeline() {
    let steps = [Once, Leave(0), Message(0), Late(0, 2), Walk(0), Rejoin(0)];
    play(&Case { style: Style::Dendrite, ..case(&steps) }).await;
}

/// The return stands in the state after the timeline, too, which is stored first. What came late is far below the gap: only a walk
/// through the whole room finds it.
#[tokio::test]
async fn what_arrived_late_before_a_leave_and_a_return_told_with_the_state_after() {
    let steps = [Burst(0), Burst(0), Burst(0), Once, Once, Late(0, 65), Leave(0), Invite(0)];
    play(&Case { state_after: After::Stable, page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

/// A walk ahead of `/sync` has found it, and was killed: what it did not get to is below that.
#[tokio::test]
async fn what_the_server_learnt_on_the_last_page_of_a_walk_that_was_killed() {
    let steps = [Once, Message(0), Message(0), Leave(0), Learn(0, 4), KillWalk(0, 5, 11)];
    play(&Case { timeline_cap: 100, ..case(&steps) }).await;
}

/// It is above the leave in the graph, which the timeline of a return and a leave does not show.
#[tokio::test]
async fn what_the_server_learnt_above_the_second_leave() {
    let steps = [Leave(0), Once, Rejoin(0), Leave(0), Learn(0, 6)];
    play(&case(&steps)).await;
}
