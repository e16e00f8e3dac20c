//! Waiting for what another process does, without a guess at how long it takes.

use std::thread;
use std::time::{Duration, Instant};

/// Asks `probe` until it answers, and returns the answer.
///
/// # Panics
/// After 30 s, naming `what` did not happen. The limit only ends a hopeless wait: no test's outcome depends on it.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still waiting after {DEADLINE:?}: {what}");
        thread::sleep(PAUSE);
    }
}

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const PAUSE: Duration = Duration::from_millis(10);
