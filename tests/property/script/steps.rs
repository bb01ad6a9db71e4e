//! The steps by name, as the kept scripts are written and as a failed script prints them.

use std::fmt;

use super::Step;

/// A room by its number, to say what happens there.
#[derive(Clone, Copy)]
pub(in super::super) struct Room(u8);

pub(in super::super) const fn room(number: u8) -> Room {
    Room(number)
}

/// A run that is killed so many requests after its start, and so many milliseconds.
pub(in super::super) const fn killed_at(requests: u8, ms: u8) -> Step {
    Step::Kill(requests, ms)
}

impl Room {
    /// Somebody says something.
    pub(in super::super) const fn message(self) -> Step {
        Step::Message(self.0)
    }

    /// A state key is set.
    pub(in super::super) const fn sets_state(self, key: u8) -> Step {
        Step::State(self.0, key)
    }

    /// An event is redacted.
    pub(in super::super) const fn redacts(self, event: u16) -> Step {
        Step::Redact(self.0, event)
    }

    /// A message arrives now and belongs after an earlier event.
    pub(in super::super) const fn late_after(self, event: u16) -> Step {
        Step::Late(self.0, event)
    }

    /// The same with a change of state.
    pub(in super::super) const fn late_state_after(self, event: u16, key: u8) -> Step {
        Step::LateState(self.0, event, key)
    }

    /// A state event loses state resolution.
    pub(in super::super) const fn loses_fork(self, key: u8) -> Step {
        Step::Fork(self.0, key)
    }

    /// More messages arrive than a timeline of `/sync` holds.
    pub(in super::super) const fn burst(self) -> Step {
        Step::Burst(self.0)
    }

    /// The server has fetched an event from others, which is in no `/sync`.
    pub(in super::super) const fn server_learns_after(self, event: u16) -> Step {
        Step::Learn(self.0, event)
    }

    /// The account leaves, or declines an invite.
    pub(in super::super) const fn leave(self) -> Step {
        Step::Leave(self.0)
    }

    /// The account is banned.
    pub(in super::super) const fn ban(self) -> Step {
        Step::Ban(self.0)
    }

    /// The account is invited.
    pub(in super::super) const fn invite(self) -> Step {
        Step::Invite(self.0)
    }

    /// The account joins again.
    pub(in super::super) const fn rejoin(self) -> Step {
        Step::Rejoin(self.0)
    }

    /// `rooms pause`.
    pub(in super::super) const fn pause(self) -> Step {
        Step::Pause(self.0)
    }

    /// `rooms resume`.
    pub(in super::super) const fn resume(self) -> Step {
        Step::Resume(self.0)
    }

    /// `backfill ROOM`.
    pub(in super::super) const fn walk(self) -> Step {
        Step::Walk(self.0)
    }

    /// The same, killed so many requests after its start, and so many milliseconds.
    pub(in super::super) const fn walk_killed_at(self, requests: u8, ms: u8) -> Step {
        Step::KillWalk(self.0, requests, ms)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(room) => write!(f, "room({room}).message()"),
            Self::State(room, key) => write!(f, "room({room}).sets_state({key})"),
            Self::Redact(room, event) => write!(f, "room({room}).redacts({event})"),
            Self::Late(room, event) => write!(f, "room({room}).late_after({event})"),
            Self::LateState(room, event, key) => write!(f, "room({room}).late_state_after({event}, {key})"),
            Self::Fork(room, key) => write!(f, "room({room}).loses_fork({key})"),
            Self::Burst(room) => write!(f, "room({room}).burst()"),
            Self::Learn(room, event) => write!(f, "room({room}).server_learns_after({event})"),
            Self::Hole(room) => write!(f, "room({room}).hole()"),
            Self::Unset(room, key) => write!(f, "room({room}).unsets_state({key})"),
            Self::Leave(room) => write!(f, "room({room}).leave()"),
            Self::Ban(room) => write!(f, "room({room}).ban()"),
            Self::Unban(room) => write!(f, "room({room}).unban()"),
            Self::Invite(room) => write!(f, "room({room}).invite()"),
            Self::Rejoin(room) => write!(f, "room({room}).rejoin()"),
            Self::Pause(room) => write!(f, "room({room}).pause()"),
            Self::Resume(room) => write!(f, "room({room}).resume()"),
            Self::Walk(room) => write!(f, "room({room}).walk()"),
            Self::KillWalk(room, requests, ms) => write!(f, "room({room}).walk_killed_at({requests}, {ms})"),
            Self::Kill(requests, ms) => write!(f, "killed_at({requests}, {ms})"),
            Self::Once => f.write_str("RUN_ONCE"),
            Self::DeadToken => f.write_str("DEAD_TOKEN"),
            Self::DeadCursors => f.write_str("DEAD_CURSORS"),
            Self::Fault(wrong, place, after) => write!(f, "Step::Fault({wrong:?}, {place:?}, {after})"),
        }
    }
}
