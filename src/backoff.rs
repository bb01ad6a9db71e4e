//! The pause before a retry: capped, jittered, reset by success. Only loops retry; what they call reports.

use std::time::{Duration, Instant};

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After a pause of the loop's own choice, see [`Backoff`].
    Backoff,
    /// After the pause that the other side asked for.
    After(Duration),
    /// As [`Backoff`](Self::Backoff), for the other side may refuse what it grants a moment later. What has been refused often
    /// and for long may be given up, see [`Patience`]: the smallest thing, never the daemon.
    Refused,
    /// Not before a person has done something.
    Never,
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row before a refusal can be believed, however long the first one is ago.
const REPEATS: u32 = 4;
/// How long a refusal must last at most for whoever does not stay: a single run, a command.
const BRIEF: Duration = Duration::from_secs(5);

/// How long the other side must go on refusing before it is believed: a single refusal may be a proxy's, or pass.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    time: Duration,
}

impl Patience {
    /// With this much time between the first refusal and the one that is believed.
    pub fn new(time: Duration) -> Self {
        Self { time }
    }

    /// That of a single run or a command, and of what holds up everything else.
    #[must_use]
    pub fn brief(self) -> Self {
        Self { time: self.time.min(BRIEF) }
    }

    /// The time.
    pub fn time(self) -> Duration {
        self.time
    }
}

/// Doubling pauses from half a second to a minute, each a random half to whole of its size.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    first: Option<Instant>,
}

impl Backoff {
    /// Counts a failure.
    pub fn fail(&mut self) {
        self.first.get_or_insert_with(Instant::now);
        self.failures = self.failures.saturating_add(1);
    }

    /// Counts a failure and returns the pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let whole = doubled(FIRST, self.failures, LONGEST);
        self.fail();
        jitter(whole)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the failures since the last success are so many, and go back so far, that they are no accident.
    pub fn is_lasting(&self, patience: Patience) -> bool {
        self.failures >= REPEATS && self.first.is_some_and(|first| first.elapsed() >= patience.time)
    }

    /// To be called on success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A pause that was doubled so many times, up to the longest.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// A random half to whole of a pause.
pub fn jitter(whole: Duration) -> Duration {
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
