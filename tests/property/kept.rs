//! Cases that failed once, or that a deliberate bug of `tests/mutants.sh` must fail. A failed script prints its steps as they
//! stand here.

use super::{
    play::{play, settled},
    script::{
        After, Case,
        Step::{self, DeadCursors as DEAD_CURSORS, DeadToken as DEAD_TOKEN, Once as RUN_ONCE},
        Style, killed_at, room,
    },
};

/// One room, small pages, small timelines, and a server that reports the state as servers of old do.
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
    play(&case(&[
        room(0).message(),
        room(0).message(),
        room(0).burst(),
        room(0).late_after(0),
        room(0).late_after(3),
        room(0).late_state_after(4, 0),
    ]))
    .await;
}

#[tokio::test]
async fn what_arrived_late_in_a_gap_with_state() {
    let gap = [
        room(0).message(),
        room(0).message(),
        room(0).late_after(1),
        room(0).message(),
        room(0).message(),
        room(0).sets_state(0),
        room(0).burst(),
    ];
    play(&case(&[&[RUN_ONCE][..], &gap].concat())).await;
}

#[tokio::test]
async fn a_fork_just_before_the_leave() {
    play(&case(&[
        room(0).sets_state(3),
        room(0).sets_state(3),
        RUN_ONCE,
        room(0).loses_fork(3),
        room(0).leave(),
    ]))
    .await;
}

#[tokio::test]
async fn forks_before_the_first_sync() {
    play(&case(&[
        room(0).sets_state(0),
        room(0).sets_state(1),
        room(0).loses_fork(0),
        room(0).loses_fork(1),
    ]))
    .await;
}

#[tokio::test]
async fn the_first_value_of_a_key_comes_last() {
    play(&case(&[room(0).sets_state(0), RUN_ONCE, room(0).late_state_after(1, 0)])).await;
}

#[tokio::test]
async fn late_events_of_an_absence_that_the_sync_has_passed() {
    let away = [
        room(0).leave(),
        RUN_ONCE,
        room(0).message(),
        room(0).late_after(0),
        room(0).late_after(1),
        room(0).burst(),
        RUN_ONCE,
    ];
    play(&case(
        &[&[room(0).message(), room(0).burst(), RUN_ONCE][..], &away, &[room(0).rejoin(), room(0).message()]]
            .concat(),
    ))
    .await;
}

#[tokio::test]
async fn late_events_beside_the_timeline_of_a_rejoin() {
    let steps = [
        room(0).burst(),
        RUN_ONCE,
        room(0).leave(),
        RUN_ONCE,
        room(0).burst(),
        room(0).rejoin(),
        room(0).message(),
        room(0).burst(),
        room(0).late_after(0),
        room(0).late_after(20),
    ];
    play(&case(&steps)).await;
}

#[tokio::test]
async fn kills_in_the_first_sync_and_in_a_gap() {
    let mut steps = vec![room(0).burst(), room(0).sets_state(0), room(0).redacts(2)];
    steps.extend((0..12).map(|n| killed_at(n, n)));
    steps.extend([
        room(0).burst(),
        room(0).sets_state(0),
        room(0).sets_state(0),
        room(0).redacts(3),
        room(0).burst(),
    ]);
    steps.extend((0..20).map(|n| killed_at(n, 2 * n % 7)));
    play(&case(&steps)).await;
}

#[tokio::test]
async fn a_room_left_before_the_first_sync() {
    play(&case(&[
        room(0).message(),
        room(0).leave(),
        room(0).late_state_after(3, 3),
        room(0).message(),
        room(0).late_state_after(3, 0),
    ]))
    .await;
}

#[tokio::test]
async fn back_and_gone_again_between_two_syncs() {
    let away =
        [room(0).leave(), RUN_ONCE, room(0).message(), room(0).sets_state(0), room(0).burst(), RUN_ONCE];
    play(&case(&[&[room(0).message(), RUN_ONCE][..], &away, &[room(0).rejoin(), room(0).leave()]].concat()))
        .await;
}

/// P78: the redaction was redacted before it was seen, so it does not say any more what it redacted.
#[tokio::test]
async fn a_redaction_that_was_redacted_in_a_gap() {
    for version in ["1", "10", "11"] {
        let steps = [
            room(0).message(),
            room(0).message(),
            RUN_ONCE,
            room(0).redacts(4),
            room(0).redacts(6),
            room(0).burst(),
        ];
        play(&Case { rooms: vec![version], ..case(&steps) }).await;
        let steps = [room(0).message(), room(0).message(), RUN_ONCE, room(0).redacts(4), room(0).redacts(6)];
        play(&Case { rooms: vec![version], ..case(&steps) }).await;
    }
}

