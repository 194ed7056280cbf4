//! How long a thread stood still: it had work, and neither ran nor waited for a processor.
//!
//! That is what waiting for another thread, or for a disk, is. A machine that is busy with something else
//! makes a thread wait for a processor, which says nothing about the program and is left out.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A turn that takes less is not looked at: the look costs more than it could tell.
const LEAST: Duration = Duration::from_millis(1);

/// Measures the turns of the thread that made it.
#[derive(Debug)]
pub struct Standstill {
    /// `schedstat` of the thread (proc_pid_schedstat(5)). None where this kernel does not have it.
    schedstat: Option<File>,
    began: Option<Moment>,
}

/// What the clocks say of a thread.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    ran: Duration,
    /// On a run queue, without a processor.
    waited: Duration,
}

impl Standstill {
    /// Measures the calling thread, which has to be the one that asks later.
    pub fn of_this_thread() -> Standstill {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        Standstill { schedstat, began: None }
    }

    /// A turn begins.
    pub fn begin(&mut self) {
        self.began = self.now();
    }

    /// A turn ends: how long the thread stood still in it. None for a short turn, and where the kernel
    /// does not tell.
    pub fn end(&mut self) -> Option<Duration> {
        let began = self.began.take()?;
        if began.at.elapsed() < LEAST {
            return None;
        }
        let now = self.now()?;
        let ran = now.ran.saturating_sub(began.ran);
        let waited = now.waited.saturating_sub(began.waited);
        Some(now.at.duration_since(began.at).saturating_sub(ran + waited))
    }

    fn now(&self) -> Option<Moment> {
        let mut text = [0; 80];
        let length = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        let waited = waited(&text[..length])?;
        let ran = clock_gettime(ClockId::ThreadCPUTime);
        let ran = Duration::new(ran.tv_sec as u64, ran.tv_nsec as u32);
        Some(Moment { at: Instant::now(), ran, waited })
    }
}

/// The second number of `schedstat`: nanoseconds on a run queue.
fn waited(schedstat: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(schedstat).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn the_time_on_a_run_queue_is_the_second_number() {
        assert_eq!(waited(b"1213 450 7\n"), Some(Duration::from_nanos(450)));
        assert_eq!(waited(b"1213"), None);
        assert_eq!(waited(b"\xff \xff"), None);
    }

    #[test]
    fn waiting_for_another_thread_is_standing_still_and_work_is_not() {
        let mut standstill = Standstill::of_this_thread();
        standstill.begin();
        if standstill.began.is_none() {
            eprintln!("skipped: this kernel does not say how long a thread waits for a processor");
            return;
        }
        let (sender, receiver) = channel::<()>();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(60));
            drop(sender);
        });
        assert!(receiver.recv().is_err(), "nothing is sent");
        let still = standstill.end().unwrap();
        other.join().unwrap();
        assert!(still > Duration::from_millis(40), "{still:?}");

        standstill.begin();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let still = standstill.end().unwrap();
        assert!(still < Duration::from_millis(20), "{still:?}");
        standstill.begin();
        assert_eq!(standstill.end(), None, "too short to tell");
    }
}
