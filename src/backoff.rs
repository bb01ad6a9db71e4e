//! The pause before a retry: it doubles up to a maximum, has jitter, and is reset by success. Only loops retry. The
//! functions that they call return the error.

use std::time::{Duration, Instant};

/// Whether and when to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// After a pause of the loop's own choice, see [`Backoff`].
    Backoff,
    /// After the pause that the server has requested.
    After(Duration),
    /// As [`Backoff`](Self::Backoff), because a refusal may be temporary. What is refused often enough and long
    /// enough may be given up, see [`Patience`]: as little as possible, and never the daemon itself.
    Refused,
    /// Not until a person has fixed something.
    Never,
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// The number of failures in a row before a refusal can count as final, however long ago the first one was.
const REPEATS: u32 = 4;
/// The longest [`Patience`] of a single run or a command.
const BRIEF: Duration = Duration::from_secs(5);

/// How long refusals must last before they count as final. A single one may be temporary, or come from a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    time: Duration,
}

impl Patience {
    /// `time`: between the first refusal and the one that counts as final.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time }
    }

    /// A shorter patience: for a single run or a command, and for a refusal that delays everything else.
    #[must_use]
    pub(crate) fn brief(self) -> Self {
        Self { time: self.time.min(BRIEF) }
    }

    /// The time.
    pub(crate) fn time(self) -> Duration {
        self.time
    }
}

/// Pauses that double from half a second up to a minute. Each is multiplied by a random factor from 0.5 to 1.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    first: Option<Instant>,
}

impl Backoff {
    /// Counts a failure.
    pub(crate) fn fail(&mut self) {
        self.first.get_or_insert_with(Instant::now);
        self.failures = self.failures.saturating_add(1);
    }

    /// Counts a failure and returns the pause before the next try.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = doubled(FIRST, self.failures, LONGEST);
        self.fail();
        jitter(whole)
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether there were enough failures since the last success, over a long enough time, to count as final.
    pub(crate) fn is_lasting(&self, patience: Patience) -> bool {
        self.failures >= REPEATS && self.first.is_some_and(|first| first.elapsed() >= patience.time)
    }

    /// Call this on success.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A pause that has doubled `times` times, up to the longest.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// A pause multiplied by a random factor from 0.5 to 1.
pub(crate) fn jitter(whole: Duration) -> Duration {
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_again() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses[39] >= LONGEST / 2 && pauses.iter().all(|pause| *pause <= LONGEST));
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn only_what_is_repeated_over_a_time_lasts() {
        let (short, long) = (Patience::new(Duration::ZERO), Patience::new(Duration::from_secs(600)));
        let mut backoff = Backoff::default();
        let lasting: Vec<_> = (0..6)
            .map(|_| {
                backoff.fail();
                (backoff.is_lasting(short), backoff.is_lasting(long))
            })
            .collect();
        let (once, often) = ((false, false), (true, false));
        assert_eq!(lasting, [once, once, once, often, often, often]);
        backoff.reset();
        assert!(!backoff.is_lasting(short));
        assert_eq!(long.brief().time(), BRIEF);
        assert_eq!(short.brief().time(), Duration::ZERO);
    }
}