/// Where `to` bounds no walk, neither what was known before the gap nor the room's start reports that nothing more of the
/// gap lies below.
#[tokio::test]
async fn late_events_far_below_a_gap_of_a_server_that_ignores_to() {
    let gap = [
        room(0).message(),
        room(0).late_after(1),
        room(0).late_state_after(2, 0),
        room(0).burst(),
        room(0).burst(),
    ];
    let steps = [&[room(0).burst(), room(0).burst(), room(0).burst(), RUN_ONCE][..], &gap].concat();
    play(&Case { style: Style::IgnoresTo, ..case(&steps) }).await;
}

/// `to`, with which the first pass of a gap goes, hides it.
#[tokio::test]
async fn what_the_server_fetched_into_a_gap() {
    let case = case(&[
        RUN_ONCE,
        room(0).message(),
        room(0).message(),
        room(0).server_learns_after(5),
        room(0).message(),
        room(0).message(),
        room(0).burst(),
    ]);
    let play = Box::pin(settled(&case)).await;
    let archived = play.database.column("select event_id from events").await;
    assert!(play.rooms[0].learnt.iter().all(|event_id| archived.contains(event_id)));
}

/// No token says since when, so nothing short of the room's start may end the gap's walk.
#[tokio::test]
async fn late_events_below_the_leave_that_the_first_sync_reported() {
    let away =
        [room(0).burst(), room(0).burst(), room(0).leave(), RUN_ONCE, room(0).message(), room(0).rejoin()];
    play(&case(
        &[&away[..], &[room(0).late_after(1), room(0).late_after(2), room(0).message(), room(0).burst()]]
            .concat(),
    ))
    .await;
}

/// The leave itself, and what came with it, lie above the token from which the gap of the rejoin is filled.
#[tokio::test]
async fn late_events_of_a_long_absence() {
    let steps = [
        RUN_ONCE,
        room(0).late_after(12),
        room(0).late_state_after(38, 0),
        room(0).redacts(149),
        room(0).message(),
        room(0).message(),
        room(0).message(),
        room(0).burst(),
        room(0).leave(),
        room(0).late_after(92),
        RUN_ONCE,
        room(0).burst(),
        RUN_ONCE,
        room(0).sets_state(1),
        room(0).sets_state(3),
        killed_at(15, 13),
        room(0).redacts(173),
        room(0).message(),
        room(0).sets_state(1),
        room(0).late_state_after(142, 0),
        room(0).burst(),
        RUN_ONCE,
        room(0).message(),
        RUN_ONCE,
        room(0).late_state_after(75, 1),
        room(0).sets_state(2),
        room(0).late_after(20),
        room(0).sets_state(3),
        RUN_ONCE,
        room(0).message(),
        room(0).rejoin(),
    ];
    play(&Case { rooms: vec!["1"], ..case(&steps) }).await;
}

/// What arrives while the account is away, beside what an earlier walk could only place too low.
#[tokio::test]
async fn a_late_event_beside_a_fetched_one() {
    let steps = [
        killed_at(20, 16),
        room(0).sets_state(3),
        room(1).redacts(124),
        RUN_ONCE,
        RUN_ONCE,
        room(2).message(),
        room(2).burst(),
        room(0).redacts(40),
        room(1).loses_fork(0),
        room(2).redacts(3),
        room(2).late_after(170),
        room(2).loses_fork(3),
        room(2).server_learns_after(151),
        room(1).rejoin(),
        killed_at(0, 1),
        RUN_ONCE,
        RUN_ONCE,
        room(1).server_learns_after(32),
        room(0).leave(),
        RUN_ONCE,
        room(2).message(),
        room(0).burst(),
        room(2).message(),
        room(2).leave(),
        RUN_ONCE,
        room(1).burst(),
        room(2).late_after(152),
        room(0).message(),
    ];
    play(&Case { rooms: vec!["6", "12", "1"], timeline_cap: 100, ..case(&steps) }).await;
}

