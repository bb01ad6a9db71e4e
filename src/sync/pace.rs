//! How soon the next request follows an answer.

use std::time::Duration;

/// Which answer in a row that tells nothing and comes early is the first to be followed by a pause: Synapse gives single
/// ones, where there is news of no room.
const EARLY: u32 = 3;
/// An answer that took this long is not early, however long the server was asked to wait.
const UNHURRIED: Duration = Duration::from_secs(1);

/// Gives a rest to a server, or a proxy before it, that answers at once where it was to wait for news: each answer is a
/// request and a commit.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Answers in a row that told nothing and came early.
    early: u32,
}

impl Pace {
    /// The pause after an answer that took so long, from a server that was to wait for up to `timeout`. `told`: of a room.
    pub(super) fn pause(&mut self, told: bool, timeout: Duration, took: Duration) -> Duration {
        let rest = timeout.min(UNHURRIED).saturating_sub(took);
        if told || rest.is_zero() {
            self.early = 0;
            return Duration::ZERO;
        }
        self.early = self.early.saturating_add(1);
        if self.early < EARLY { Duration::ZERO } else { rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const SOON: Duration = Duration::from_millis(100);

    #[test]
    fn a_server_that_does_not_wait_is_given_the_rest_of_a_second() {
        let mut pace = Pace::default();
        let pauses = [(); 5].map(|()| pace.pause(false, TIMEOUT, SOON));
        let rest = UNHURRIED.saturating_sub(SOON);
        assert_eq!(pauses, [Duration::ZERO, Duration::ZERO, rest, rest, rest]);
    }

    #[test]
    fn what_tells_of_a_room_or_has_waited_is_followed_at_once() {
        for (told, timeout, took) in [
            (true, TIMEOUT, SOON),
            (false, TIMEOUT, UNHURRIED),
            (false, SOON, SOON),
            (false, Duration::ZERO, SOON),
        ] {
            let mut pace = Pace { early: 10 };
            assert_eq!(pace.pause(told, timeout, took), Duration::ZERO);
            assert_eq!(pace.pause(false, TIMEOUT, SOON), Duration::ZERO, "one early answer is none too many");
        }
    }
}
