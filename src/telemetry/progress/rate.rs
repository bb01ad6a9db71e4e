//! A smoothed rate. It does not jump with every page, and it is right after a few seconds.

use std::time::{Duration, Instant};

/// The time constant in seconds: after this time an observation has a third of its first weight.
const MEMORY: f64 = 15.0;

/// Observations within this time are combined.
const STEP: Duration = Duration::from_millis(500);

/// No rate is shown before this time has passed.
const LEAST: Duration = Duration::from_secs(1);

/// An exponentially weighted mean per second, corrected for the bias at its start.
#[derive(Debug)]
pub(super) struct Rate {
    since: Instant,
    at: Instant,
    pending: f64,
    value: f64,
    /// The total weight of the observations. The rest is the weight of the initial 0.
    weight: f64,
}

impl Rate {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, at: now, pending: 0.0, value: 0.0, weight: 0.0 }
    }

    pub(super) fn add(&mut self, amount: f64) {
        self.pending += amount;
    }

    /// Updates the mean with the amounts added since the last call.
    pub(super) fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        if passed < STEP {
            return;
        }
        let seconds = passed.as_secs_f64();
        let alpha = 1.0 - (-seconds / MEMORY).exp();
        self.value += alpha * (self.pending / seconds - self.value);
        self.weight += alpha * (1.0 - self.weight);
        self.pending = 0.0;
        self.at = now;
    }

    pub(super) fn per_second(&self) -> Option<f64> {
        let known = self.at.saturating_duration_since(self.since) >= LEAST;
        known.then(|| self.value / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::whole;

    /// The rate after so many seconds of `amount` every `every` seconds.
    fn after(rate: &mut Rate, start: Instant, seconds: u64, every: u64, amount: f64) -> u64 {
        for second in 1..=seconds {
            if second % every == 0 {
                rate.add(amount);
            }
            rate.advance(start + Duration::from_secs(second));
        }
        whole(rate.per_second().unwrap())
    }

    #[test]
    fn is_right_from_the_start_and_follows() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!(rate.per_second(), None);
        assert_eq!(after(&mut rate, start, 3, 1, 500.0), 500);
        let later = start + Duration::from_secs(3);
        let slow = after(&mut rate, later, 60, 1, 100.0);
        assert!((100..110).contains(&slow), "{slow}");
        let stopped = after(&mut rate, later + Duration::from_mins(1), 120, 1, 0.0);
        assert_eq!(stopped, 0);
    }

    #[test]
    fn pages_do_not_make_it_jump() {
        let start = Instant::now();
        let rate = after(&mut Rate::new(start), start, 60, 2, 1000.0);
        assert!((450..560).contains(&rate), "{rate}");
    }
}
