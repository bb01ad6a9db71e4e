//! Chance that can be repeated.

use fastrand::Rng;

/// A number from the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number: {value}")))
}

/// The seed that `SEED` gives; without one, always the same where a change is judged (`CI`), else a new one. Printed,
/// which the test runner shows when the test fails.
pub(crate) fn seed(test: &str) -> u64 {
    let judged = std::env::var_os("CI").map(|_| 1);
    let seed = setting("SEED").or(judged).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("repeat with: SEED={seed} cargo test --test it {test}");
    seed
}

pub(crate) fn seeded(test: &str) -> Rng {
    Rng::with_seed(seed(test))
}

/// How many times as long as in CI a random test is to run.
pub(crate) fn dose() -> u64 {
    setting("DOSE").unwrap_or(1)
}
