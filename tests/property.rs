//! Any script of what may happen on a server and to the daemon ends with the archive that the server's rooms ask for.
//!
//! `PROPTEST_CASES=10000` for the long run; `SEED=…` repeats one. What a script may hold is in [`script`], what must
//! be true at its end in [`oracle`].

mod kept;
mod oracle;
mod play;
mod script;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::random;

/// Cases in CI.
const CASES: u64 = 48;
/// Cases at a time: most of a case is waiting, for pauses above all.
const AT_ONCE: u64 = 6;

#[test]
fn any_script_ends_with_an_archive_of_what_the_account_may_see() {
    let seed = random::seed("any_script");
    let cases = random::setting("PROPTEST_CASES").unwrap_or(CASES * random::dose());
    std::thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            scope.spawn(move || run(seed.wrapping_add(thread), cases.div_ceil(AT_ONCE)));
        }
    });
}

fn run(seed: u64, cases: u64) {
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 300,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let seed = [seed; 4].map(u64::to_le_bytes).concat();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runner.run(&script::cases(), |case| {
        runtime.block_on(play::play(&case));
        Ok::<(), TestCaseError>(())
    });
    if let Err(failure) = result {
        panic!("keep this as a test in property/kept.rs: {failure}");
    }
}
