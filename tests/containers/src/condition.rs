//! Waiting for something to become true, with a deadline. Tests never sleep for a guessed time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Names how many times longer than elsewhere anything may take, where a machine is known to be slow.
const SLOWNESS_VARIABLE: &str = "WHODUNIT_SLOWNESS";

/// How long anything may take before it counts as broken. Generous: machines under load are slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// How many times longer anything may take on this machine. A trial of many things may do with fewer there.
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    *SLOWNESS.get_or_init(|| {
        std::env::var(SLOWNESS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
    })
}

/// Asks until there is an answer, at most for `at_most`, or longer on a machine that is said to be slow.
/// None when the time is over.
pub fn wait_for<T>(at_most: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + at_most * slowness();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Asks until something is true, at most for `at_most`. Returns whether it became true.
pub fn wait_until(at_most: Duration, mut ask: impl FnMut() -> bool) -> bool {
    wait_for(at_most, || ask().then_some(())).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_wait() {
        let mut looks = 0;
        let answer = wait_for(PATIENCE, || {
            looks += 1;
            (looks == 3).then_some("there")
        });
        assert_eq!((answer, looks), (Some("there"), 3));
    }

    #[test]
    fn a_deadline_ends_the_wait_after_one_look_at_least() {
        let mut looks = 0;
        let answer: Option<()> = wait_for(Duration::ZERO, || {
            looks += 1;
            None
        });
        assert_eq!((answer, looks), (None, 1));
    }
}
