//! The membership of a user in a room.

/// A user's membership in a room, as `m.room.member` events give it (specification, "Room membership").
///
/// That of the account is stored with the room: each `/sync` response that lists the room sets it
/// (`matrix::room_update::membership`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Is in the room. Set while the room is in `rooms.join`.
    Join,
    /// Is not in the room: has left, was kicked, or was never in it. Set when the room is in `rooms.leave`, or when the
    /// homeserver no longer lists a room that the archive has as joined.
    Leave,
    /// Is invited. Set while the room is in `rooms.invite`; the room's stripped state is stored beside it.
    Invite,
    /// Has asked to join. Set while the room is in `rooms.knock`; the room's stripped state is stored beside it.
    Knock,
    /// Is banned from the room. Set when the room is in `rooms.leave` and the account's last member event
    /// there is a ban.
    Ban,
}

impl Membership {
    /// Every membership.
    pub const ALL: &'static [Self] = &[Self::Join, Self::Leave, Self::Invite, Self::Knock, Self::Ban];

    /// The word for it in a member event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Ban => "ban",
        }
    }

    /// The membership with this word. `None`: there is no such membership.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|membership| membership.as_str() == word)
    }

    /// Whether the user is not in the room and not about to join: `leave` or `ban`.
    pub(crate) fn is_out(self) -> bool {
        matches!(self, Self::Leave | Self::Ban)
    }

    /// Whether the user may join soon: `invite` or `knock`. `/sync` reports only stripped state of such a room.
    pub(crate) fn is_pending(self) -> bool {
        matches!(self, Self::Invite | Self::Knock)
    }
}
