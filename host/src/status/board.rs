//! The board: the newest totals of the capture thread, for readers on other threads.
//!
//! The capture thread never waits here: it loads one flag and swaps one pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::pulse::Pulse;
use crate::event::Tick;

/// The shortest time between two totals that are pinned because somebody asked.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How long a reader waits for newer totals.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a waiting reader looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long one turn of the capture thread may take: it waits for nobody, and looks 20 times a second
/// when nothing happens.
const CAPTURE_TURN: Duration = Duration::from_secs(10);

/// The newest totals, and whether somebody wants newer ones.
pub struct Board {
    newest: ArcSwapOption<Pinned>,
    wanted: AtomicBool,
    pulse: Arc<Pulse>,
    /// In nanoseconds.
    longest_standstill: AtomicU64,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            newest: ArcSwapOption::empty(),
            wanted: AtomicBool::default(),
            pulse: Arc::new(Pulse::new("capture", CAPTURE_TURN)),
            longest_standstill: AtomicU64::default(),
        }
    }
}

struct Pinned {
    tick: Arc<Tick>,
    at: Instant,
}

impl Board {
    /// The sign of life of the capture thread.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The capture thread stood still for so long in one turn.
    pub fn stood_still(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.longest_standstill.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    /// The longest that the capture thread stood still so far, see [`Standstill`](super::Standstill).
    pub fn longest_standstill(&self) -> Duration {
        Duration::from_nanos(self.longest_standstill.load(Ordering::Relaxed))
    }

    /// Whether somebody asked since the last totals.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Pins totals.
    pub fn publish(&self, tick: Arc<Tick>) {
        self.wanted.store(false, Ordering::Relaxed);
        self.newest.store(Some(Arc::new(Pinned { tick, at: Instant::now() })));
    }

    /// The newest totals, at most [`PUBLISH_EVERY`] old; older ones, or none, where the capture thread
    /// does not answer.
    pub async fn read(&self) -> Option<Arc<Tick>> {
        let asked = Instant::now();
        loop {
            let newest = self.newest.load_full();
            let is_fresh = newest.as_ref().is_some_and(|pinned| pinned.at + PUBLISH_EVERY >= asked);
            if is_fresh || asked.elapsed() >= PATIENCE {
                return newest.map(|pinned| Arc::clone(&pinned.tick));
            }
            // Again every time: totals that were under way when this was set may have unset it.
            self.wanted.store(true, Ordering::Relaxed);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{TickCause, UnixNanos};

    fn tick(time: u64) -> Arc<Tick> {
        Arc::new(Tick {
            time: UnixNanos(time),
            cause: TickCause::Request,
            containers: Vec::new(),
            counters: Vec::new(),
        })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn the_longest_standstill_stays() {
        let board = Board::default();
        assert_eq!(board.longest_standstill(), Duration::ZERO);
        [3, 7, 5].into_iter().for_each(|time| board.stood_still(Duration::from_millis(time)));
        assert_eq!(board.longest_standstill(), Duration::from_millis(7));
    }

    #[test]
    fn fresh_totals_are_read_without_asking_for_newer_ones() {
        let board = Board::default();
        board.publish(tick(7));
        assert_eq!(block_on(board.read()).unwrap().time, UnixNanos(7));
        assert!(!board.is_wanted());
    }

    #[test]
    fn a_reader_without_totals_asks_and_gets_those_that_come() {
        let board = Arc::new(Board::default());
        let asked = Arc::clone(&board);
        let capture = std::thread::spawn(move || {
            while !asked.is_wanted() {
                std::thread::yield_now();
            }
            asked.publish(tick(8));
        });
        assert_eq!(block_on(board.read()).unwrap().time, UnixNanos(8));
        capture.join().unwrap();
    }

    #[test]
    fn a_capture_thread_that_does_not_answer_keeps_nobody_waiting_for_ever() {
        let board = Board::default();
        assert!(block_on(board.read()).is_none());
        assert!(board.is_wanted());
    }
}