/// Between what a walk from the newest event finds of an absence stands what an earlier one has placed high above.
#[tokio::test]
async fn late_events_of_an_absence_on_both_sides_of_one_that_was_known() {
    let away =
        [room(0).leave(), room(0).late_after(6), room(0).late_state_after(5, 0), room(0).late_after(4)];
    let steps = [
        &[
            RUN_ONCE,
            room(0).late_state_after(0, 3),
            room(0).late_after(0),
            room(0).sets_state(1),
            room(0).sets_state(2),
            room(0).late_after(1),
        ][..],
        &away,
    ];
    play(&Case { page_size: 40, ..case(&steps.concat()) }).await;
}

/// What an earlier walk could only place too low takes what belongs below it along, also what came late into a gap.
#[tokio::test]
async fn late_events_in_a_gap_below_a_fetched_one() {
    let steps = [
        killed_at(22, 16),
        room(2).burst(),
        room(0).rejoin(),
        room(0).server_learns_after(170),
        RUN_ONCE,
        room(2).late_after(41),
        room(0).sets_state(2),
        room(1).late_state_after(114, 3),
        room(2).message(),
        RUN_ONCE,
        room(1).late_after(35),
        room(2).redacts(157),
        room(1).late_state_after(46, 0),
        room(1).late_state_after(41, 3),
        room(0).late_after(61),
        room(0).sets_state(3),
        room(0).burst(),
        RUN_ONCE,
    ];
    let style = Style::IgnoresTo;
    play(&Case { rooms: vec!["1"], style, page_size: 3, timeline_cap: 100, ..case(&steps) }).await;
}

/// The join stands in what the leave's limited timeline leaves out, and so does what was said while the account was away.
#[tokio::test]
async fn back_and_gone_again_beyond_a_limited_timeline() {
    let away = [room(0).leave(), room(0).burst(), room(0).burst(), RUN_ONCE];
    let back = [room(0).rejoin(), room(0).burst(), room(0).leave(), room(0).late_after(72)];
    play(&Case { page_size: 5, timeline_cap: 100, ..case(&[away, back].concat()) }).await;
}

/// The same with state that was set while the account was away, which is asked to those who stay.
#[tokio::test]
async fn state_of_an_absence_that_ended_beyond_a_limited_timeline() {
    play(&case(&[
        room(0).leave(),
        room(0).sets_state(0),
        RUN_ONCE,
        room(0).rejoin(),
        room(0).burst(),
        room(0).leave(),
    ]))
    .await;
}

/// A walk that began at the end of a room that was left, and could go on only after the account was back.
#[tokio::test]
async fn a_gap_of_a_ban_walked_after_the_return() {
    let steps = [RUN_ONCE, room(0).ban(), DEAD_TOKEN, room(0).burst(), RUN_ONCE];
    play(&Case { rooms: vec!["11"], timeline_cap: 100, ..case(&steps) }).await;
    let steps = [RUN_ONCE, room(0).ban(), room(0).message(), DEAD_TOKEN, killed_at(14, 16), room(0).burst()];
    play(&Case { state_after: After::Stable, page_size: 40, timeline_cap: 10, ..case(&steps) }).await;
    let steps =
        [room(0).ban(), room(0).burst(), killed_at(26, 7), DEAD_TOKEN, room(0).sets_state(1), RUN_ONCE];
    play(&Case { state_after: After::Unstable, ..case(&steps) }).await;
    let steps =
        [killed_at(6, 10), room(0).ban(), DEAD_TOKEN, room(0).redacts(146), RUN_ONCE, room(0).burst()];
    play(&Case { rooms: vec!["1"], page_size: 10, timeline_cap: 10, ..case(&steps) }).await;
}

/// Between two pages of an older gap's walk a newer gap opens, and what the server has learnt above the older leads there.
#[tokio::test]
async fn the_walk_of_an_older_gap_led_into_a_newer_one() {
    for requests in [24, 26, 28] {
        let older = [
            room(1).late_state_after(182, 2),
            room(0).server_learns_after(155),
            RUN_ONCE,
            room(2).message(),
            room(0).burst(),
            room(1).late_after(31),
            killed_at(11, 12),
        ];
        let newer = [
            room(0).sets_state(3),
            room(1).server_learns_after(161),
            room(2).late_state_after(2, 3),
            room(2).late_after(35),
            room(1).redacts(199),
            room(2).message(),
        ];
        let killed = [
            room(1).late_state_after(168, 0),
            room(2).redacts(122),
            killed_at(requests, 6),
            room(1).late_after(42),
            room(2).sets_state(2),
        ];
        let newest = [
            room(1).burst(),
            room(2).redacts(120),
            room(2).message(),
            room(0).redacts(86),
            room(2).server_learns_after(171),
        ];
        let steps = [&older[..], &newer, &killed, &newest].concat();
        play(&Case { rooms: vec!["1"], style: Style::Overlap, ..case(&steps) }).await;
    }
}

