//! The time that a guest's call may take.
//!
//! What counts is the processor's time that the calling thread got: on a machine that has none to give, a guest that does nothing wrong
//! waits long. A guest that waits for something itself (WASI) is given up after a multiple of the limit.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Store, UpdateDeadline};

use super::engine::Engine;

/// How many times its limit a call may take on the clock on the wall.
const WALL_FACTOR: u32 = 20;

/// What a call may take, and what it had when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    limit: Duration,
    begun: Instant,
    begun_cpu: Duration,
}

impl Allowance {
    /// One that begins now, on this thread.
    pub(super) fn new(limit: Duration) -> Allowance {
        Allowance { limit, begun: Instant::now(), begun_cpu: cpu_time() }
    }

    /// What is left of it on this thread. None where it is used up.
    fn left(&self) -> Option<Duration> {
        if self.begun.elapsed() >= self.limit.saturating_mul(WALL_FACTOR) {
            return None;
        }
        let used = cpu_time().saturating_sub(self.begun_cpu);
        self.limit.checked_sub(used).filter(|left| !left.is_zero())
    }
}

/// What of the processor's time this thread got so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Who has an allowance: the data of a store.
pub(super) trait Allowed {
    /// That of the call that runs.
    fn allowance(&mut self) -> &mut Allowance;
}

/// Has calls into a store end when their allowance is used up.
pub(super) fn enforce<T: Allowed + 'static>(store: &mut Store<T>) {
    store.epoch_deadline_callback(|mut context| {
        Ok(match context.data_mut().allowance().left() {
            Some(left) => UpdateDeadline::Continue(Engine::ticks(left)),
            None => UpdateDeadline::Interrupt,
        })
    });
}

/// Begins a call.
pub(super) fn begin<T: Allowed + 'static>(store: &mut Store<T>, limit: Duration) {
    *store.data_mut().allowance() = Allowance::new(limit);
    store.set_epoch_deadline(Engine::ticks(limit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_uses_nothing_up_until_it_waits_for_long() {
        let limit = Duration::from_millis(10);
        let allowance = Allowance::new(limit);
        std::thread::sleep(3 * limit);
        assert!(allowance.left().is_some());
        std::thread::sleep(WALL_FACTOR * limit);
        assert_eq!(allowance.left(), None);
    }

    #[test]
    fn a_thread_that_works_uses_it_up() {
        // Before the allowance: a busy machine may let time pass between the two.
        let begin = Instant::now();
        let allowance = Allowance::new(Duration::from_millis(10));
        while allowance.left().is_some() {
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        assert!(begin.elapsed() >= Duration::from_millis(10));
    }
}
