//! What may happen, as values that proptest makes and shrinks.

mod steps;

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_oneof,
};

pub(super) use self::steps::{killed_at, room};

/// A server, its rooms, and what happens.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The version of each room.
    pub(super) rooms: Vec<&'static str>,
    /// Whether the last one is somebody else's, and the account not in it.
    pub(super) stranger: bool,
    pub(super) style: Style,
    /// How the server reports the state after a timeline.
    pub(super) state_after: After,
    pub(super) page_size: u16,
    /// The most events that a timeline of `/sync` holds.
    pub(super) timeline_cap: usize,
    /// Whether the program itself is run and killed, and not its library.
    pub(super) binary: bool,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Synapse,
    Dendrite,
    ShortPages,
    EmptyPages,
    Overlap,
    Stutter,
    /// As Tuwunel: `to` does not bound a walk (P48).
    IgnoresTo,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Never,
    Stable,
    Unstable,
}

/// One thing that happens. The first number names a room, the second an event that it has, both modulo their count. Printed as
/// [`room`] and [`killed_at`] make it.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Message(u8),
    /// A change of one of a few state keys.
    State(u8, u8),
    Redact(u8, u16),
    /// A message that arrives now and belongs after an earlier event.
    Late(u8, u16),
    /// The same with a change of state.
    LateState(u8, u16, u8),
    /// A state event that loses state resolution.
    Fork(u8, u8),
    /// More messages than a timeline of `/sync` holds.
    Burst(u8),
    /// The server has fetched an event from others, which no `/sync` reports.
    Learn(u8, u16),
    /// `/sync` leaves out what came before, as after a hole of the server's own.
    Hole(u8),
    /// The current state loses one of these keys, which no event reports.
    Unset(u8, u8),
    /// Who is invited may leave, which declines.
    Leave(u8),
    /// The server shows nothing of the room any more, until it is joined again.
    Ban(u8),
    /// The ban is lifted, and nothing more.
    Unban(u8),
    /// After a leave.
    Invite(u8),
    Rejoin(u8),
    /// The server refuses the token that the archive follows it by.
    DeadToken,
    /// The same of those that walks have come to.
    DeadCursors,
    /// `rooms pause`.
    Pause(u8),
    Resume(u8),
    Once,
    /// `backfill ROOM`.
    Walk(u8),
    /// The same, killed as below.
    KillWalk(u8, u8, u8),
    /// A run that is killed so many requests after its start, and so many milliseconds.
    Kill(u8, u8),
    /// Something goes wrong with a request.
    Fault(Wrong, Where, u8),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Wrong {
    TooMany,
    BadGateway,
    CutBody,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    Sync,
    Messages,
    State,
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    let versions = || prop_oneof![Just("1"), Just("6"), Just("10"), Just("11"), Just("12")];
    let style = prop_oneof![
        4 => Just(Style::Synapse),
        1 => Just(Style::Dendrite),
        1 => Just(Style::ShortPages),
        1 => Just(Style::EmptyPages),
        1 => Just(Style::Overlap),
        1 => Just(Style::Stutter),
        1 => Just(Style::IgnoresTo),
    ];
    let after = prop_oneof![2 => Just(After::Never), 1 => Just(After::Stable), 1 => Just(After::Unstable)];
    let pages = prop_oneof![Just(3), Just(5), Just(10), Just(40)];
    let cap = prop_oneof![Just(3_usize), Just(10), Just(100)];
    let binary = prop_oneof![9 => Just(false), 1 => Just(true)];
    let rooms = (vec(versions(), 1..=3), proptest::bool::weighted(0.2));
    (rooms, style, after, pages, cap, binary, vec(any_step(), 1..40)).prop_map(
        |((rooms, stranger), style, state_after, page_size, timeline_cap, binary, steps)| Case {
            rooms,
            stranger,
            style,
            state_after,
            page_size,
            timeline_cap,
            binary,
            steps,
        },
    )
}

/// The number of a room.
fn any_room() -> impl Strategy<Value = u8> {
    any::<u8>().prop_map(|room| room % 3)
}

fn any_step() -> impl Strategy<Value = Step> {
    let event = || 0..200_u16;
    let wrong = prop_oneof![Just(Wrong::TooMany), Just(Wrong::BadGateway), Just(Wrong::CutBody)];
    let place = prop_oneof![Just(Where::Sync), Just(Where::Messages), Just(Where::State)];
    prop_oneof![
        6 => any_room().prop_map(Step::Message),
        5 => (any_room(), 0..4_u8).prop_map(|(room, key)| Step::State(room, key)),
        4 => (any_room(), event()).prop_map(|(room, event)| Step::Redact(room, event)),
        4 => (any_room(), event()).prop_map(|(room, event)| Step::Late(room, event)),
        2 => (any_room(), event(), 0..4_u8).prop_map(|(room, event, key)| Step::LateState(room, event, key)),
        1 => (any_room(), 0..4_u8).prop_map(|(room, key)| Step::Fork(room, key)),
        3 => any_room().prop_map(Step::Burst),
        2 => (any_room(), event()).prop_map(|(room, event)| Step::Learn(room, event)),
        1 => any_room().prop_map(Step::Hole),
        1 => (any_room(), 0..4_u8).prop_map(|(room, key)| Step::Unset(room, key)),
        10 => moves(),
        1 => prop_oneof![Just(Step::DeadToken), Just(Step::DeadCursors)],
        2 => prop_oneof![any_room().prop_map(Step::Pause), any_room().prop_map(Step::Resume)],
        5 => Just(Step::Once),
        1 => any_room().prop_map(Step::Walk),
        1 => (any_room(), 0..12_u8, 0..20_u8)
            .prop_map(|(room, requests, ms)| Step::KillWalk(room, requests, ms)),
        3 => (0..30_u8, 0..20_u8).prop_map(|(requests, ms)| Step::Kill(requests, ms)),
        1 => (wrong, place, 0..4_u8).prop_map(|(wrong, place, after)| Step::Fault(wrong, place, after)),
    ]
}

/// What the account does, and what is done to it.
fn moves() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any_room().prop_map(Step::Leave),
        1 => any_room().prop_map(Step::Ban),
        1 => any_room().prop_map(Step::Unban),
        2 => any_room().prop_map(Step::Invite),
        4 => any_room().prop_map(Step::Rejoin),
    ]
}