/// A page that repeats what the one before it held, with what that one's token did not show in between.
#[tokio::test]
async fn a_late_event_in_what_a_page_repeats() {
    let before = [
        room(0).redacts(175),
        room(2).message(),
        killed_at(13, 17),
        room(0).message(),
        RUN_ONCE,
        room(0).redacts(151),
        room(2).burst(),
        room(0).late_after(10),
    ];
    let gap = [
        room(0).message(),
        killed_at(6, 5),
        room(2).late_state_after(97, 1),
        room(0).sets_state(3),
        room(0).late_after(28),
        room(0).late_after(37),
    ];
    let steps = [&before[..], &gap].concat();
    play(&Case { rooms: vec!["1", "6"], style: Style::Overlap, ..case(&steps) }).await;
}

/// The walk begins just below a late event, which its first page holds further down.
#[tokio::test]
async fn a_walk_that_begins_below_what_its_first_page_holds() {
    let steps = [
        room(0).late_state_after(112, 2),
        RUN_ONCE,
        room(0).server_learns_after(166),
        RUN_ONCE,
        room(2).late_state_after(28, 2),
        RUN_ONCE,
        room(2).server_learns_after(144),
        RUN_ONCE,
    ];
    play(&Case { rooms: vec!["1"], page_size: 5, ..case(&steps) }).await;
}

/// A walk through a newer gap meets a late event just below the upper edge of an older one, whose own walk then has little
/// room above it for many pages.
#[tokio::test]
async fn a_late_event_near_the_edge_of_a_gap_of_many_pages() {
    let steps = [
        room(2).redacts(114),
        room(1).redacts(52),
        room(0).redacts(92),
        room(0).late_after(172),
        room(1).burst(),
        room(1).message(),
        room(2).server_learns_after(67),
        room(0).redacts(117),
        RUN_ONCE,
        killed_at(29, 14),
        RUN_ONCE,
        room(2).ban(),
        DEAD_TOKEN,
        room(1).sets_state(3),
        killed_at(29, 15),
        room(0).burst(),
        room(1).redacts(64),
        killed_at(24, 10),
        room(2).message(),
        room(2).loses_fork(3),
        room(0).rejoin(),
        room(1).message(),
        room(2).message(),
        room(0).ban(),
        RUN_ONCE,
        room(1).late_after(127),
        RUN_ONCE,
        room(1).burst(),
        killed_at(26, 5),
        room(2).server_learns_after(79),
        room(1).leave(),
        room(2).redacts(85),
        RUN_ONCE,
        killed_at(0, 4),
    ];
    play(&Case { rooms: vec!["6"], state_after: After::Unstable, timeline_cap: 100, ..case(&steps) }).await;
}

/// What arrives in a newer gap belongs into an older one, which a ban keeps from being walked: it is found with its neighbours.
#[tokio::test]
async fn a_late_event_in_a_gap_that_a_ban_has_kept_open() {
    let away = [
        room(0).leave(),
        room(0).burst(),
        RUN_ONCE,
        killed_at(0, 5),
        room(0).rejoin(),
        room(0).ban(),
        killed_at(10, 12),
        room(0).burst(),
    ];
    let steps = [&[room(0).message(), RUN_ONCE][..], &away, &[room(0).late_after(14), RUN_ONCE]].concat();
    play(&Case { page_size: 40, timeline_cap: 10, ..case(&steps) }).await;
}

/// What arrives between two pages of a gap's first pass after a rejoin belongs among what the timeline reported.
#[tokio::test]
async fn a_late_event_after_a_rejoin_and_the_loss_of_since() {
    let steps = [
        room(2).burst(),
        RUN_ONCE,
        room(0).message(),
        room(1).burst(),
        room(0).leave(),
        room(1).late_state_after(169, 3),
        room(0).late_after(199),
        room(0).leave(),
        RUN_ONCE,
        room(2).sets_state(2),
        room(1).server_learns_after(106),
        room(2).late_after(121),
        room(1).loses_fork(0),
        room(2).loses_fork(0),
        room(2).rejoin(),
        room(1).leave(),
        room(1).sets_state(2),
        room(2).late_after(130),
        room(1).late_after(108),
        room(1).late_after(29),
        room(0).rejoin(),
        room(2).sets_state(0),
        killed_at(11, 9),
        room(0).late_after(34),
        room(2).loses_fork(3),
        DEAD_TOKEN,
        room(0).late_after(193),
        room(2).burst(),
        room(2).sets_state(3),
        room(1).message(),
        RUN_ONCE,
        room(1).sets_state(0),
        RUN_ONCE,
        RUN_ONCE,
        room(1).late_after(102),
        room(1).late_after(95),
        room(1).redacts(116),
        room(2).leave(),
        room(0).sets_state(0),
    ];
    let (style, state_after) = (Style::Overlap, After::Stable);
    play(&Case { style, state_after, page_size: 5, timeline_cap: 100, ..case(&steps) }).await;
}

