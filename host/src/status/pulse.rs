//! Whether a loop still turns: each loop says when it begins a turn and when it rests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The sign of life of one loop. Saying so costs a look at the clock and a store.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    limit: Duration,
    base: Instant,
    /// When the turn began, in nanoseconds after `base`; 0 while the loop waits for work.
    began: AtomicU64,
}

impl Pulse {
    /// A loop that rests. A turn of it may take `limit`.
    pub fn new(name: &'static str, limit: Duration) -> Pulse {
        Pulse { name, limit, base: Instant::now(), began: AtomicU64::new(0) }
    }

    /// The loop's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How long a turn may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// A turn begins, and with it ends the one before.
    pub fn turn(&self) {
        let began = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        self.began.store(began, Ordering::Relaxed);
    }

    /// The loop waits for work, for however long.
    pub fn rest(&self) {
        self.began.store(0, Ordering::Relaxed);
    }

    /// How long the turn takes so far. None while the loop rests.
    pub fn under_way(&self) -> Option<Duration> {
        match self.began.load(Ordering::Relaxed) {
            0 => None,
            began => Some(self.base.elapsed().saturating_sub(Duration::from_nanos(began))),
        }
    }

    /// How long the turn takes so far, if that is longer than it may.
    pub fn stuck(&self) -> Option<Duration> {
        self.under_way().filter(|so_far| *so_far > self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_does_not_end_is_stuck_and_a_rest_never_is() {
        let pulse = Pulse::new("loop", Duration::ZERO);
        assert_eq!(pulse.stuck(), None);
        pulse.turn();
        while pulse.stuck().is_none() {
            std::thread::yield_now();
        }
        pulse.rest();
        assert_eq!(pulse.under_way(), None);
        let patient = Pulse::new("loop", Duration::from_secs(3600));
        patient.turn();
        assert!(patient.under_way().is_some());
        assert_eq!(patient.stuck(), None);
    }
}
