//! The pause before the next request after a response that brought nothing new. All loops that send request after
//! request use it.
//!
//! After a response with something new the next request follows at once. Without this pause, a server or proxy that
//! keeps returning nothing new would receive hundreds of requests a second, and each response would cost a
//! transaction.

use std::time::Duration;

use crate::backoff::doubled;

/// Responses in a row that may bring nothing new before the first pause: single ones are usual.
const AT_ONCE: u32 = 2;
/// The first pause; each one after it is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause after responses that lead on, such as empty pages with a new `end` each: events may follow.
const ONWARD_AT_MOST: Duration = Duration::from_millis(500);
/// The longest pause after responses that lead nowhere, such as one that returns the token that was sent.
const NOWHERE_AT_MOST: Duration = Duration::from_secs(5);

/// What a response brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// Something new, or a page of known events that leads further down.
    News,
    /// Nothing new, but a new token for the next request.
    Onward,
    /// Nothing.
    Nothing,
}

/// The pauses of one loop.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Responses in a row that brought nothing new.
    idle: u32,
}

impl Pace {
    /// The pause after a response, less the time that the response itself took.
    pub(crate) fn pause(&mut self, brought: Brought, took: Duration) -> Duration {
        let most = match brought {
            Brought::News => {
                self.reset();
                return Duration::ZERO;
            }
            Brought::Onward => ONWARD_AT_MOST,
            Brought::Nothing => NOWHERE_AT_MOST,
        };
        let doublings = self.idle.checked_sub(AT_ONCE);
        self.idle = self.idle.saturating_add(1);
        let Some(doublings) = doublings else { return Duration::ZERO };
        doubled(FIRST, doublings, most).saturating_sub(took)
    }

    /// Call this after a long poll: the server itself has paused.
    pub(crate) fn reset(&mut self) {
        self.idle = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(pace: &mut Pace, brought: Brought, count: usize) -> Vec<u128> {
        (0..count).map(|_| pace.pause(brought, Duration::ZERO).as_millis()).collect()
    }

    #[test]
    fn pauses_grow_until_something_new_comes() {
        let mut pace = Pace::default();
        assert_eq!(
            pauses(&mut pace, Brought::Nothing, 11),
            [0, 0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]
        );
        assert_eq!(pauses(&mut pace, Brought::News, 2), [0, 0]);
        assert_eq!(pauses(&mut pace, Brought::Onward, 8), [0, 0, 50, 100, 200, 400, 500, 500]);
        pace.reset();
        assert_eq!(pauses(&mut pace, Brought::Onward, 3), [0, 0, 50]);
    }

    #[test]
    fn a_slow_answer_is_its_own_pause() {
        let mut pace = Pace { idle: 5 };
        assert_eq!(pace.pause(Brought::Onward, Duration::from_millis(300)), Duration::from_millis(100));
        assert_eq!(pace.pause(Brought::Onward, Duration::from_secs(3)), Duration::ZERO);
    }
}