/// The archive learns of the room by a leave.
#[tokio::test]
async fn a_room_joined_and_left_beyond_a_limited_timeline() {
    let steps = [RUN_ONCE, room(0).rejoin(), room(1).burst(), room(0).leave()];
    play(&Case { rooms: vec!["1"], stranger: true, page_size: 40, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_history_refused_because_of_a_ban_that_was_lifted_during_a_pause() {
    let steps = [room(0).ban(), RUN_ONCE, room(0).pause(), room(0).rejoin(), RUN_ONCE];
    play(&Case { page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_history_refused_because_of_a_ban_and_a_room_left_during_a_pause() {
    let steps = [
        room(0).ban(),
        RUN_ONCE,
        room(0).pause(),
        room(0).rejoin(),
        room(0).leave(),
        RUN_ONCE,
        room(0).resume(),
        RUN_ONCE,
    ];
    play(&Case { page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

/// No answer of `/sync` reports that the account was in the room; `/state` does not either: Synapse gives it also to who has
/// declined an invite without ever having been there.
#[tokio::test]
async fn an_invite_to_a_room_left_before_the_first_sync_declined() {
    play(&case(&[room(0).leave(), room(0).invite(), RUN_ONCE, room(0).leave()])).await;
}

/// With less room than of a leap, eighty short pages use up all the places that there are.
#[tokio::test]
async fn a_pause_of_many_pages() {
    let steps = [RUN_ONCE, room(0).pause(), room(0).burst(), room(0).burst(), RUN_ONCE];
    play(&Case { style: Style::Overlap, timeline_cap: 100, ..case(&steps) }).await;
}

/// The one event of the first timeline after it sorts below all that is missing.
#[tokio::test]
async fn a_late_event_after_a_pause_of_many_pages() {
    let steps = [
        RUN_ONCE,
        room(0).burst(),
        room(0).burst(),
        room(0).burst(),
        room(0).pause(),
        RUN_ONCE,
        room(0).late_state_after(15, 3),
    ];
    play(&Case { style: Style::ShortPages, page_size: 10, timeline_cap: 100, ..case(&steps) }).await;
}

/// The bootstrap's walk was killed before it had a page, and `backfill` hears no `/sync`: from `since`, what the server has
/// learnt shows without the message that it belongs after.
#[tokio::test]
async fn what_the_server_learnt_before_a_walk_without_a_sync() {
    let steps =
        [killed_at(4, 0), room(0).message(), room(0).server_learns_after(4), room(0).walk_killed_at(5, 1)];
    play(&case(&steps)).await;
}

/// Of a room that is resumed while there is an invite to it, no answer reports that it is archived again.
#[tokio::test]
async fn a_room_resumed_while_invited_and_the_invite_declined() {
    let steps = [
        RUN_ONCE,
        room(0).leave(),
        room(0).message(),
        room(0).pause(),
        room(0).invite(),
        RUN_ONCE,
        room(0).resume(),
        RUN_ONCE,
        room(0).message(),
        room(0).leave(),
    ];
    play(&case(&steps)).await;
}

/// A timeline reports it, and `to` hides it from the walk that begins above that.
#[tokio::test]
async fn what_the_server_learnt_in_a_timeline_above_a_gap() {
    let steps = [
        RUN_ONCE,
        room(0).leave(),
        RUN_ONCE,
        room(0).burst(),
        room(0).server_learns_after(11),
        room(0).message(),
        room(0).rejoin(),
    ];
    play(&case(&steps)).await;
}

/// The timeline after the return has it among what arrived since the leave, which the walk did not see.
#[tokio::test]
async fn what_arrived_late_before_a_walk_and_a_return_without_a_sync() {
    let steps = [
        RUN_ONCE,
        room(0).message(),
        room(0).leave(),
        room(0).message(),
        room(0).late_state_after(4, 1),
        room(0).walk(),
        room(0).rejoin(),
        room(0).message(),
    ];
    play(&Case { rooms: vec!["1"], page_size: 5, timeline_cap: 10, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_pause_while_the_first_pass_through_an_older_gap_was_killed() {
    let before = [
        RUN_ONCE,
        room(2).sets_state(1),
        room(1).late_after(140),
        room(0).server_learns_after(81),
        room(2).sets_state(1),
        room(0).sets_state(3),
        room(2).rejoin(),
        DEAD_CURSORS,
    ];
    let gap = [
        room(0).sets_state(1),
        room(0).server_learns_after(121),
        room(2).late_after(32),
        room(0).rejoin(),
        room(2).message(),
        room(2).late_state_after(44, 1),
        room(2).late_after(27),
    ];
    let after = [
        room(1).message(),
        killed_at(8, 13),
        room(1).rejoin(),
        room(2).burst(),
        room(0).server_learns_after(44),
        room(1).pause(),
    ];
    let steps = [&before[..], &gap, &after].concat();
    play(&Case { rooms: vec!["1"], style: Style::IgnoresTo, ..case(&steps) }).await;
}

#[tokio::test]
async fn a_late_event_in_what_a_walk_has_placed_ahead_of_a_limited_timeline() {
    let before = [
        room(1).rejoin(),
        room(0).late_after(21),
        RUN_ONCE,
        room(1).sets_state(0),
        room(0).sets_state(0),
        room(1).sets_state(0),
        room(0).message(),
    ];
    let ahead = [
        room(0).late_after(162),
        room(0).late_state_after(85, 1),
        room(2).sets_state(3),
        room(0).walk_killed_at(5, 15),
        room(0).message(),
    ];
    let steps = [&before[..], &ahead].concat();
    let rooms = vec!["12", "1", "12"];
    play(&Case { rooms, style: Style::ShortPages, state_after: After::Stable, ..case(&steps) }).await;
}

/// Left, returned to and left again between two answers of a server that reports then what has arrived, in that order. A walk has met
/// what came late while the account was away.
#[tokio::test]
async fn what_arrived_late_before_a_walk_a_return_and_a_leave() {
    let away = [
        RUN_ONCE,
        room(0).leave(),
        RUN_ONCE,
        room(0).message(),
        room(0).late_after(2),
        room(0).message(),
        room(0).walk(),
    ];
    let steps = [&away[..], &[room(0).rejoin(), room(0).message(), room(0).leave()]].concat();
    play(&Case { style: Style::Dendrite, timeline_cap: 100, ..case(&steps) }).await;
}

/// The same without the second leave, and the timeline limited.
#[tokio::test]
async fn what_arrived_late_before_a_walk_and_a_return_in_a_limited_timeline() {
    let steps = [
        RUN_ONCE,
        room(0).leave(),
        room(0).message(),
        room(0).late_after(2),
        room(0).walk(),
        room(0).rejoin(),
    ];
    play(&Case { style: Style::Dendrite, ..case(&steps) }).await;
}

/// The return stands in the state after the timeline, too, which is stored first. What came late is far below the gap: only a walk
/// through the whole room finds it.
#[tokio::test]
async fn what_arrived_late_before_a_leave_and_a_return_reported_with_the_state_after() {
    let steps = [
        room(0).burst(),
        room(0).burst(),
        room(0).burst(),
        RUN_ONCE,
        RUN_ONCE,
        room(0).late_after(65),
        room(0).leave(),
        room(0).invite(),
    ];
    play(&Case { state_after: After::Stable, page_size: 40, timeline_cap: 100, ..case(&steps) }).await;
}

/// A walk ahead of `/sync` has found it, and was killed: what it did not get to is below that.
#[tokio::test]
async fn what_the_server_learnt_on_the_last_page_of_a_walk_that_was_killed() {
    let steps = [
        RUN_ONCE,
        room(0).message(),
        room(0).message(),
        room(0).leave(),
        room(0).server_learns_after(4),
        room(0).walk_killed_at(5, 11),
    ];
    play(&Case { timeline_cap: 100, ..case(&steps) }).await;
}

/// It is above the leave in the graph, which the timeline of a return and a leave does not show.
#[tokio::test]
async fn what_the_server_learnt_above_the_second_leave() {
    let steps =
        [room(0).leave(), RUN_ONCE, room(0).rejoin(), room(0).leave(), room(0).server_learns_after(6)];
    play(&case(&steps)).await;
}
